//! A small, steady load beside the scenario's own, in a thread of its own, so that what it measures is the broker's
//! latency and not the queue of the thread that plays the crowd.
//!
//! Owns a fleet with one service that publishes, some that send DINGs, and listeners that get both. Its schedules run
//! from when they are told to until they are told not to; what belongs to which phase is decided afterwards.

mod instruments;

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::session::Cursor;

use crate::failure::Failure;
use crate::limits::{COMMANDS_MAX, IDLE_WAIT};
use crate::rig::{Guest, Rig, Terms, sleep_until};
use crate::target::Target;
use crate::token::Role;
use instruments::Instruments;
pub(crate) use instruments::Probed;

/// What a probe is.
#[derive(Clone, Debug)]
pub(crate) struct ProbePlan {
    pub(crate) target: Target,
    pub(crate) terms: Terms,
    /// What the handles of its services begin with.
    pub(crate) prefix: String,
    /// Tells its messages and DINGs from those of other runs.
    pub(crate) run: u64,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
    /// Messages a second, into these conversations in turn.
    pub(crate) publish_rate: u32,
    pub(crate) conversations: Vec<ConversationId>,
    /// DINGs a second, to these users in turn, from so many services in turn.
    pub(crate) ding_rate: u32,
    pub(crate) recipients: Vec<UserId>,
    pub(crate) senders: u32,
    /// Handles of the sessions that get messages and DINGs here: each message goes to one of them. May be none.
    pub(crate) listeners: Vec<String>,
    /// Where their sessions begin.
    pub(crate) cursor: Cursor,
}

/// What a probe is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    /// Publish from this moment on.
    Publish(Instant),
    /// Publish nothing that is due from this moment on.
    StopPublishing(Instant),
    /// Send DINGs from this moment on.
    Ding(Instant),
    /// Send no DING that is due from this moment on.
    StopDings(Instant),
    /// End when everything that was sent is settled.
    Finish,
}

/// A probe that runs. Dropped, it ends by itself.
pub(crate) struct Probe {
    commands: SyncSender<Command>,
    thread: JoinHandle<Result<Probed, Failure>>,
}

impl Probe {
    /// Starts the thread and waits until its sessions are there.
    pub(crate) fn start(plan: ProbePlan) -> Result<Self, Failure> {
        let (commands, orders) = sync_channel(COMMANDS_MAX);
        let (tell_ready, ready) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("probe".to_owned()).spawn(move || run(&plan, &orders, &tell_ready))?;
        let probe = Self { commands, thread };
        if ready.recv().is_ok() {
            return Ok(probe);
        }
        // Without the word the thread has ended, and says why.
        Err(probe.join().err().unwrap_or_else(|| Failure::Usage("the probe ended before it began".to_owned())))
    }

    /// Tells it something. A probe that has failed says so when it is joined.
    pub(crate) fn tell(&self, command: Command) {
        self.commands.send(command).ok();
    }

    /// Whether it has come to its end, or has failed.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it found.
    pub(crate) fn join(self) -> Result<Probed, Failure> {
        drop(self.commands);
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn run(plan: &ProbePlan, orders: &Receiver<Command>, ready: &SyncSender<()>) -> Result<Probed, Failure> {
    let mut silent = |_| {};
    let mut rig = Rig::new(&plan.target, plan.terms, &mut silent)?;
    rig.begin("connecting the probe");
    let service = |name: &str| format!("{}-{name}", plan.prefix);
    let publisher = Guest { handle: &service("prober"), role: Role::Service, publishes: true, cursor: None };
    let (_, welcome) = rig.connect_one(&publisher)?;
    for sender in 0..plan.senders {
        let handle = service(&format!("dinger-{sender}"));
        rig.connect_one(&Guest { handle: &handle, role: Role::Service, publishes: false, cursor: None })?;
    }
    rig.connect_users(plan.listeners.iter().cloned(), plan.senders.max(16), plan.cursor)?;
    ready.send(()).ok();
    rig.begin("probing");
    let mut instruments = Instruments::new(plan, welcome.producer_highest);
    let mut is_finishing = false;
    loop {
        match orders.try_recv() {
            Ok(Command::Finish) => is_finishing = true,
            Ok(command) => instruments.obey(command),
            Err(TryRecvError::Empty) => {}
            // The scenario has failed: nobody wants the figures.
            Err(TryRecvError::Disconnected) if !is_finishing => return Err(rig.failed("the run was given up")),
            Err(TryRecvError::Disconnected) => {}
        }
        instruments.send_due(rig.clock.now(), &mut rig.fleet);
        let wait = instruments.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, rig.clock.now()));
        let watch = &mut rig.watch;
        rig.fleet.turn(wait, &mut |session, now, news| {
            watch.note(now);
            instruments.take(session, now, news);
        })?;
        if let Some(why) = instruments.failed() {
            return Err(rig.failed(why));
        }
        let now = rig.clock.now();
        if !is_finishing {
            // Nothing is waited for but the next command.
            rig.watch.note(now);
            rig.watch.check(now, || "the end of the run".to_owned())?;
        } else if instruments.is_done() || rig.watch.is_over(now) {
            break;
        }
    }
    rig.fleet.close()?;
    Ok(instruments.finish())
}
