//! From a frame on the control stream to a request of the core.

use carillon_core::input::Request;
use carillon_protocol::Frame;

/// The request in a frame with its id, or the frame back when it is none that a client may send here.
pub(super) fn parse(frame: Frame) -> Result<(u32, Request), Box<Frame>> {
    macro_rules! request {
        ($($name:ident),*; $other:ident => $otherwise:expr) => {
            match frame {
                $(Frame::$name(frame) => Ok((frame.request, Request::$name(frame))),)*
                Frame::ReadStatus(frame) => Ok((frame.request, Request::ReadStatus(frame, None))),
                $other => $otherwise,
            }
        };
    }
    request!(
        MarkRead, DingCreate, DingConfirm, DingStatus, DingRecall, ConversationCreate, ConversationFind,
        ConversationList, MembersAdd, MembersRemove, Leave, MemberList, UserFind, UserLookup, Retire;
        other => Err(Box::new(other))
    )
}
