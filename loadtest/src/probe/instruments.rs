//! What a probe sends and measures, without the loop.

use std::time::Instant;

use carillon_protocol::deliver::Deliver;

use super::{Command, ProbePlan};
use crate::channel::Purpose;
use crate::dinger::{Dinger, Dinging};
use crate::fleet::{Fleet, SessionIndex};
use crate::limits::MESSAGES_MAX;
use crate::phases::{Mark, Row, seconds};
use crate::publisher::{Publisher, Publishing, index_in};
use crate::pushes::{Confirming, Pushes};
use crate::report::{Measure, Point, Timeline};
use crate::samples::Samples;
use crate::schedule::Schedule;
use crate::session::News;

/// The session that publishes; those that send DINGs follow, then the listeners.
const PUBLISHER: SessionIndex = 0;

/// The measure of its messages that says most of what others notice.
const DELIVERED: &str = "publish: due to delivered";

/// What a probe found.
#[derive(Default)]
pub(crate) struct Probed {
    /// Of its messages, if it published.
    pub(crate) published: Option<Published>,
    /// Of its DINGs, if it sent any.
    pub(crate) dinged: Option<Dinged>,
}

/// What became of messages.
pub(crate) struct Published {
    /// How many were sent.
    pub(crate) count: u32,
    /// When the broker said that they are durable.
    pub(crate) acked: Samples,
    /// When they were delivered.
    pub(crate) delivered: Samples,
    /// Deliveries of what had been delivered before.
    pub(crate) repeated: u32,
    /// How late one was written at worst.
    pub(crate) late_ms_max: f64,
}

/// What became of DINGs.
pub(crate) struct Dinged {
    /// How many were sent.
    pub(crate) count: u32,
    /// When they were written.
    pub(crate) written: Samples,
    /// When the broker said that they are durable.
    pub(crate) created: Samples,
    /// When they were pushed to a listener of this probe.
    pub(crate) pushed: Samples,
    /// When their sender knew that they were confirmed.
    pub(crate) known: Samples,
    /// Why a confirmation was refused.
    pub(crate) refused: Option<String>,
}

impl Probed {
    /// Everything that was measured here: its name, how many there are, and what became of them.
    pub(crate) fn measures(&self) -> Vec<(&'static str, u32, &Samples)> {
        let mut all = Vec::new();
        if let Some(published) = &self.published {
            all.push(("publish: due to durable", published.count, &published.acked));
            all.push((DELIVERED, published.count, &published.delivered));
        }
        if let Some(dinged) = &self.dinged {
            all.push(("DING: due to written", dinged.count, &dinged.written));
            all.push(("DING: due to durable", dinged.count, &dinged.created));
            all.push(("DING: due to pushed", dinged.count, &dinged.pushed));
            all.push(("DING: due to confirmed, known", dinged.count, &dinged.known));
        }
        all
    }

    /// The figures by phase: each lies between two marks.
    pub(crate) fn rows(&self, phases: &[&'static str], marks: &[Mark]) -> Vec<Row> {
        let phases: Vec<_> = phases.iter().zip(marks.windows(2)).collect();
        let measures = self.measures();
        let rows = measures.iter().flat_map(|(measure, count, samples)| {
            phases.iter().map(move |(phase, ends)| {
                let belongs = |_, due| (ends[0].at..ends[1].at).contains(&due);
                Row { measure, phase, figures: samples.figures(*count, seconds(&ends[0], &ends[1]), belongs) }
            })
        });
        rows.collect()
    }

    /// The points that were made from the first mark on, with the deliveries of its messages; the phases lie between the marks.
    pub(crate) fn timeline(&self, series: Vec<Point>, phases: &[&'static str], marks: &[Mark]) -> Timeline {
        let Some((begin, published)) = marks.first().zip(self.published.as_ref()) else {
            return Timeline { series, ..Timeline::default() };
        };
        let measure = Measure { name: DELIVERED, count: published.count, samples: &published.delivered };
        let spans = phases.iter().zip(marks.windows(2)).map(|(phase, ends)| (*phase, ends[0].at, ends[1].at));
        Timeline::of_probe(begin.at, series, &measure).with_spans(begin.at, spans)
    }

    /// What was not as it must be, beside what is missing.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(again) = self.published.as_ref().map(|published| published.repeated).filter(|again| *again > 0) {
            found.push(format!("{again} messages of the probe were delivered again"));
        }
        if let Some(why) = self.dinged.as_ref().and_then(|dinged| dinged.refused.as_ref()) {
            found.push(format!("a confirmation was refused: {why}"));
        }
        found
    }
}

/// Messages on their way.
struct Messages {
    publisher: Publisher,
    acked: Samples,
    delivered: Samples,
    repeated: u32,
}

/// DINGs on their way.
struct Dings {
    dinger: Dinger,
    pushes: Pushes,
}

/// Whose a session is.
enum Seat {
    Publisher,
    Dinger(usize),
    Listener(usize),
}

/// See the module.
pub(super) struct Instruments<'a> {
    plan: &'a ProbePlan,
    producer_highest: u64,
    messages: Option<Messages>,
    dings: Option<Dings>,
    /// By listener.
    confirming: Vec<Confirming>,
    failed: Option<String>,
}

impl<'a> Instruments<'a> {
    pub(super) fn new(plan: &'a ProbePlan, producer_highest: u64) -> Self {
        let confirming = plan.listeners.iter().map(|_| Confirming::default()).collect();
        Self { plan, producer_highest, messages: None, dings: None, confirming, failed: None }
    }

