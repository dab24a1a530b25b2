//! What crosses a Carillon connection and what lies in its journal: ids, frames and their codec.
//!
//! Pure: no clock, thread, file, socket or random number can be named here. A [`frame`] is a header, a flat body and a
//! tail; one description of each ([`frames!`]) makes its struct and its codec, and `docs/PROTOCOL.md` shows its bytes.
//! Bytes from a peer or from disk are never trusted: decoding returns a [`frame::FrameError`] that names what is wrong.
#![no_std]

extern crate alloc;

pub mod control;
pub mod decoder;
pub mod deliver;
pub mod ding;
pub mod ding_status;
pub mod error;
pub mod flat;
pub mod frame;
pub mod ids;
pub mod kinds;
pub mod limits;
#[macro_use]
mod macros;
pub mod presence;
pub mod publish;
pub mod receipt;
pub mod session;
pub mod shape;

use control::{
    ConversationCreate, ConversationCreated, ConversationFind, ConversationList, Conversations, Leave, MemberList,
    Members, MembersAdd, MembersRemove, MembershipChanged, UserFind, UserFound, UserHandles, UserLookup,
};
use deliver::{Deliver, History, HistoryPage};
use ding::{
    DingConfirm, DingConfirmed, DingCreate, DingCreated, DingPush, DingRecall, DingReceived, DingRemind, DingReminded,
};
use ding_status::{
    DingAttemptList, DingAttempts, DingList, DingProgress, DingStatus, DingStatusReply, DingUpdate, DingWatch, Dings,
    DingsOpen,
};
use error::{Done, Error};
use presence::{PresenceQuery, Presences, SessionKick, SessionList, Sessions, SessionsKicked, Signal, Signalled};
use publish::{Publish, PublishRefused, Published};
use receipt::{MarkRead, Marked, ReadCountsUpdate, ReadStatus, ReadStatusReply, ReadUpdate};
use session::{Ack, Goodbye, Hello, LaneOpened, Progress, Refresh, Retire, Skipped, Truncated, Welcome};

frame_enum! {
    /// Every frame of the protocol.
    Frame {
        Hello, Welcome, Refresh, Ack, Progress, Truncated, Skipped, LaneOpened, Goodbye, Retire,
        Error, Done,
        Publish, Published, PublishRefused, Deliver, History, HistoryPage,
        MarkRead, Marked, ReadUpdate, ReadStatus, ReadStatusReply, ReadCountsUpdate,
        DingCreate, DingCreated, DingPush, DingConfirm, DingConfirmed, DingStatus, DingStatusReply, DingUpdate, DingRecall,
        DingReceived, DingRemind, DingReminded, DingAttemptList, DingAttempts, DingWatch, DingProgress, DingList, Dings,
        DingsOpen,
        ConversationCreate, ConversationCreated, MembersAdd, MembersRemove, Leave, ConversationList, Conversations,
        MemberList, Members, MembershipChanged, ConversationFind, UserFind, UserFound, UserLookup, UserHandles,
        Signal, Signalled, PresenceQuery, Presences, SessionList, Sessions, SessionKick, SessionsKicked,
    }
}
