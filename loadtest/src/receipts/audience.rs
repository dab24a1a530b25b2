//! What the authors and the other sessions are told: messages before the storm, how many have read while it lasts.

use carillon_protocol::Frame;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::ids::{ConversationId, Seq};

use crate::fleet::SessionIndex;
use crate::publisher::index_in;

/// What one author was told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Times that a reader was named.
    pub(super) names: u32,
    /// Times that counts were told.
    pub(super) counts: u32,
    /// How many have read the author's message, as it was told last.
    pub(super) read: u32,
}

/// See the module.
pub(super) struct Audience {
    run: u64,
    conversation: ConversationId,
    /// The session of the first author; the others follow it.
    first_author: SessionIndex,
    /// By author: the seq of the message.
    pub(super) seqs: Vec<Option<Seq>>,
    /// By author.
    pub(super) told: Vec<Told>,
    /// Deliveries of the authors' messages, to whomever.
    pub(super) delivered: u64,
}

impl Audience {
    pub(super) fn new(run: u64, conversation: ConversationId, first_author: SessionIndex, authors: u32) -> Self {
        Self {
            run,
            conversation,
            first_author,
            seqs: vec![None; authors as usize],
            told: vec![Told::default(); authors as usize],
            delivered: 0,
        }
    }

    /// The session of the first author.
    pub(super) fn first_author(&self) -> SessionIndex {
        self.first_author
    }

    /// Which author this session is.
    pub(super) fn author(&self, session: SessionIndex) -> Option<usize> {
        session.checked_sub(self.first_author).filter(|author| *author < self.told.len())
    }

    /// The fewest readers that an author was told of last.
    pub(super) fn told_min(&self) -> u32 {
        self.told.iter().map(|told| told.read).min().unwrap_or(0)
    }

    /// A session got a message.
    pub(super) fn take_message(&mut self, deliver: &Deliver) {
        let is_ours = deliver.conversation == self.conversation && index_in(&deliver.payload, self.run).is_some();
        self.delivered += u64::from(is_ours);
    }

    /// A session was told who has read, or how many. Only what an author learns of others counts.
    pub(super) fn take_receipt(&mut self, session: SessionIndex, frame: &Frame) {
        let Some(author) = self.author(session) else { return };
        let told = &mut self.told[author];
        match frame {
            Frame::ReadUpdate(update) if update.conversation == self.conversation => {
                told.names += 1;
                // Each reader marks once.
                told.read += 1;
            }
            Frame::ReadCountsUpdate(update) if update.conversation == self.conversation => {
                told.counts += 1;
                let own = update.entries.iter().find(|entry| Some(entry.seq) == self.seqs[author]);
                told.read = own.map_or(told.read, |entry| entry.read);
            }
            _ => {}
        }
    }
}