    /// Begins or ends a schedule.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Publish(from) => {
                let schedule = Schedule::per_second(from, self.plan.publish_rate);
                let what = Publishing {
                    run: self.plan.run,
                    schedule,
                    messages: MESSAGES_MAX,
                    conversations: self.plan.conversations.clone(),
                    payload_bytes: self.plan.payload_bytes,
                };
                self.messages = Some(Messages {
                    publisher: Publisher::new(what, self.producer_highest),
                    acked: Samples::new(schedule),
                    delivered: Samples::new(schedule),
                    repeated: 0,
                });
            }
            Command::Ding(from) => {
                let schedule = Schedule::per_second(from, self.plan.ding_rate);
                let what = Dinging {
                    run: self.plan.run,
                    schedule,
                    recipients: self.plan.recipients.clone(),
                    senders: self.plan.senders as usize,
                    payload_bytes: self.plan.payload_bytes,
                };
                self.dings = Some(Dings { dinger: Dinger::new(what), pushes: Pushes::new(self.plan.run, schedule) });
            }
            Command::StopPublishing(end) => {
                if let Some(messages) = &mut self.messages {
                    messages.publisher.stop_at(end);
                }
            }
            Command::StopDings(end) => {
                if let Some(dings) = &mut self.dings {
                    dings.dinger.stop_at(end);
                }
            }
            Command::Finish => {}
        }
    }

    /// Sends what is due, and the confirmations for which there is room.
    pub(super) fn send_due(&mut self, now: Instant, fleet: &mut Fleet) {
        if let Some(messages) = &mut self.messages {
            messages.publisher.send_due(now, fleet, PUBLISHER);
        }
        while let Some((sender, frame)) = self.dings.as_mut().and_then(|dings| dings.dinger.poll_due(now)) {
            fleet.send(1 + sender, Purpose::Control, frame);
        }
        for (listener, confirming) in self.confirming.iter_mut().enumerate() {
            while let Some(frame) = confirming.poll() {
                fleet.send(1 + self.plan.senders as usize + listener, Purpose::Control, frame);
            }
        }
    }

    /// When the next thing is to be sent.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let message = self.messages.as_ref().and_then(|messages| messages.publisher.next_due());
        let ding = self.dings.as_ref().and_then(|dings| dings.dinger.next_due());
        message.into_iter().chain(ding).min()
    }

    /// Takes what a session tells.
    pub(super) fn take(&mut self, session: SessionIndex, now: Instant, news: News) {
        let seat = self.seat(session);
        match (news, seat) {
            (News::Message(deliver), Seat::Listener(_)) => self.take_message(now, &deliver),
            (News::Answer(frame), Seat::Publisher) => {
                let Some(messages) = &mut self.messages else { return };
                match messages.publisher.take(now, &frame) {
                    Ok(Some(index)) => {
                        messages.acked.record(index, now);
                    }
                    Ok(None) => {}
                    Err(why) => self.failed = Some(why),
                }
            }
            (News::Answer(frame) | News::Urgent(frame), Seat::Dinger(sender)) => {
                let taken = self.dings.as_mut().map_or(Ok(()), |dings| dings.dinger.take(now, sender, frame));
                if let Err(why) = taken {
                    self.failed = Some(why);
                }
            }
            (News::Answer(frame) | News::Urgent(frame), Seat::Listener(listener)) => {
                if let Some(dings) = &mut self.dings {
                    dings.pushes.take(now, &mut self.confirming[listener], frame);
                }
            }
            (News::Ended(why), _) => self.failed = Some(format!("a session of the probe is lost: {why}")),
            (News::Open(_) | News::CaughtUp | News::Receipt(_), _)
            | (News::Message(_), Seat::Publisher | Seat::Dinger(_))
            | (News::Urgent(_), Seat::Publisher) => {}
        }
    }

    /// Why it cannot go on.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Whether nothing more is to come.
    pub(super) fn is_done(&self) -> bool {
        let are_delivered = |messages: &Messages| {
            self.plan.listeners.is_empty() || messages.delivered.seen() >= messages.publisher.sent()
        };
        self.messages.as_ref().is_none_or(|messages| messages.publisher.is_done() && are_delivered(messages))
            && self.dings.as_ref().is_none_or(|dings| dings.dinger.is_done())
    }

    /// What was found.
    pub(super) fn finish(self) -> Probed {
        let published = self.messages.map(|messages| Published {
            count: messages.publisher.sent(),
            late_ms_max: messages.publisher.late_max().as_secs_f64() * 1e3,
            acked: messages.acked,
            delivered: messages.delivered,
            repeated: messages.repeated,
        });
        let dinged = self.dings.map(|Dings { dinger, pushes }| Dinged {
            count: dinger.sent(),
            refused: pushes.refused().map(str::to_owned),
            pushed: pushes.pushed,
            written: dinger.written,
            created: dinger.created,
            known: dinger.known,
        });
        Probed { published, dinged }
    }

    fn take_message(&mut self, now: Instant, deliver: &Deliver) {
        let Some(messages) = &mut self.messages else { return };
        if let Some(index) = index_in(&deliver.payload, self.plan.run)
            && !messages.delivered.record(index, now)
        {
            messages.repeated += 1;
        }
    }

    fn seat(&self, session: SessionIndex) -> Seat {
        let senders = self.plan.senders as usize;
        match session.checked_sub(1 + senders) {
            Some(listener) => Seat::Listener(listener),
            None if session == PUBLISHER => Seat::Publisher,
            None => Seat::Dinger(session - 1),
        }
    }
}
