//! An index of any size, without a journal that it could be rebuilt from.

use std::path::Path;
use std::sync::Arc;

use carillon::index::{Index, IndexOptions, MEMORY_BYTES_DEFAULT, Writer};
use carillon::journal::{JournalOptions, MemoryStorage, Reader, open};
use carillon::store::{Begin, Follow};
use carillon_protocol::ids::{ConversationId, Incarnation, Position, Seq, UserId};

use crate::SHARD;

/// Users who write in turn: authors of two bytes, as in a tenant of some thousand people.
const AUTHORS: u64 = 5_000;

/// The nth conversation, from 0.
pub fn conversation(nth: u64) -> ConversationId {
    ConversationId::new(SHARD, nth + 1)
}

/// Opens what is in a directory, or an empty index there, as a start does before the replay.
pub fn opened(directory: &Path) -> Arc<Index> {
    let directory = Some(directory.to_owned());
    let index = Index::open(IndexOptions { directory, shard: SHARD, memory_bytes_max: MEMORY_BYTES_DEFAULT });
    (&index).begin(Begin { incarnation: Incarnation(1), first: Position(1) });
    Arc::new(index)
}

/// The writer of an index, which it flushes when it is dropped.
pub fn writer(index: &Arc<Index>) -> Writer {
    let storage = Arc::new(MemoryStorage::new());
    let journal = open(storage, JournalOptions::new(SHARD), Position(0), &mut |_| Ok(())).expect("an empty journal");
    let reader: Reader = journal.reader;
    Writer::start(index, &reader).expect("a thread")
}

/// Where messages come from: the conversations in turn, one message at each position.
pub struct Messages {
    conversations: u64,
    next: u64,
}

impl Messages {
    /// For an index that is empty.
    pub fn new(conversations: u64) -> Self {
        Self { conversations, next: 0 }
    }

    /// Appends the next message.
    pub fn append(&mut self, index: &Index) {
        let (seq, nth) = (self.next / self.conversations + 1, self.next % self.conversations);
        self.next += 1;
        let author = UserId(u32::try_from(self.next * 7 % AUTHORS).expect("authors are few"));
        index.append(conversation(nth), Seq(seq), Position(self.next), author);
    }

    /// The position of the last one.
    pub fn last(&self) -> Position {
        Position(self.next)
    }
}
