//! What the broker has acknowledged, and what is said against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use carillon_client::{ConversationId, DingId, Position, Seq, UserId};

use super::payload::Sent;

/// Complaints kept as text; more are only counted. Whoever has twenty has enough to look for.
const TEXTS_MAX: usize = 20;

/// An acknowledged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Which.
    pub sent: Sent,
    /// Where the broker said that it is.
    pub position: Position,
}

/// Everything that was acknowledged and durably noted.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By conversation and seq.
    pub messages: BTreeMap<ConversationId, BTreeMap<u64, Noted>>,
    /// The last position that was acknowledged.
    pub last: Position,
    /// Acknowledged messages.
    pub count: u64,
    /// Of these, acknowledged only when they were repeated.
    pub repeated: u64,
    /// Watermarks that were answered.
    pub marks: BTreeMap<(UserId, ConversationId), Seq>,
    /// Answered marks.
    pub marks_count: u64,
    /// DINGs that were answered, with who had the confirmation answered.
    pub dings: BTreeMap<DingId, BTreeSet<UserId>>,
}

impl Ledger {
    /// Notes an acknowledged message.
    pub fn note(&mut self, (conversation, seq): (ConversationId, Seq), noted: Noted, findings: &mut Findings) {
        self.count += 1;
        self.last = self.last.max(noted.position);
        let before = self.messages.entry(conversation).or_default().insert(seq.0, noted);
        if let Some(before) = before {
            let text = format!("{conversation} seq {seq} was acknowledged for {before:?} and for {noted:?}");
            findings.add(Fault::Duplicated, text);
        }
    }

    /// Notes an answered mark.
    pub fn note_mark(&mut self, user: UserId, conversation: ConversationId, up_to: Seq) {
        self.marks_count += 1;
        let mark = self.marks.entry((user, conversation)).or_default();
        *mark = up_to.max(*mark);
    }

    /// Confirmations that were answered.
    pub fn confirmations(&self) -> u64 {
        self.dings.values().map(|users| users.len() as u64).sum()
    }
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Acknowledged, and not there; or a number in the midst of a conversation that nobody has.
    Lost,
    /// Not in the order in which it was published, or not where it was acknowledged.
    Reordered,
    /// There twice.
    Duplicated,
    /// There with other content.
    Changed,
    /// There, though every publish was answered and none of them is this one.
    Unknown,
    /// A watermark that was answered and is lower now.
    MarkLost,
    /// A DING or a confirmation that was answered and is not there.
    DingLost,
    /// The broker ended, did not start, or did not answer.
    Broken,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Reordered,
        Self::Duplicated,
        Self::Changed,
        Self::Unknown,
        Self::MarkLost,
        Self::DingLost,
        Self::Broken,
    ];

    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Reordered => "reordered",
            Self::Duplicated => "duplicated",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
            Self::MarkLost => "marks lost",
            Self::DingLost => "DINGs lost",
            Self::Broken => "broken",
        }
    }
}

/// What was found wrong.
#[derive(Debug, Default)]
pub struct Findings {
    counts: BTreeMap<Fault, u64>,
    /// The first ones, for people.
    pub texts: Vec<String>,
}

impl Findings {
    /// Something is wrong.
    pub fn add(&mut self, fault: Fault, text: impl Display) {
        *self.counts.entry(fault).or_default() += 1;
        if self.texts.len() < TEXTS_MAX {
            self.texts.push(format!("{}: {text}", fault.name()));
        }
    }

    /// Takes over what another has found.
    pub fn absorb(&mut self, other: Self) {
        for (fault, count) in other.counts {
            *self.counts.entry(fault).or_default() += count;
        }
        let room = TEXTS_MAX - self.texts.len();
        self.texts.extend(other.texts.into_iter().take(room));
    }

    /// How often this was found.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
