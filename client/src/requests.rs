//! Requests about receipts, users and the session.

use carillon_protocol::control::{UserFind, UserFound, UserHandles, UserLookup};
use carillon_protocol::error::Done;
use carillon_protocol::ids::{ConversationId, DeviceId, ProducerId, Seq, UserId};
use carillon_protocol::kinds::{Retired, StatusList};
use carillon_protocol::limits::{HANDLE_BYTES_MAX, PAGE_ENTRIES_MAX, TOKEN_BYTES_MAX};
use carillon_protocol::receipt::{MarkRead, Marked, ReadStatus, ReadStatusReply};
use carillon_protocol::session::{Refresh, Retire};

use crate::client::Client;
use crate::error::RequestError;
use crate::shared::{Repeat, Shared};

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

impl Shared {
    /// Gets a token from the source and gives it to the broker.
    pub(crate) async fn refresh(&self) -> Result<String, RequestError> {
        let token = self.config.token.token().await.map_err(RequestError::Token)?;
        check_size("token", token.len(), TOKEN_BYTES_MAX)?;
        self.look_up::<Done>(&Refresh { request: 0, token: token.as_str().into() }).await?;
        Ok(token)
    }
}

/// Requests. All but [`Client::create_conversation`] without a name and [`Client::remind_ding`] may be done twice without harm, so
/// they are repeated over reconnects until there is an answer. `Refused` with `BUSY` means: nothing was done, try again later.
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
