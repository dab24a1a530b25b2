//! Requests about receipts, DINGs, users and the session.

use bytes::Bytes;
use carillon_protocol::control::{UserFind, UserFound, UserHandles, UserLookup};
use carillon_protocol::ding::{
    DingConfirm, DingConfirmed, DingCreate, DingCreated, DingRecall, DingStatus, DingStatusReply,
};
use carillon_protocol::error::Done;
use carillon_protocol::ids::{ConversationId, DeviceId, DingId, ProducerId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{MessageKind, Retired, StatusList, Target};
use carillon_protocol::limits::{DING_RECIPIENTS_MAX, HANDLE_BYTES_MAX, PAGE_ENTRIES_MAX, TOKEN_BYTES_MAX};
use carillon_protocol::receipt::{MarkRead, Marked, ReadStatus, ReadStatusReply};
use carillon_protocol::session::{Refresh, Retire};
use std::time::Duration;

use crate::client::Client;
use crate::error::RequestError;
use crate::random;
use crate::shared::{Repeat, Shared};

/// Who gets a DING.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// These users, 1 to 10,000.
    Users(Vec<UserId>),
    /// The members of this conversation as they are then, but the sender.
    Conversation(ConversationId),
}

/// A DING to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ding {
    /// Who gets it.
    pub recipients: Recipients,
    /// What the payload is.
    pub kind: MessageKind,
    /// Opaque.
    pub payload: Bytes,
    /// Gives up after this long.
    pub expires_after: Duration,
    /// Pushes again to who has not confirmed; `None`: only when they connect.
    pub repeat_every: Option<Duration>,
}

impl Ding {
    /// A DING that gives up after an hour and is pushed again each minute.
    pub fn new(recipients: Recipients, kind: MessageKind, payload: impl Into<Bytes>) -> Self {
        let (expires_after, repeat_every) = (Duration::from_hours(1), Some(Duration::from_mins(1)));
        Self { recipients, kind, payload: payload.into(), expires_after, repeat_every }
    }
}

/// How many have read a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadCounts {
    /// Entitled members that have.
    pub read: u32,
    /// Entitled members that have not; the author is in neither.
    pub unread: u32,
}

/// Refuses before it is sent what no frame may hold.
pub(crate) fn check_size(what: &'static str, have: usize, max: usize) -> Result<(), RequestError> {
    if have > max { Err(RequestError::TooLarge { what, have, max }) } else { Ok(()) }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    /// Gets a token from the source and gives it to the broker.
    pub(crate) async fn refresh(&self) -> Result<String, RequestError> {
        let token = self.config.token.token().await.map_err(RequestError::Token)?;
        check_size("token", token.len(), TOKEN_BYTES_MAX)?;
        self.look_up::<Done>(&Refresh { request: 0, token: token.as_str().into() }).await?;
        Ok(token)
    }
}

