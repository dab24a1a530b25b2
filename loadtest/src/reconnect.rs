//! The scenario `reconnect`: everybody drops, and comes back at once to a backlog of missed messages.
//!
//! What it is held against is the same crowd coming back to nothing: the bare handshakes.

use crate::admission::{Admission, Crowd};
use crate::backlog::Backlog;
use crate::basis::Basis;
use crate::crew::{self, Gathered};
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::inboxes::Inboxes;
use crate::limits::{CAUGHT_UP_FACTOR, FAREWELL};
use crate::phases::Mark;
use crate::rig::Rig;
use crate::session::News;
use crate::summary::Summary;
use crate::target::Target;
use crate::token::Role;

/// The session that makes the group and publishes, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub basis: Basis,
    /// Sessions that come back.
    pub sessions: u32,
    /// Messages that each of them has missed.
    pub missed: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
}

/// One way of coming back, with the moments around it.
struct Return {
    admission: Admission,
    from: Mark,
    to: Mark,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with deliveries missing does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let basis = &plan.basis;
    let mut rig = Rig::new(target, basis.terms(), note)?;
    let Gathered { producer_highest, handles, group, cursor, .. } = crew::gather(&mut rig, basis, plan.sessions)?;
    let at_once = basis.connecting_max;
    let crowd = Crowd { handles: &handles, role: Role::User, publishes: false, cursor, at_once };
    rig.note(format!("connecting {} sessions for the first time", plan.sessions));
    come_and_go(&mut rig, plan, &crowd, "connecting for the first time", &mut |_, _| {})?;
    rig.note("again, for the bare handshakes");
    let bare = come_and_go(&mut rig, plan, &crowd, "coming back to nothing", &mut |_, _| {})?;
    let run = rig.run_number();
    let backlog = Backlog { run, messages: plan.missed, conversation: group, payload_bytes: plan.payload_bytes };
    rig.note(format!("publishing {} messages while they are away", plan.missed));
    backlog.publish(&mut rig, (SERVICE, producer_highest), &mut |_, _, _| {})?;
    rig.note("and back, all at once");
    let mut inboxes = Inboxes::new(run, group, rig.fleet.sessions(), handles.len());
    rig.record(rig.clock.now(), basis.broker_pid);
    let back = come_and_go(&mut rig, plan, &crowd, "coming back to a backlog", &mut |session, news| {
        if let News::Message(deliver) = news {
            inboxes.take(session, deliver);
        }
    })?;
    let mut summary = summarise(plan, (&bare, &back), &inboxes);
    summary.series = rig.recorded();
    rig.fleet.close()?;
    Ok(summary)
}

fn come_and_go(
    rig: &mut Rig<'_>,
    plan: &Plan,
    crowd: &Crowd<'_>,
    phase: &'static str,
    tell: &mut impl FnMut(SessionIndex, &News),
) -> Result<Return, Failure> {
    rig.begin(phase);
    let from = rig.mark(plan.basis.broker_pid)?;
    let admission = rig.admit(crowd, &mut |session, _, news| tell(session, news))?;
    let to = rig.mark(plan.basis.broker_pid)?;
    for session in admission.first..admission.first + crowd.handles.len() {
        rig.fleet.leave(session);
    }
    rig.turn_for(FAREWELL)?;
    Ok(Return { admission, from, to })
}

fn summarise(plan: &Plan, (bare, back): (&Return, &Return), inboxes: &Inboxes) -> Summary {
    let sessions = u64::from(plan.sessions);
    let due = sessions * u64::from(plan.missed);
    let (bare_s, back_s) = (bare.admission.caught_up_in.as_secs_f64(), back.admission.caught_up_in.as_secs_f64());
    let mut summary = Summary::new("reconnect");
    summary.figure("sessions", "sessions", f64::from(plan.sessions), "");
    summary.figure("missed", "messages that each has missed", f64::from(plan.missed), "");
    summary.figure("delivered", "deliveries", inboxes.delivered as f64, "");
    summary.figure("bare_s", "all back to nothing", bare_s, "s");
    summary.figure("caught_up_s", "all back and caught up", back_s, "s");
    summary.figure("caught_up_factor", "times the bare handshakes", back_s / bare_s.max(1e-6), "");
    let goal = "times that are the goal; it depends on the machine";
    summary.figure("caught_up_factor_goal", goal, CAUGHT_UP_FACTOR, "");
    summary.figure("achieved_per_s", "deliveries a second", inboxes.delivered as f64 / back_s.max(1e-6), "/s");
    let name = "broker's CPU for a session begun, bare";
    summary.broker("broker.cpu_us_per_connect", name, bare.from.broker_cpu_us_until(&bare.to, sessions), "µs");
    let cpu_us = back.from.broker_cpu_us_until(&back.to, sessions);
    summary.broker("broker.cpu_us_per_reconnect", "  with what it has missed", cpu_us, "µs");
    let kib = back.from.broker_kib_until(&back.to, sessions);
    summary.broker("broker.resident_kib_per_session", "broker's memory grown, a session", kib, "KiB");
    summary.spread("bare", "bare: first packet to caught up", &bare.admission.caught_up);
    summary.spread("connected", "with a backlog: first packet to welcome", &back.admission.connected);
    summary.spread("caught_up", "with a backlog: first packet to caught up", &back.admission.caught_up);
    summary.measured(&back.from, &back.to, 0.0);
    summary.expect(inboxes.delivered == due, || format!("{} of {due} deliveries came", inboxes.delivered));
    summary.expect(inboxes.misplaced == 0, || format!("{} deliveries were out of place", inboxes.misplaced));
    summary
}
