//! From a frame on the control stream to a request.

use carillon_core::input::Request;
use carillon_protocol::Frame;
use carillon_protocol::deliver::History;
use carillon_protocol::ding::{DingCreate, DingRemind};
use carillon_protocol::ding_status::DingWatch;
use carillon_protocol::receipt::{MarkRead, ReadStatus};

/// What a client asks for, by who answers it.
pub(super) enum Asked {
    /// The shard.
    Shard(Request),
    /// The shard, when there is time.
    MarkRead(MarkRead),
    /// The shard, once the index has said who wrote the message.
    ReadStatus(ReadStatus),
    /// The shard, once the tenant's policy has said what a DING comes to.
    DingCreate(DingCreate),
    /// The shard, likewise.
    DingRemind(DingRemind),
    /// The shard, and then the edge; or the edge alone.
    DingWatch(DingWatch),
    /// The edge.
    History(History),
}

/// The request in a frame with its id, or the frame back when it is none that a client may send here.
pub(super) fn parse(frame: Frame) -> Result<(u32, Asked), Box<Frame>> {
    macro_rules! request {
        ($($name:ident),*; $other:ident => $otherwise:expr) => {
            match frame {
                $(Frame::$name(frame) => Ok((frame.request, Asked::Shard(Request::$name(frame)))),)*
                Frame::MarkRead(frame) => Ok((frame.request, Asked::MarkRead(frame))),
                Frame::ReadStatus(frame) => Ok((frame.request, Asked::ReadStatus(frame))),
                Frame::DingCreate(frame) => Ok((frame.request, Asked::DingCreate(frame))),
                Frame::DingRemind(frame) => Ok((frame.request, Asked::DingRemind(frame))),
                Frame::DingWatch(frame) => Ok((frame.request, Asked::DingWatch(frame))),
                Frame::History(frame) => Ok((frame.request, Asked::History(frame))),
                $other => $otherwise,
            }
        };
    }
    request!(
        DingConfirm, DingStatus, DingRecall, DingAttemptList, DingList, ConversationCreate,
        ConversationFind, ConversationList, MembersAdd, MembersRemove, Leave, MemberList, UserFind, UserLookup, Retire;
        other => Err(Box::new(other))
    )
}
