//! One colleague: where their reading is, what they have yet to mark, and whether they are there.

use std::collections::HashMap;
use std::time::Instant;

use crate::fleet::SessionIndex;
use crate::limits::BUSY_PAUSE;
use crate::pushes::Confirming;
use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Position, Seq};
use carillon_protocol::receipt::MarkRead;
use carillon_protocol::session::Cursor;

/// The request number of every mark: those of confirmations count from 1, and one mark of a session is under way at a time.
pub(super) const MARK_REQUEST: u32 = u32::MAX;

/// See the module.
pub(super) struct Person {
    pub(super) session: SessionIndex,
    pub(super) cursor: Cursor,
    /// Their connection was to be dropped then, and they have not caught up yet.
    pub(super) away_since: Option<Instant>,
    pub(super) confirming: Confirming,
    /// By conversation: the seq of the last message of this run.
    last: HashMap<ConversationId, Seq>,
    /// What is to be marked: at most each conversation, once; and since when.
    unread: HashMap<ConversationId, (Seq, Instant)>,
    /// The mark that is under way, and since when it was due.
    marking: Option<(ConversationId, Seq, Instant)>,
    paused_until: Option<Instant>,
}

impl Person {
    pub(super) fn new(session: SessionIndex, cursor: Cursor) -> Self {
        Self {
            session,
            cursor,
            away_since: None,
            confirming: Confirming::default(),
            last: HashMap::new(),
            unread: HashMap::new(),
            marking: None,
            paused_until: None,
        }
    }

    /// Takes a message of this run; answers whether its seq is the next one of its conversation.
    pub(super) fn take_message(&mut self, deliver: &Deliver) -> bool {
        self.cursor.position = self.cursor.position.max(deliver.position);
        let last = self.last.insert(deliver.conversation, deliver.seq);
        last.is_none_or(|last| deliver.seq.0 == last.0 + 1)
    }

    /// What a read update says of the cursor.
    pub(super) fn take_receipt(&mut self, frame: &Frame) {
        let through = match frame {
            Frame::ReadUpdate(update) => update.through,
            Frame::ReadCountsUpdate(update) => update.through,
            _ => Position(0),
        };
        self.cursor.receipts_through = self.cursor.receipts_through.max(through);
    }

    /// They have read a message; the mark of it is due now.
    pub(super) fn has_read(&mut self, deliver: &Deliver, now: Instant) {
        let unread = self.unread.entry(deliver.conversation).or_insert((deliver.seq, now));
        unread.0 = unread.0.max(deliver.seq);
    }

    /// The mark that may be sent next.
    pub(super) fn poll_mark(&mut self) -> Option<Bytes> {
        if self.marking.is_some() || self.away_since.is_some() {
            return None;
        }
        let conversation = *self.unread.keys().next()?;
        let (up_to, since) = self.unread.remove(&conversation)?;
        self.marking = Some((conversation, up_to, since));
        Some(MarkRead { request: MARK_REQUEST, conversation, up_to }.to_bytes())
    }

    /// The mark under way has its answer; says since when it was due.
    pub(super) fn marked(&mut self) -> Option<Instant> {
        self.marking.take().map(|(_, _, since)| since)
    }

    /// The mark under way was refused as too much at once.
    pub(super) fn refused(&mut self, now: Instant) {
        self.paused_until = Some(now + BUSY_PAUSE);
        self.mark_again();
    }

    /// Whether a mark waits until it may be tried again.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    /// The mark under way is to be made again: it was refused, or its session is gone.
    pub(super) fn mark_again(&mut self) {
        if let Some((conversation, up_to, since)) = self.marking.take() {
            let unread = self.unread.entry(conversation).or_insert((up_to, since));
            *unread = (unread.0.max(up_to), unread.1.min(since));
        }
    }

    /// Whether nothing is to be marked or confirmed, and they are there.
    pub(super) fn is_idle(&self) -> bool {
        self.marking.is_none() && self.unread.is_empty() && self.away_since.is_none() && self.confirming.is_idle()
    }
}
