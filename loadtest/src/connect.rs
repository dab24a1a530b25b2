//! The scenario `connect`: sessions come in as fast as the broker lets them, with whole handshakes or resumed ones.
//!
//! The load is closed by the number of handshakes under way: what is found is the rate that both sides reach, and what one session costs
//! the broker from its first packet until it has caught up: handshake, token, attaching.

use std::time::Duration;

use crate::admission::{Admission, Crowd};
use crate::basis::Basis;
use crate::crew;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::limits::FAREWELL;
use crate::phases::Mark;
use crate::rig::{Guest, Rig, cursor_at_head};
use crate::summary::Summary;
use crate::target::Target;
use crate::tickets::Resuming;
use crate::token::Role;

/// The session that makes the users, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub basis: Basis,
    /// Sessions that come.
    pub sessions: u32,
    /// Whether they come with a ticket of an earlier session.
    pub resumed: bool,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let basis = &plan.basis;
    let resuming = plan.resumed.then(|| Resuming::new(&target.ca)).transpose()?;
    let mut rig = match &resuming {
        Some(resuming) => Rig::with_tls(target, basis.terms(), resuming.tls.clone(), note)?,
        None => Rig::new(target, basis.terms(), note)?,
    };
    rig.begin("connecting the service");
    let service = Guest { handle: &basis.service(), role: Role::Service, publishes: false, cursor: None };
    let (_, welcome) = rig.connect_one(&service)?;
    let handles = basis.users(plan.sessions);
    crew::find_users(&mut rig, SERVICE, &handles)?;
    let (cursor, at_once) = (cursor_at_head(&welcome), basis.connecting_max);
    let crowd = Crowd { handles: &handles, role: Role::User, publishes: false, cursor, at_once };
    if let Some(resuming) = &resuming {
        collect_tickets(&mut rig, &crowd, resuming)?;
    }
    rig.begin("connecting the sessions");
    rig.note(format!("connecting {} sessions, {}", plan.sessions, if plan.resumed { "resumed" } else { "anew" }));
    let (from, whole_before) = (rig.mark(basis.broker_pid)?, whole(resuming.as_ref()));
    rig.record(from.at, basis.broker_pid);
    let admission = rig.admit(&crowd, &mut |_, _, _| {})?;
    let to = rig.mark(basis.broker_pid)?;
    let mut summary = summarise(plan, &admission, (&from, &to), whole(resuming.as_ref()) - whole_before);
    summary.series = rig.recorded();
    rig.fleet.close()?;
    Ok(summary)
}

/// Whole handshakes so far, as far as they are counted.
fn whole(resuming: Option<&Resuming>) -> u64 {
    resuming.map_or(0, Resuming::whole)
}

/// Everybody comes once, gets a ticket, and goes.
fn collect_tickets(rig: &mut Rig<'_>, crowd: &Crowd<'_>, resuming: &Resuming) -> Result<(), Failure> {
    rig.begin("collecting tickets");
    rig.note("letting everybody in once, for the tickets");
    let first = rig.admit(crowd, &mut |_, _, _| {})?.first;
    while resuming.tickets.count() < crowd.handles.len() {
        rig.turn(&mut |_, _, _| {})?;
        rig.watch.check(rig.clock.now(), || "session tickets: does the broker give any?".to_owned())?;
    }
    for session in first..first + crowd.handles.len() {
        rig.fleet.leave(session);
    }
    resuming.tickets.give();
    rig.turn_for(FAREWELL)
}

fn summarise(plan: &Plan, admission: &Admission, (from, to): (&Mark, &Mark), whole: u64) -> Summary {
    let sessions = u64::from(plan.sessions);
    let a_second = |took: Duration| f64::from(plan.sessions) / took.as_secs_f64().max(1e-6);
    let mut summary = Summary::new("connect");
    summary.figure("sessions", "sessions", f64::from(plan.sessions), "");
    if plan.resumed {
        summary.figure("whole", "of them with a whole handshake all the same", whole as f64, "");
    }
    summary.figure("connect_s", "from the first packet to the last welcome", admission.took.as_secs_f64(), "s");
    summary.figure("connects_per_s", "welcomed a second", a_second(admission.took), "/s");
    let cpu = from.broker_cpu_us_until(to, sessions);
    summary.broker("broker.cpu_us_per_connect", "broker's CPU for a session begun", cpu, "µs");
    if !plan.resumed {
        let kib = from.broker_kib_until(to, sessions);
        summary.broker("broker.resident_kib_per_session", "broker's resident memory for a session", kib, "KiB");
        let kib = from.page_tables_kib_until(to, sessions);
        let name = "kernel's page tables of the broker a session";
        summary.broker("broker.page_tables_kib_per_session", name, kib, "KiB");
        let (kib, name) = (from.kernel_kib_until(to, sessions), "kernel's slab and UDP a session, both sides");
        summary.broker("machine.kernel_kib_per_session", name, kib, "KiB");
    }
    summary.spread("connected", "first packet to welcome", &admission.connected);
    summary.spread("caught_up", "first packet to caught up", &admission.caught_up);
    summary.measured(from, to, 0.0);
    // A ticket may meet keys that have rotated; many of them mean that what was measured is something else.
    summary.expect(!plan.resumed || whole * 100 <= sessions, || {
        format!("{whole} of {sessions} handshakes were whole ones: the broker did not take the tickets")
    });
    summary
}
