//! The scenario `idle`: many sessions that do nothing, what they cost, whether a burst of messages leaves anything behind,
//! and how soon some of them confirm a DING.

mod dings;

use std::time::Duration;

use crate::admission::Crowd;
use crate::backlog::Backlog;
use crate::basis::Basis;
use crate::crew::{self, Gathered};
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::inboxes::Inboxes;
use crate::limits::SETTLE;
use crate::phases::{Mark, seconds};
use crate::rig::Rig;
use crate::session::News;
use crate::summary::Summary;
use crate::target::Target;
use crate::token::Role;
pub use dings::Dings;
use dings::Held;

/// The session that makes the group and publishes the burst, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub basis: Basis,
    /// Sessions that are held.
    pub sessions: u32,
    /// How long the broker has for what making the users has left it to do, before the first session comes, if its memory is measured.
    pub settle: Duration,
    /// How long nothing happens before the burst.
    pub hold: Duration,
    /// Messages that all of them get then.
    pub burst: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
    /// How long nothing happens after it.
    pub after: Duration,
    /// What some of them get at last.
    pub dings: Dings,
}

/// The moments between the parts of a run.
struct Marks {
    before: Mark,
    connected: Mark,
    /// The wake of connecting is over.
    settled: Mark,
    held: Mark,
    burst: Mark,
    /// The wake of the burst is over.
    calm: Mark,
    after: Mark,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a session that ends is one.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let basis = &plan.basis;
    let mut rig = Rig::new(target, basis.terms(), note)?;
    let Gathered { producer_highest, handles, users, group, cursor } = crew::gather(&mut rig, basis, plan.sessions)?;

    if basis.broker_pid.is_some() {
        // By the clock, and not until it is quiet as `Rig::settle`: it is quiet before it brings the index to disk, too.
        rig.begin("letting the broker settle");
        rig.turn_for(plan.settle)?;
    }
    rig.begin("connecting the sessions");
    rig.note(format!("connecting {} sessions", plan.sessions));
    let before = rig.mark(basis.broker_pid)?;
    let at_once = basis.connecting_max;
    let crowd = Crowd { handles: &handles, role: Role::User, publishes: false, cursor, at_once };
    rig.record(before.at, basis.broker_pid);
    let admission = rig.admit(&crowd, &mut |_, _, _| {})?;
    let connected = rig.mark(basis.broker_pid)?;

    rig.begin("holding the sessions");
    rig.turn_for(SETTLE.min(plan.hold))?;
    let settled = rig.mark(basis.broker_pid)?;
    rig.turn_for(plan.hold)?;
    let held = rig.mark(basis.broker_pid)?;

    rig.note(format!("{} messages to each of them", plan.burst));
    let run = rig.run_number();
    let mut inboxes = Inboxes::new(run, group, admission.first, handles.len());
    let backlog = Backlog { run, messages: plan.burst, conversation: group, payload_bytes: plan.payload_bytes };
    backlog.publish(&mut rig, (SERVICE, producer_highest), &mut |session, _, news| {
        if let News::Message(deliver) = news {
            inboxes.take(session, deliver);
        }
    })?;
    await_all(&mut rig, &mut inboxes, u64::from(plan.sessions) * u64::from(plan.burst))?;
    let burst = rig.mark(basis.broker_pid)?;

    rig.begin("holding the sessions after the burst");
    rig.turn_for(SETTLE.min(plan.after))?;
    let calm = rig.mark(basis.broker_pid)?;
    rig.turn_for(plan.after)?;
    let after = rig.mark(basis.broker_pid)?;
    let mut summary = summarise(plan, &Marks { before, connected, settled, held, burst, calm, after });
    summary.spread("connected", "first packet to welcome", &admission.connected);
    summary.expect(inboxes.misplaced == 0, || format!("{} deliveries were out of place", inboxes.misplaced));
    let held = Held { first: admission.first, users: &users, cursor };
    dings::send(&mut rig, plan, target, held, &mut summary);
    summary.series = rig.recorded();
    rig.fleet.close()?;
    Ok(summary)
}

/// Waits until so many messages were delivered.
fn await_all(rig: &mut Rig<'_>, inboxes: &mut Inboxes, all: u64) -> Result<(), Failure> {
    rig.begin("delivering the burst");
    while inboxes.delivered < all {
        let before = inboxes.delivered;
        rig.turn(&mut |session, _, news| {
            if let News::Message(deliver) = news {
                inboxes.take(session, deliver);
            }
        })?;
        let now = rig.clock.now();
        if inboxes.delivered > before {
            rig.watch.note(now);
        }
        rig.tell_count(inboxes.delivered, all);
        rig.watch.check(now, || format!("{} of {all} deliveries", all - inboxes.delivered))?;
    }
    Ok(())
}

fn summarise(plan: &Plan, marks: &Marks) -> Summary {
    let Marks { before, connected, settled, held, burst, calm, after } = marks;
    let sessions = u64::from(plan.sessions);
    let mut summary = Summary::new("idle");
    summary.figure("sessions", "sessions", f64::from(plan.sessions), "");
    summary.figure("held_s", "held before the burst", seconds(settled, held), "s");
    summary.figure("held_after_s", "held after it", seconds(calm, after), "s");
    summary.figure("burst", "messages of the burst, to each session", f64::from(plan.burst), "");
    let kib = |to| before.broker_kib_until(to, sessions);
    summary.broker("broker.resident_kib_per_session", "broker's memory a session, connected", kib(connected), "KiB");
    summary.broker("broker.resident_kib_per_session_settled", "  held for a while", kib(held), "KiB");
    summary.broker("broker.resident_kib_per_session_burst", "  right after the burst", kib(burst), "KiB");
    summary.broker("broker.resident_kib_per_session_after", "  held again", kib(after), "KiB");
    let held_kib = before.page_tables_kib_until(held, sessions);
    let name = "kernel's page tables of the broker a session";
    summary.broker("broker.page_tables_kib_per_session_settled", name, held_kib, "KiB");
    let after_kib = before.page_tables_kib_until(after, sessions);
    summary.broker("broker.page_tables_kib_per_session_after", "  held again", after_kib, "KiB");
    let name = "kernel's slab and UDP a session, both sides";
    let held_kib = before.kernel_kib_until(held, sessions);
    summary.broker("machine.kernel_kib_per_session_settled", name, held_kib, "KiB");
    let after_kib = before.kernel_kib_until(after, sessions);
    summary.broker("machine.kernel_kib_per_session_after", "  held again", after_kib, "KiB");
    let minutes = |from: &Mark, to: &Mark| (sessions as f64) * seconds(from, to) / 60.0;
    let cpu_ms =
        |from: &Mark, to: &Mark| from.broker_cpu_s_until(to).map(|cpu_s| cpu_s * 1e3 / minutes(from, to).max(1e-9));
    let name = "broker's CPU a session and minute";
    summary.broker("broker.cpu_ms_per_session_minute", name, cpu_ms(settled, held), "ms");
    summary.broker("broker.cpu_ms_per_session_minute_after", "  after the burst", cpu_ms(calm, after), "ms");
    let deliveries = sessions * u64::from(plan.burst);
    let cpu_us = held.broker_cpu_us_until(burst, deliveries);
    summary.broker("broker.cpu_us_per_delivery", "broker's CPU a delivery in the burst", cpu_us, "µs");
    let cpu_us = before.broker_cpu_us_until(connected, sessions);
    summary.broker("broker.cpu_us_per_connect", "broker's CPU for a session begun", cpu_us, "µs");
    summary.measured(settled, held, 0.0);
    summary
}
