//! The scenario `mixed`: a day at an office, in a few minutes. Colleagues write into small groups and to each other, read at once what comes,
//! get a DING now and then, and lose their connections and come back.
//!
//! Everything is due by the clock: messages, DINGs, reconnects. What must hold whatever the speed: each message reaches everybody whom it is
//! for, once and under gap-free seqs, also those who were away.

mod office;
mod person;
mod report;

use std::time::{Duration, Instant};

use carillon_protocol::session::Cursor;

use crate::admission::Crowd;
use crate::authors::Writing;
use crate::basis::Basis;
use crate::crew;
use crate::dinger::{Dinger, Dinging};
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::limits::{AUTHOR_WINDOW, IDLE_WAIT};
use crate::phases::Mark;
use crate::report::{Point, Recorder};
use crate::rig::{Guest, Rig, sleep_until};
use crate::schedule::Schedule;
use crate::summary::Summary;
use crate::target::Target;
use crate::token::Role;
use office::Office;

/// The session that makes the users and sends the DINGs, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub basis: Basis,
    /// Users, with a session each.
    pub users: u32,
    /// Members of each group, at most.
    pub group_size: u32,
    /// Messages a second, of all together.
    pub rate: u32,
    /// How many of a hundred messages are direct; the others go to groups.
    pub direct_percent: u32,
    /// DINGs a second.
    pub ding_rate: u32,
    /// Sessions a second that drop and come back.
    pub reconnect_rate: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
    /// How long it lasts.
    pub measured: Duration,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run in which something was not as it must be does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let basis = &plan.basis;
    let mut rig = Rig::new(target, basis.terms(), note)?;
    rig.begin("connecting the service");
    let service = Guest { handle: &basis.service(), role: Role::Service, publishes: false, cursor: None };
    rig.connect_one(&service)?;
    let handles = basis.users(plan.users);
    let users = crew::find_users(&mut rig, SERVICE, &handles)?;
    rig.note("making the groups");
    let name = |nth: usize| format!("{}/office/{}/{}/{nth}", basis.prefix, plan.users, plan.group_size);
    let groups = users.chunks(plan.group_size as usize).enumerate();
    let groups = groups.map(|(nth, members)| crew::enlist(&mut rig, SERVICE, &name(nth), members));
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    let head = crew::head(&mut rig, &basis.prefix)?;
    let cursor = Cursor { receipts_through: head.position, ..head };
    rig.begin("connecting the sessions");
    rig.note(format!("connecting {} colleagues", plan.users));
    let at_once = basis.connecting_max;
    let crowd = Crowd { handles: &handles, role: Role::User, publishes: true, cursor, at_once };
    let admission = rig.admit(&crowd, &mut |_, _, _| {})?;
    rig.begin("working");
    rig.note(format!("{} messages a second for {} s", plan.rate, plan.measured.as_secs()));
    let (run, start) = (rig.run_number(), rig.clock.now());
    let writing = Writing { run, start, rate: plan.rate, payload_bytes: plan.payload_bytes, window: AUTHOR_WINDOW };
    let dinging = Dinging {
        run,
        schedule: Schedule::per_second(start, plan.ding_rate),
        recipients: users.clone(),
        senders: 1,
        payload_bytes: plan.payload_bytes,
    };
    let mut office = Office::new(plan, (writing, Dinger::new(dinging)), (handles, users), groups, (&admission, cursor));
    let (marks, series) = work(&mut rig, &mut office, plan, start)?;
    let summary = office.summarise(plan, &marks, series);
    rig.fleet.close()?;
    Ok(summary)
}

/// The day, and what is under way at its end.
fn work(
    rig: &mut Rig<'_>,
    office: &mut Office,
    plan: &Plan,
    start: Instant,
) -> Result<((Mark, Mark), Vec<Point>), Failure> {
    let pid = plan.basis.broker_pid;
    let end = start + plan.measured;
    let from = rig.mark(pid)?;
    let mut recorder = Recorder::new(start, pid, &office.delivered);
    office.stop_at(end);
    loop {
        let now = rig.clock.now();
        if now >= end {
            break;
        }
        if let Some(point) = recorder.tick(now, || office.due_until(now), &office.delivered) {
            rig.tell_progress(point.sentence());
        }
        turn(rig, office)?;
        rig.watch.check(rig.clock.now(), || "something to happen at the office".to_owned())?;
    }
    let to = rig.mark(pid)?;
    let series = recorder.finish(to.at, office.due_until(to.at), &office.delivered);
    rig.begin("waiting for what is under way");
    while !office.is_done() && !rig.watch.is_over(rig.clock.now()) {
        turn(rig, office)?;
    }
    Ok(((from, to), series))
}

fn turn(rig: &mut Rig<'_>, office: &mut Office) -> Result<(), Failure> {
    let now = rig.clock.now();
    office.act(now, rig)?;
    let wait = office.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, now));
    let watch = &mut rig.watch;
    rig.fleet.turn(wait, &mut |session, now, news| {
        if office.take(session, now, news) {
            watch.note(now);
        }
    })?;
    office.failed.take().map_or(Ok(()), |why| Err(rig.failed(why)))
}
