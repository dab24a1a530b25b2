//! DINGs to some of the sessions that are held, evenly over all of them: each confirms at once.
//!
//! They are the end of a run that may have taken hours: whatever becomes of them, the figures before stay.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use carillon_protocol::Frame;
use carillon_protocol::ids::UserId;
use carillon_protocol::session::Cursor;

use super::Plan;
use crate::channel::Purpose;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::limits::SETTLE;
use crate::probe::{Command, Probe, ProbePlan, Probed};
use crate::pushes::{Confirming, Pushes};
use crate::rig::{Rig, Terms};
use crate::samples::Samples;
use crate::schedule::Schedule;
use crate::session::News;
use crate::summary::Summary;
use crate::target::Target;

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Dings {
    /// DINGs, each to a session of its own: no more than there are. 0: none.
    pub count: u32,
    /// DINGs a second.
    pub rate: u32,
    /// Services that send them, in turn.
    pub senders: u32,
}

/// Who is held: the users of the sessions from the first one on, and where the journal was when they came.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) first: SessionIndex,
    pub(super) users: &'a [UserId],
    pub(super) cursor: Cursor,
}

/// Sends them and waits until every sender knows that its DINGs are confirmed. If it comes to nothing, the summary complains.
pub(super) fn send(rig: &mut Rig<'_>, plan: &Plan, target: &Target, held: Held<'_>, summary: &mut Summary) {
    if plan.dings.count == 0 {
        return;
    }
    if let Err(failure) = measure(rig, plan, target, held, summary) {
        summary.complaints.push(format!("the DINGs came to nothing: {failure}"));
    }
}

fn measure(
    rig: &mut Rig<'_>,
    plan: &Plan,
    target: &Target,
    held: Held<'_>,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let Dings { count, rate, .. } = plan.dings;
    rig.note(format!("{count} DINGs to some of them, {rate} a second"));
    let run = rig.run_number();
    let probe = start_probe(rig, plan, target, held, run)?;
    // What has come for the sessions while the senders connected.
    rig.turn_for(SETTLE)?;
    rig.begin("sending DINGs to some of the sessions");
    let start = rig.clock.now();
    probe.tell(Command::Ding(start));
    probe.tell(Command::StopDings(start + Duration::from_secs(1) / rate * count));
    probe.tell(Command::Finish);
    let pushes = Pushes::new(run, Schedule::per_second(start, rate));
    let mut recipients = Recipients { first: held.first, pushes, confirming: HashMap::new(), owing: Vec::new() };
    while !probe.is_finished() {
        recipients.turn(rig)?;
    }
    let probed = probe.join()?;
    recipients.report(&probed, count, summary);
    Ok(())
}

fn start_probe(rig: &Rig<'_>, plan: &Plan, target: &Target, held: Held<'_>, run: u64) -> Result<Probe, Failure> {
    let Dings { count, rate, senders } = plan.dings;
    let users = held.users;
    let recipients = (0..count as usize).map(|nth| users[nth * users.len() / count as usize]).collect();
    Probe::start(ProbePlan {
        target: target.clone(),
        terms: Terms { sockets: 1, time_limit: rig.watch.left(rig.clock.now()), ..plan.basis.terms() },
        prefix: plan.basis.prefix.clone(),
        run,
        payload_bytes: plan.payload_bytes,
        publish_rate: 1,
        conversations: Vec::new(),
        ding_rate: rate,
        recipients,
        senders,
        listeners: Vec::new(),
        cursor: held.cursor,
    })
}

/// The sessions that get them. What an earlier run has left is not confirmed before a DING of this one comes to the same session.
struct Recipients {
    first: SessionIndex,
    pushes: Pushes,
    /// Of those that have got one.
    confirming: HashMap<SessionIndex, Confirming>,
    /// Those that heard something in this turn.
    owing: Vec<SessionIndex>,
}

impl Recipients {
    fn turn(&mut self, rig: &mut Rig<'_>) -> Result<(), Failure> {
        rig.turn(&mut |session, now, news| {
            if session >= self.first
                && let News::Urgent(frame) | News::Answer(frame) = news
            {
                self.take(session, now, frame.clone());
            }
        })?;
        for session in self.owing.drain(..) {
            while let Some(frame) = self.confirming.get_mut(&session).and_then(Confirming::poll) {
                rig.fleet.send(session, Purpose::Control, frame);
            }
        }
        // The probe gives up by itself.
        rig.watch.note(rig.clock.now());
        Ok(())
    }

    fn take(&mut self, session: SessionIndex, now: Instant, frame: Frame) {
        self.pushes.take(now, self.confirming.entry(session).or_default(), frame);
        self.owing.push(session);
    }

    fn report(&self, probed: &Probed, count: u32, summary: &mut Summary) {
        summary.figure("dings", "DINGs to some of them", f64::from(count), "");
        let mut tell = |path, measure, samples: &Samples| {
            summary.spread(path, measure, &samples.histogram());
            let seen = samples.seen();
            summary.expect(seen == count, || format!("{measure}: {seen} of {count}"));
        };
        if let Some(dinged) = &probed.dinged {
            tell("ding.written", "DING: due to written", &dinged.written);
        }
        tell("ding.pushed", "DING: due to pushed", &self.pushes.pushed);
        if let Some(dinged) = &probed.dinged {
            tell("ding.known", "DING: due to confirmed, known", &dinged.known);
        }
        let again = self.pushes.repeated;
        summary.expect(again == 0, || format!("{again} DINGs were pushed again to a session that had them"));
        summary.complaints.extend(self.pushes.refused().map(|why| format!("a confirmation was refused: {why}")));
    }
}
