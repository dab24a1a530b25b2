//! Producers that publish by the clock, whatever has become of the earlier messages.

use std::time::Instant;

use carillon_protocol::ids::ConversationId;
use hdrhistogram::Histogram;

use super::{Measured, Plan, Report};
use crate::authors::{Authors, Writing};
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::latency::{histogram, record};
use crate::limits::IDLE_WAIT;
use crate::publisher::Place;
use crate::report::Recorder;
use crate::rig::{Rig, sleep_until};
use crate::session::News;

/// What was seen.
struct Paced {
    authors: Authors,
    /// The session of the first producer; the others follow it.
    first: SessionIndex,
    /// What is due from here on is measured.
    from: Instant,
    published: Histogram<u64>,
    acknowledged: u64,
    /// When the last of what is measured was acknowledged.
    last: Instant,
}

/// Warms up, measures, and waits for what is under way.
pub(super) fn measure(
    rig: &mut Rig<'_>,
    (plan, rate): (&Plan, u32),
    group: ConversationId,
    producers: &[(SessionIndex, u64)],
) -> Result<Report, Failure> {
    let (run, start) = (rig.run_number(), rig.clock.now());
    let writing = Writing { run, start, rate, payload_bytes: plan.payload_bytes, window: plan.window };
    let authors = Authors::new(writing, producers.iter().copied(), |_| vec![Place::Conversation(group)]);
    let first = producers.first().map_or(0, |(session, _)| *session);
    let from = start + plan.warm_up;
    let mut paced = Paced { authors, first, from, published: histogram(), acknowledged: 0, last: from };
    let end = from + plan.measured;
    paced.authors.stop_at(end);
    paced.publish_until(rig, from, None)?;
    let before = rig.mark(plan.server_pid)?;
    let mut recorder = Recorder::new(from, plan.server_pid, &paced.published);
    paced.publish_until(rig, end, Some(&mut recorder))?;
    let after = rig.mark(plan.server_pid)?;
    let offered = paced.authors.due_until(end) - paced.authors.due_until(from);
    let series = recorder.finish(after.at, offered, &paced.published);
    rig.begin("waiting for the last answers");
    while !paced.authors.are_done() && !rig.watch.is_over(rig.clock.now()) {
        paced.turn(rig)?;
    }
    Ok(Report::of(Measured {
        target: "carillon",
        plan,
        took: paced.last.saturating_duration_since(from).max(plan.measured),
        // What was due and could not be sent is missing as well.
        sent: paced.authors.sent().max(paced.authors.due_until(end)),
        acknowledged: paced.acknowledged,
        measured: paced.published.len(),
        published: &paced.published,
        costs: before.broker.zip(after.broker),
        own_cpu_s: after.own.cpu_s() - before.own.cpu_s(),
        offered: Some(offered),
        late_ms_max: paced.authors.late_ms_max(),
        series,
    }))
}

impl Paced {
    fn publish_until(
        &mut self,
        rig: &mut Rig<'_>,
        end: Instant,
        mut recorder: Option<&mut Recorder>,
    ) -> Result<(), Failure> {
        loop {
            let now = rig.clock.now();
            if now >= end {
                return Ok(());
            }
            let offered = || self.authors.due_until(now) - self.authors.due_until(self.from);
            if let Some(recorder) = &mut recorder
                && let Some(point) = recorder.tick(now, offered, &self.published)
            {
                rig.tell_progress(point.sentence());
            }
            if self.acknowledged >= self.authors.sent() {
                // Nothing is expected before the next message is due.
                rig.watch.note(now);
            }
            self.turn(rig)?;
            rig.watch.check(rig.clock.now(), || "acknowledgements".to_owned())?;
        }
    }

    fn turn(&mut self, rig: &mut Rig<'_>) -> Result<(), Failure> {
        let now = rig.clock.now();
        self.authors.send_due(now, &mut rig.fleet);
        let wait = self.authors.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, now));
        let watch = &mut rig.watch;
        let mut failed = None;
        rig.fleet.turn(wait, &mut |session, now, news| {
            let Some(of) = session.checked_sub(self.first) else { return };
            match news {
                News::Answer(frame) => {
                    watch.note(now);
                    match self.authors.take(of, now, &frame) {
                        Ok(Some(index)) => {
                            self.acknowledged += 1;
                            let due = self.authors.due_at(of, index);
                            if due >= self.from {
                                record(&mut self.published, now, due);
                                self.last = now;
                            }
                        }
                        Ok(None) => {}
                        Err(why) => failed = Some(why),
                    }
                }
                News::Ended(why) => failed = Some(format!("a producer is lost: {why}")),
                News::Open(_) | News::CaughtUp | News::Message(_) | News::Receipt(_) | News::Urgent(_) => {}
            }
        })?;
        failed.map_or(Ok(()), |why| Err(rig.failed(why)))
    }
}
