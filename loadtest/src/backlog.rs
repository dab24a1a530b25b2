//! Messages that are there before something else begins: published as fast as the broker takes them.

use std::time::{Duration, Instant};

use carillon_protocol::ids::ConversationId;

use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::limits::IDLE_WAIT;
use crate::publisher::{Publisher, Publishing};
use crate::rig::Rig;
use crate::schedule::Schedule;
use crate::session::News;

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// Tells these messages from others.
    pub(crate) run: u64,
    pub(crate) messages: u32,
    pub(crate) conversation: ConversationId,
    pub(crate) payload_bytes: usize,
}

impl Backlog {
    /// Publishes from a session whose producer has this highest number, and waits until all of it is durable. What else happens is told.
    pub(crate) fn publish(
        self,
        rig: &mut Rig<'_>,
        (session, producer_highest): (SessionIndex, u64),
        tell: &mut impl FnMut(SessionIndex, Instant, &News),
    ) -> Result<(), Failure> {
        rig.begin("publishing the backlog");
        let what = Publishing {
            run: self.run,
            schedule: Schedule { start: rig.clock.now(), interval: Duration::ZERO, batch: 1 },
            messages: self.messages,
            conversations: vec![self.conversation],
            payload_bytes: self.payload_bytes,
        };
        let mut publisher = Publisher::new(what, producer_highest);
        let mut failed = None;
        while !publisher.is_done() {
            publisher.send_due(rig.clock.now(), &mut rig.fleet, session);
            let watch = &mut rig.watch;
            rig.fleet.turn(IDLE_WAIT, &mut |from, now, news| {
                tell(from, now, &news);
                match news {
                    News::Answer(frame) if from == session => {
                        watch.note(now);
                        failed = publisher.take(now, &frame).err().or(failed.take());
                    }
                    News::Ended(why) if from == session => failed = Some(format!("the publisher is lost: {why}")),
                    News::Answer(_)
                    | News::Ended(_)
                    | News::Open(_)
                    | News::CaughtUp
                    | News::Message(_)
                    | News::Receipt(_)
                    | News::Urgent(_) => {}
                }
            })?;
            if let Some(why) = failed {
                return Err(rig.failed(why));
            }
            rig.watch.check(rig.clock.now(), || "the answers to the backlog".to_owned())?;
        }
        Ok(())
    }
}
