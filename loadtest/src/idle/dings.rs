//! DINGs to some of the sessions that are held, spread over all of them: each confirms at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use carillon_protocol::ids::UserId;
use carillon_protocol::session::Cursor;

use super::Plan;
use crate::channel::Purpose;
use crate::failure::Failure;
use crate::fleet::{self, SessionIndex};
use crate::probe::{Command, Probe, ProbePlan, Probed};
use crate::pushes::{Confirming, Pushes};
use crate::rig::{Rig, Terms};
use crate::schedule::Schedule;
use crate::session::News;
use crate::summary::Summary;
use crate::target::Target;

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Dings {
    /// DINGs, one recipient each; 0: none.
    pub count: u32,
    /// DINGs a second.
    pub rate: u32,
    /// Services that send them, in turn.
    pub senders: u32,
}

/// Sends them and waits until every sender knows that its DINGs are confirmed. `users` are those of the sessions from `first` on.
pub(super) fn send(
    rig: &mut Rig<'_>,
    plan: &Plan,
    target: &Target,
    (first, users, cursor): (SessionIndex, &[UserId], Cursor),
    summary: &mut Summary,
) -> Result<(), Failure> {
    let Dings { count, rate, senders } = plan.dings;
    if count == 0 {
        return Ok(());
    }
    rig.note(format!("{count} DINGs to some of them, {rate} a second"));
    let run = rig.run_number();
    let recipients = (0..count as usize).map(|nth| users[fleet::scatter(nth, users.len())]).collect();
    let probe = Probe::start(ProbePlan {
        target: target.clone(),
        terms: Terms { sockets: 1, ..plan.basis.terms() },
        prefix: plan.basis.prefix.clone(),
        run,
        payload_bytes: plan.payload_bytes,
        publish_rate: 1,
        conversations: Vec::new(),
        ding_rate: rate,
        recipients,
        senders,
        listeners: Vec::new(),
        cursor,
    })?;
    let start = rig.clock.now();
    probe.tell(Command::Ding(start));
    probe.tell(Command::StopDings(start + Duration::from_secs(1) / rate * count));
    probe.tell(Command::Finish);
    let mut held =
        Held { first, pushes: Pushes::new(run, Schedule::per_second(start, rate)), confirming: HashMap::new() };
    rig.begin("sending DINGs to some of the sessions");
    while !probe.is_finished() {
        held.turn(rig)?;
    }
    let probed = probe.join()?;
    held.report(&probed, count, summary);
    Ok(())
}

/// The recipients.
struct Held {
    first: SessionIndex,
    pushes: Pushes,
    /// Those that have got one.
    confirming: HashMap<SessionIndex, Confirming>,
}

impl Held {
    fn turn(&mut self, rig: &mut Rig<'_>) -> Result<(), Failure> {
        let mut heard = Vec::new();
        rig.turn(&mut |session, now, news| {
            if session >= self.first
                && let News::Urgent(_) | News::Answer(_) = news
            {
                self.take(session, now, news);
                heard.push(session);
            }
        })?;
        for session in heard {
            while let Some(frame) = self.confirming.get_mut(&session).and_then(Confirming::poll) {
                rig.fleet.send(session, Purpose::Control, frame);
            }
        }
        let now = rig.clock.now();
        // The probe has a watch of its own.
        rig.watch.note(now);
        rig.watch.check(now, || "the confirmations".to_owned())
    }

    fn take(&mut self, session: SessionIndex, now: Instant, news: &News) {
        if let News::Urgent(frame) | News::Answer(frame) = news {
            self.pushes.take(now, self.confirming.entry(session).or_default(), frame.clone());
        }
    }

    fn report(&self, probed: &Probed, count: u32, summary: &mut Summary) {
        summary.figure("dings", "DINGs to some of them", f64::from(count), "");
        summary.spread("ding.pushed", "DING: due to pushed", &self.pushes.pushed.histogram());
        let pushed = self.pushes.pushed.seen();
        summary.expect(pushed == count, || format!("{pushed} of {count} DINGs arrived"));
        if let Some(dinged) = &probed.dinged {
            summary.spread("ding.known", "DING: due to confirmed, known", &dinged.known.histogram());
            let known = dinged.known.seen();
            summary.expect(known == count, || format!("{known} of {count} DINGs are known to be confirmed"));
        }
        summary.complaints.extend(probed.complaints());
        summary.complaints.extend(self.pushes.refused().map(|why| format!("a confirmation was refused: {why}")));
    }
}
