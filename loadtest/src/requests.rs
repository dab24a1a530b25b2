//! Requests of one session, pipelined as far as the protocol lets them be.

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::error::Error;
use carillon_protocol::limits::REQUESTS_PENDING_MAX;

use crate::channel::Purpose;
use crate::failure::{Ended, Failure};
use crate::fleet::SessionIndex;
use crate::limits::IDLE_WAIT;
use crate::rig::Rig;
use crate::session::News;

/// A reply, or the broker's refusal.
pub(crate) type Reply = Result<Frame, Error>;

/// Asks one thing and waits for the reply. `make` gets the request's number.
pub(crate) fn ask(rig: &mut Rig<'_>, session: SessionIndex, make: impl Fn(u32) -> Bytes) -> Result<Reply, Failure> {
    let mut replies = ask_all(rig, session, 1, |_, request| make(request))?;
    Ok(replies.pop().expect("one reply was waited for"))
}

/// Asks `count` things, some at a time, and waits for all replies, in the order of the questions. `make` gets the index
/// of a question and the request's number.
pub(crate) fn ask_all(
    rig: &mut Rig<'_>,
    session: SessionIndex,
    count: usize,
    make: impl Fn(usize, u32) -> Bytes,
) -> Result<Vec<Reply>, Failure> {
    let mut replies: Vec<Option<Reply>> = (0..count).map(|_| None).collect();
    let (mut asked, mut answered) = (0, 0);
    let mut ended: Option<Ended> = None;
    while answered < count {
        while asked < count && asked - answered < REQUESTS_PENDING_MAX {
            let request = u32::try_from(asked + 1).expect("sessions are far fewer than numbers");
            rig.fleet.send(session, Purpose::Control, make(asked, request));
            asked += 1;
        }
        let watch = &mut rig.watch;
        rig.fleet.turn(IDLE_WAIT, &mut |from, now, news| match news {
            News::Answer(frame) if from == session => {
                let Some((request, reply)) = numbered(frame) else { return };
                let place = usize::try_from(request).ok().and_then(|number| replies.get_mut(number.checked_sub(1)?));
                if let Some(place) = place
                    && place.is_none()
                {
                    *place = Some(reply);
                    answered += 1;
                    watch.note(now);
                }
            }
            News::Ended(why) if from == session => ended = Some(why),
            News::Open(_)
            | News::CaughtUp
            | News::Answer(_)
            | News::Message(_)
            | News::Receipt(_)
            | News::Urgent(_)
            | News::Ended(_) => {}
        })?;
        if let Some(ended) = &ended {
            return Err(rig.failed(ended.to_string()));
        }
        rig.tell_count(answered, count);
        rig.watch.check(rig.clock.now(), || format!("the replies to {} of {count} requests", count - answered))?;
    }
    Ok(replies.into_iter().flatten().collect())
}

/// The request's number and the reply, of the frames that answer what a load test asks.
fn numbered(frame: Frame) -> Option<(u32, Reply)> {
    match frame {
        Frame::Error(error) => Some((error.request, Err(error))),
        Frame::Done(ref done) => Some((done.request, Ok(frame))),
        Frame::UserFound(ref found) => Some((found.request, Ok(frame))),
        Frame::ReadStatusReply(ref status) => Some((status.request, Ok(frame))),
        Frame::ConversationCreated(ref created) => Some((created.request, Ok(frame))),
        _ => None,
    }
}
