//! Requests about conversations and their members.

use carillon_protocol::control::{
    ConversationCreate, ConversationCreated, ConversationEntry, ConversationFind, ConversationList, Conversations,
    Leave, MemberEntry, MemberList, Members, MembersAdd, MembersRemove,
};
use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};
use carillon_protocol::limits::{MEMBERS_A_REQUEST_MAX, NAME_BYTES_MAX, PAGE_ENTRIES_MAX};

use crate::client::Client;
use crate::error::RequestError;
use crate::requests::{check_size, cut};
use crate::shared::Repeat;

#[allow(clippy::cast_possible_truncation, reason = "1,000 fits")]
const PAGE: u16 = PAGE_ENTRIES_MAX as u16;

/// A conversation to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConversation {
    /// `GROUP` or `CHANNEL`.
    pub kind: ConversationKind,
    /// Who may post.
    pub post_policy: PostPolicy,
    /// What members may have of its history.
    pub history: HistoryPolicy,
    /// What authors may learn of who has read.
    pub receipts: ReceiptPolicy,
    /// Unique in the tenant; services and administrators may give one. If it is taken by one's own, that one is the answer.
    pub name: Option<String>,
    /// Its members beside the maker.
    pub members: Vec<UserId>,
}

impl NewConversation {
    /// A group where every member posts, and learns who has read.
    pub fn group(members: impl Into<Vec<UserId>>) -> Self {
        let (kind, post_policy) = (ConversationKind::GROUP, PostPolicy::MEMBERS);
        let (history, receipts) = (HistoryPolicy::JOINED, ReceiptPolicy::ON);
        Self { kind, post_policy, history, receipts, name: None, members: members.into() }
    }

    /// A channel where owners and administrators post, and learn how many have read.
    pub fn channel(members: impl Into<Vec<UserId>>) -> Self {
        let (kind, post_policy) = (ConversationKind::CHANNEL, PostPolicy::ADMINS);
        let (history, receipts) = (HistoryPolicy::JOINED, ReceiptPolicy::COUNTS);
        Self { kind, post_policy, history, receipts, name: None, members: members.into() }
    }

    /// Lets members have what was published before they joined.
    #[must_use]
    pub fn with_full_history(mut self) -> Self {
        self.history = HistoryPolicy::FULL;
        self
    }

    /// Says what authors may learn of who has read.
    #[must_use]
    pub fn with_receipts(mut self, receipts: ReceiptPolicy) -> Self {
        self.receipts = receipts;
        self
    }

    /// Gives it a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// A conversation one is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// All about it.
    pub entry: ConversationEntry,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// Conversations and members.
///
/// # Cancel safety
/// All requests: cancelled, the request may be done or not; only the answer is lost.
impl Client {
    /// Makes a conversation, oneself its owner. Members beyond the first 1,000 are added by further requests, as
    /// [`Client::add_members`] does.
    ///
    /// # Errors
    /// `Interrupted` when the connection was lost before the answer and there is no name: then there may be one more. With a
    /// name the request is repeated until there is an answer.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn create_conversation(&self, new: NewConversation) -> Result<ConversationCreated, RequestError> {
        let NewConversation { kind, post_policy, history, receipts, name, mut members } = new;
        let name = name.unwrap_or_default();
        check_size("name", name.len(), NAME_BYTES_MAX)?;
        let further = members.split_off(members.len().min(MEMBERS_A_REQUEST_MAX));
        let repeat = if name.is_empty() { Repeat::Never } else { Repeat::Harmless };
        let name = name.as_str().into();
        let request = ConversationCreate { request: 0, kind, post_policy, history, receipts, name, members };
        let created: ConversationCreated = self.shared().call(&request, repeat).await?;
        self.add_members(created.conversation, &further, Role::MEMBER).await?;
        Ok(created)
    }

