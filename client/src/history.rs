//! Pages of history.

use carillon_protocol::deliver::{Deliver, History, HistoryPage};
use carillon_protocol::ids::{ConversationId, Seq};
use carillon_protocol::kinds::Direction;
use carillon_protocol::limits::PAGE_ENTRIES_MAX;

use crate::client::Client;
use crate::error::RequestError;
use crate::event::Message;
use crate::requests::check_size;
use crate::shared::Repeat;

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// By ascending seq, whatever the direction. What the broker wrote (`SYSTEM`) comes as it is.
    pub messages: Vec<Message>,
    /// Where the next page in the same direction starts; `None`: there is nothing more that way.
    pub next: Option<Seq>,
    /// Retention has taken what the user may have up to this seq; 0: nothing of it.
    pub truncated: Seq,
}

/// A page as it comes: its header and the frames behind it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) header: HistoryPage,
    pub(crate) messages: Vec<Deliver>,
}

impl Received {
    /// What the broker calls it.
    pub(crate) const NAME: &'static str = "HistoryPage";
}

impl Client {
    /// Messages of a conversation again, or those that a bounded catch-up has skipped: at most `limit` ≤ 1,000 and about 64 KiB of them,
    /// from the seq `from` on in the direction. `Seq(u64::MAX)` backward begins with the newest.
    ///
    /// # Errors
    /// `Refused` with `NOT_FOUND` for a conversation one was never in, else as [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn history(
        &self,
        conversation: ConversationId,
        from: Seq,
        direction: Direction,
        limit: u16,
    ) -> Result<Page, RequestError> {
        check_size("page", usize::from(limit), PAGE_ENTRIES_MAX)?;
        let request = History { request: 0, conversation, from, direction, limit };
        let Received { header, messages } = self.shared().call(&request, Repeat::Harmless).await?;
        let messages = messages.into_iter().map(Message::from).collect();
        Ok(Page { messages, next: Some(header.next).filter(|next| *next != Seq(0)), truncated: header.truncated })
    }
}
