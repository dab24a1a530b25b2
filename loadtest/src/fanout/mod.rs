//! The scenario `fanout`: one group, all sessions its members, one service that publishes into it.
//!
//! A run makes its users and its group once and finds them again the next time: devices, producer and the group's name
//! follow from the prefix and the number of sessions alone, so that runs do not pile up anything but messages. Two runs of
//! one prefix at the same time fence each other.

mod crew;
mod plan;
mod publisher;
mod tally;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId};
use carillon_protocol::session::{Cursor, Hello, NEWEST_ALL, VERSION, Welcome};

use crate::channel::Purpose;
use crate::clock::SystemClock;
use crate::failure::{Ended, Failure};
use crate::fleet::{Acks, Fleet, Greeting, SessionIndex};
use crate::limits::{IDLE_WAIT, TOKEN_MARGIN};
use crate::process::Usage;
use crate::report::{BrokerCost, Latency, Report};
use crate::session::News;
use crate::target::Target;
use crate::token::{Role, Signer};
use crate::watch::Watch;
pub use plan::Plan;
use publisher::Publisher;
use tally::Tally;

/// The device of every session: one a user.
const DEVICE: DeviceId = DeviceId(0x6c6f_6164);

/// The numbering of the service's publishes; it goes on from run to run.
const PRODUCER: ProducerId = ProducerId(0x6c6f_6164);

/// The session that publishes, the first of the fleet.
const PUBLISHER: SessionIndex = 0;

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    clock: SystemClock,
    signer: Signer,
    fleet: Fleet,
    watch: Watch,
    note: &'a mut dyn FnMut(String),
}

/// How the sessions came to be.
struct Connected {
    took: Duration,
    before: Option<Usage>,
    after: Option<Usage>,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with deliveries missing does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    let clock = SystemClock;
    let expires_at = clock.wall() + plan.time_limit + TOKEN_MARGIN;
    let acks = Acks { messages: plan.ack_messages, every: plan.ack_every };
    let mut run = Run {
        plan,
        clock,
        signer: Signer::new(&target.token_key, &target.tenant, expires_at)?,
        fleet: Fleet::new(target, plan.sockets, acks, clock)?,
        watch: Watch::new(clock, plan.patience, plan.time_limit),
        note,
    };
    run.usage()?;
    let welcome = run.connect_publisher(target)?;
    (run.note)(format!("the broker's journal is at {}; making users and their group", welcome.head));
    let conversation = crew::enlist(&mut run)?;
    (run.note)(format!("connecting {} sessions", plan.sessions));
    let connected = run.connect_sessions(target, &welcome)?;
    (run.note)(format!("{} messages in {} rounds", plan.messages(), plan.rounds));
    let report = run.measure(conversation, &welcome, &connected)?;
    run.fleet.close()?;
    Ok(report)
}