    /// The conversation with this name.
    ///
    /// # Errors
    /// `Refused` with `NOT_FOUND` when there is none, or none that one may know.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn find_conversation(&self, name: &str) -> Result<ConversationId, RequestError> {
        check_size("name", name.len(), NAME_BYTES_MAX)?;
        let request = ConversationFind { request: 0, name: name.into() };
        let found: ConversationCreated = self.shared().look_up(&request).await?;
        Ok(found.conversation)
    }

    /// Makes these users members with this role; for present members the role is set. 1,000 go into one request.
    ///
    /// # Errors
    /// As [`RequestError`] says; with more than 1,000 users, some may have become members.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn add_members(
        &self,
        conversation: ConversationId,
        members: &[UserId],
        role: Role,
    ) -> Result<(), RequestError> {
        for members in members.chunks(MEMBERS_A_REQUEST_MAX) {
            self.done(MembersAdd { request: 0, conversation, role, members: members.to_vec() }).await?;
        }
        Ok(())
    }

    /// Makes these users members no longer. 1,000 go into one request.
    ///
    /// # Errors
    /// As [`RequestError`] says; with more than 1,000 users, some may have been removed.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn remove_members(&self, conversation: ConversationId, members: &[UserId]) -> Result<(), RequestError> {
        for members in members.chunks(MEMBERS_A_REQUEST_MAX) {
            self.done(MembersRemove { request: 0, conversation, members: members.to_vec() }).await?;
        }
        Ok(())
    }

    /// Is a member no longer.
    ///
    /// # Errors
    /// As [`RequestError`] says. When the connection was lost after it was done, the repeat may be refused with `NOT_FOUND`.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn leave(&self, conversation: ConversationId) -> Result<(), RequestError> {
        self.done(Leave { request: 0, conversation }).await
    }

    /// All conversations one is in, by id; at most 10,000.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn conversations(&self) -> Result<Vec<Conversation>, RequestError> {
        let mut conversations = Vec::new();
        let mut from = ConversationId(0);
        let mut begun = self.shared().resets.count();
        while from != ConversationId(u64::MAX) {
            let request = ConversationList { request: 0, from, limit: PAGE };
            let page: Conversations = self.shared().look_up(&request).await?;
            let count = self.shared().resets.count();
            if count != begun {
                // Pages of two journals do not go together.
                begun = count;
                from = ConversationId(0);
                conversations.clear();
                continue;
            }
            let mut names = page.names.as_str();
            for entry in page.entries {
                let name = cut(&mut names, entry.name_bytes)
                    .ok_or(RequestError::UnexpectedReply { frame: "Conversations whose lengths do not fit" })?;
                let name = (!name.is_empty()).then(|| name.to_owned());
                conversations.push(Conversation { entry, name });
            }
            from = advance(from, page.next, "Conversations that do not end")?;
        }
        Ok(conversations)
    }

    /// All members of a conversation, by user id. A channel may have very many: then see [`Client::members_page`].
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn members(&self, conversation: ConversationId) -> Result<Vec<MemberEntry>, RequestError> {
        let mut members = Vec::new();
        let mut from = UserId(0);
        while from != UserId(u32::MAX) {
            let page = self.members_page(conversation, from, PAGE).await?;
            members.extend(page.entries);
            from = advance(from, page.next, "Members that do not end")?;
        }
        Ok(members)
    }

    /// One page of the members of a conversation, from this user id on, at most `limit` ≤ 1,000. The page's `next` is where the
    /// next one starts, `u32::MAX` after the last.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn members_page(
        &self,
        conversation: ConversationId,
        from: UserId,
        limit: u16,
    ) -> Result<Members, RequestError> {
        check_size("page", usize::from(limit), PAGE_ENTRIES_MAX)?;
        let request = MemberList { request: 0, conversation, from, limit };
        self.shared().call(&request, Repeat::Harmless).await
    }
}

/// A page that does not start after the one before it would be asked for without end.
fn advance<T: PartialOrd>(from: T, next: T, frame: &'static str) -> Result<T, RequestError> {
    if next > from { Ok(next) } else { Err(RequestError::UnexpectedReply { frame }) }
}