/// Requests. All but [`Client::create_conversation`] without a name may be done twice without harm, so they are repeated over reconnects
/// until there is an answer. `Refused` with `BUSY` means: nothing was done, try again later.
///
/// # Cancel safety
/// All requests: cancelled, the request may be done or not; only the answer is lost.
impl Client {
    /// Marks a conversation as read up to `seq`; returns the watermark now, which is at least that.
    ///
    /// # Errors
    /// `Refused` for a seq beyond the last, or a conversation one is not in.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn mark_read(&self, conversation: ConversationId, seq: Seq) -> Result<Seq, RequestError> {
        let request = MarkRead { request: 0, conversation, up_to: seq };
        let marked: Marked = self.shared().call(&request, Repeat::Harmless).await?;
        Ok(marked.read_up_to)
    }

    /// Who has read a message and when, and who of the others has it on a device: one page of those who have or have not read it,
    /// from this user id on, at most `limit` ≤ 1,000. The reply's `next`
    /// is where the next page starts, `u32::MAX` after the last. A page looks at a bounded number of members: it may hold few entries or
    /// none and not be the last.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn read_status(
        &self,
        conversation: ConversationId,
        seq: Seq,
        list: StatusList,
        from: UserId,
        limit: u16,
    ) -> Result<ReadStatusReply, RequestError> {
        check_size("page", usize::from(limit), PAGE_ENTRIES_MAX)?;
        let request = ReadStatus { request: 0, conversation, seq, list, from, limit };
        self.shared().call(&request, Repeat::Harmless).await
    }

    /// How many have read a message.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn read_counts(&self, conversation: ConversationId, seq: Seq) -> Result<ReadCounts, RequestError> {
        let reply = self.read_status(conversation, seq, StatusList::COUNTS, UserId(0), 1).await?;
        Ok(ReadCounts { read: reply.read, unread: reply.unread })
    }

    /// Sends a DING. It gets its key here, so that it is one DING however often the connection is lost.
    ///
    /// # Errors
    /// `TooLarge` before anything is sent, else as [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests; called again, it is another DING.
    pub async fn ding(&self, ding: Ding) -> Result<DingCreated, RequestError> {
        let Ding { recipients, kind, payload, expires_after, repeat_every } = ding;
        let (target, target_id, recipients) = match recipients {
            Recipients::Users(users) => (Target::USERS, 0, users),
            Recipients::Conversation(conversation) => (Target::CONVERSATION, conversation.0, Vec::new()),
        };
        check_size("recipients", recipients.len(), DING_RECIPIENTS_MAX)?;
        check_size("payload", payload.len(), self.payload_bytes_max())?;
        let request = DingCreate {
            request: 0,
            key: random::nonzero_u64(),
            target,
            target_id,
            expires_after_ms: milliseconds(expires_after),
            repeat_every_ms: u32::try_from(repeat_every.map_or(0, milliseconds)).unwrap_or(u32::MAX),
            kind,
            recipients,
            payload,
        };
        self.shared().call(&request, Repeat::Harmless).await
    }

    /// Confirms a DING; returns when this user first did.
    ///
    /// # Errors
    /// `Refused` with `DING_OVER` when it had expired or was recalled before.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn confirm(&self, ding: DingId) -> Result<Timestamp, RequestError> {
        let confirmed: DingConfirmed = self.shared().call(&DingConfirm { request: 0, ding }, Repeat::Harmless).await?;
        Ok(confirmed.time)
    }

    /// Where a DING stands, for its sender or an administrator: the whole and one page of its recipients, as [`Client::read_status`].
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn ding_status(
        &self,
        ding: DingId,
        list: StatusList,
        from: UserId,
        limit: u16,
    ) -> Result<DingStatusReply, RequestError> {
        check_size("page", usize::from(limit), PAGE_ENTRIES_MAX)?;
        self.shared().call(&DingStatus { request: 0, ding, list, from, limit }, Repeat::Harmless).await
    }

    /// Takes a DING of one's own back.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn recall_ding(&self, ding: DingId) -> Result<(), RequestError> {
        self.done(DingRecall { request: 0, ding }).await
    }

    /// Who has this handle.
    ///
    /// # Errors
    /// `Refused` with `UNKNOWN_USER` when nobody has.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn find_user(&self, handle: &str) -> Result<UserId, RequestError> {
        self.user_find(handle, 0).await
    }

    /// Who has this handle; a user is made if nobody has. For services and administrators.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn create_user(&self, handle: &str) -> Result<UserId, RequestError> {
        self.user_find(handle, 1).await
    }

    async fn user_find(&self, handle: &str, create: u8) -> Result<UserId, RequestError> {
        check_size("handle", handle.len(), HANDLE_BYTES_MAX)?;
        let request = UserFind { request: 0, create, handle: handle.into() };
        let found: UserFound = self.shared().look_up(&request).await?;
        Ok(found.user)
    }

    /// The handles of these users, in the order asked for; `None` for an id of no user.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn handles(&self, users: &[UserId]) -> Result<Vec<Option<String>>, RequestError> {
        let mut handles = Vec::with_capacity(users.len());
        for users in users.chunks(PAGE_ENTRIES_MAX) {
            let request = UserLookup { request: 0, users: users.to_vec() };
            let reply: UserHandles = self.shared().call(&request, Repeat::Harmless).await?;
            let mut rest = reply.handles.as_str();
            for entry in &reply.entries {
                let handle = cut(&mut rest, entry.handle_bytes)
                    .ok_or(RequestError::UnexpectedReply { frame: "UserHandles whose lengths do not fit" })?;
                handles.push((!handle.is_empty()).then(|| handle.to_owned()));
            }
        }
        Ok(handles)
    }

    /// Gives up a device of one's own, with its cursor. Its session, which may be this one, ends.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn retire_device(&self, device: DeviceId) -> Result<(), RequestError> {
        self.retire(Retired::DEVICE, device.0).await
    }

    /// Gives up a producer of one's own, with its results. Its session, which may be this one, ends.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn retire_producer(&self, producer: ProducerId) -> Result<(), RequestError> {
        self.retire(Retired::PRODUCER, producer.0).await
    }

    /// These ids were chosen by clients, and mean the same in every history.
    async fn retire(&self, what: Retired, id: u64) -> Result<(), RequestError> {
        self.shared().look_up::<Done>(&Retire { request: 0, what, id }).await.map(drop)
    }

    /// Gets a token from [`Config::token`](crate::Config) and gives it to the broker. A callback is asked by itself in time; this is for those who know
    /// that there is a better token now.
    ///
    /// # Errors
    /// `Token` when the source fails, else as [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn refresh_token(&self) -> Result<(), RequestError> {
        self.shared().refresh().await.map(drop)
    }

    pub(crate) async fn done(&self, request: impl carillon_protocol::frame::Body) -> Result<(), RequestError> {
        self.shared().call::<Done>(&request, Repeat::Harmless).await.map(drop)
    }
}

/// Cuts so many bytes from the front, if they are there and end between characters.
pub(crate) fn cut<'a>(rest: &mut &'a str, bytes: u8) -> Option<&'a str> {
    let (front, back) = rest.split_at_checked(usize::from(bytes))?;
    *rest = back;
    Some(front)
}