impl Run<'_> {
    fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.plan.broker_pid.map(|pid| Usage::of(Some(pid))).transpose()
    }

    fn greeting(&self, handle: &str, role: Role, cursor: Option<Cursor>) -> Result<Greeting, Failure> {
        let publishes = role == Role::Service;
        let hello = Hello {
            version: VERSION,
            device: DEVICE,
            producer: if publishes { PRODUCER } else { ProducerId(0) },
            newest: NEWEST_ALL,
            token: self.signer.token(handle, role)?.as_str().into(),
            client: concat!("carillon-loadtest/", env!("CARGO_PKG_VERSION")).into(),
            cursors: cursor.into_iter().collect(),
        };
        let start = cursor.map_or(Position(0), |cursor| cursor.position);
        Ok(Greeting { hello: hello.to_bytes(), start, publishes })
    }

    fn handle(&self, session: u32) -> String {
        format!("{}-{session}", self.plan.prefix)
    }

    fn connect_publisher(&mut self, target: &Target) -> Result<Welcome, Failure> {
        self.watch.begin("connecting the publisher");
        let greeting = self.greeting(&format!("{}-publisher", self.plan.prefix), Role::Service, None)?;
        self.fleet.connect(greeting)?;
        let (mut welcome, mut ended) = (None, None);
        while welcome.is_none() {
            self.fleet.turn(IDLE_WAIT, &mut |_, _, news| match news {
                News::Open(open) => welcome = Some(open),
                News::Ended(why) => ended = Some(why),
                News::CaughtUp | News::Answer(_) | News::Message(_) => {}
            })?;
            if let Some(ended) = &ended {
                return Err(ended.failure(self.watch.phase(), target.address));
            }
            self.watch.check(self.clock.now(), || "the publisher's welcome".to_owned())?;
        }
        Ok(welcome.expect("the loop ends with it"))
    }

    /// Opens all sessions, some at a time, each with a cursor where the journal was when the run began, so that none
    /// reads the messages of earlier runs; and waits until they have caught up from there.
    fn connect_sessions(&mut self, target: &Target, welcome: &Welcome) -> Result<Connected, Failure> {
        self.watch.begin("connecting the sessions");
        let Welcome { shard, incarnation, head, .. } = *welcome;
        let cursor = Cursor { shard, incarnation, position: head, receipts_through: Position(0) };
        let before = self.usage()?;
        let begin = self.clock.now();
        let (mut begun, mut open, mut caught_up) = (0, 0, 0);
        let mut opened_at = begin;
        let mut lost: Option<Ended> = None;
        while caught_up < self.plan.sessions {
            while begun < self.plan.sessions && begun - open < self.plan.connecting_max {
                let greeting = self.greeting(&self.handle(begun), Role::User, Some(cursor))?;
                self.fleet.connect(greeting)?;
                begun += 1;
            }
            let watch = &mut self.watch;
            self.fleet.turn(IDLE_WAIT, &mut |session, now, news| match news {
                News::Open(_) => {
                    open += 1;
                    opened_at = now;
                    watch.note(now);
                }
                // The publisher has no part in this.
                News::CaughtUp if session != PUBLISHER => {
                    caught_up += 1;
                    watch.note(now);
                }
                News::Ended(why) => lost = Some(why),
                News::CaughtUp | News::Answer(_) | News::Message(_) => {}
            })?;
            if let Some(lost) = &lost {
                return Err(lost.failure(self.watch.phase(), target.address));
            }
            let waits_for = || format!("{} welcomes and {} catch-ups", self.plan.sessions - open, open - caught_up);
            self.watch.check(self.clock.now(), waits_for)?;
        }
        Ok(Connected { took: opened_at.saturating_duration_since(begin), before, after: self.usage()? })
    }

    fn measure(
        &mut self,
        conversation: ConversationId,
        welcome: &Welcome,
        connected: &Connected,
    ) -> Result<Report, Failure> {
        self.watch.begin("delivering");
        let own_before = Usage::of(None)?;
        let start = self.clock.now();
        // Of another run of this group it differs in its milliseconds.
        let run = u64::try_from(self.clock.wall().as_millis()).unwrap_or(u64::MAX);
        let mut publisher = Publisher::new(self.plan, run, start, conversation, welcome.producer_highest);
        let mut tally = Tally::new(self.plan, run, start, conversation);
        let mut failed = None;
        loop {
            self.publish(&mut publisher);
            let wait = publisher.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, self.clock.now()));
            let watch = &mut self.watch;
            self.fleet.turn(wait, &mut |session, now, news| match news {
                News::Message(deliver) if session != PUBLISHER => {
                    watch.note(now);
                    tally.take(session - 1, now, &deliver);
                }
                News::Answer(frame) => {
                    if let Err(why) = publisher.take(now, &frame) {
                        failed = Some(why);
                    }
                }
                News::Ended(why) if session == PUBLISHER => failed = Some(format!("the publisher is lost: {why}")),
                News::Ended(why) => tally.lose(&why),
                News::Open(_) | News::CaughtUp | News::Message(_) => {}
            })?;
            if let Some(why) = failed {
                return Err(Failure::Broker { phase: self.watch.phase(), why });
            }
            let now = self.clock.now();
            if tally.has_all_of(publisher.sent()) && publisher.next_due().is_some_and(|due| due > now) {
                // Nothing is expected before the next message is due.
                self.watch.note(now);
            }
            if (publisher.is_done() && tally.is_done()) || self.watch.is_over(now) {
                break;
            }
        }
        self.report(&publisher, &tally, connected, own_before)
    }

    fn publish(&mut self, publisher: &mut Publisher) {
        while self.fleet.is_clear(PUBLISHER, Purpose::Publish) {
            let mut frames = BytesMut::new();
            publisher.encode_due(self.clock.now(), &mut frames);
            if frames.is_empty() {
                break;
            }
            self.fleet.send(PUBLISHER, Purpose::Publish, Bytes::from(frames));
        }
    }

    fn report(
        &self,
        publisher: &Publisher,
        tally: &Tally,
        connected: &Connected,
        own_before: Usage,
    ) -> Result<Report, Failure> {
        let plan = self.plan;
        let sessions = f64::from(plan.sessions);
        let offered = u64::from(plan.sessions) * u64::from(plan.messages());
        // A broker that died on the way has no cost to tell; what is missing tells of it.
        let after = self.usage().ok().flatten();
        let cost = |before: Usage, connected: Usage, after: Usage| BrokerCost {
            cpu_us_per_connect: (connected.cpu_s - before.cpu_s) * 1e6 / sessions,
            cpu_us_per_delivery: (after.cpu_s - connected.cpu_s) * 1e6 / tally.delivered().max(1) as f64,
            resident_kib_per_session: growth(before, connected) / sessions,
            resident_kib_per_session_after: growth(before, after) / sessions,
        };
        let costs = connected.before.zip(connected.after).zip(after);
        Ok(Report {
            scenario: "fanout",
            sessions: plan.sessions,
            messages: plan.messages(),
            payload_bytes: plan.payload_bytes,
            connect_s: connected.took.as_secs_f64(),
            connects_per_s: sessions / connected.took.as_secs_f64(),
            offered,
            delivered: tally.delivered(),
            misplaced: tally.misplaced(),
            offered_per_s: offered as f64 / (f64::from(plan.rounds) * plan.interval.as_secs_f64()),
            achieved_per_s: tally.delivered() as f64 / tally.span().as_secs_f64(),
            latency: Latency::of(tally.latency()),
            published: Latency::of(publisher.latency()),
            publisher_late_ms_max: publisher.late_max().as_secs_f64() * 1e3,
            sessions_lost: tally.lost(),
            first_loss: tally.first_loss().map(str::to_owned),
            broker: costs.map(|((before, connected), after)| cost(before, connected, after)),
            own_cpu_s: Usage::of(None)?.cpu_s - own_before.cpu_s,
        })
    }
}

/// KiB of resident memory from one look to the next.
fn growth(before: Usage, after: Usage) -> f64 {
    after.resident_kib as f64 - before.resident_kib as f64
}

/// The poller counts whole milliseconds and rounds up, so that the last one is not slept through.
fn sleep_until(due: Instant, now: Instant) -> Duration {
    if due.saturating_duration_since(now) > IDLE_WAIT { IDLE_WAIT } else { Duration::ZERO }
}
