//! A member's own messages behind its watermark: what is not unread, although it was not marked as read.
//!
//! Unread messages are `last seq − watermark − own messages after the watermark`. The last term is what is kept here, as spans
//! of seqs: a publish extends the newest span or begins another, a mark lets go of those it has passed, one that reaches the
//! last seq of all. What lies before the watermark is never asked for, so nothing is kept of it, and nothing of others.
//!
//! A span is a *run*, in which every message is the member's, as long as there are `OWN_SPANS_MAX` or fewer. Who writes and
//! never reads would have ever more of them: beyond the limit, two neighbours among the older half become one, those that have
//! the fewest messages of others in between. All that is asked for stays exact, but for a watermark inside such a span: there
//! the member's messages are taken to lie evenly, and the count is off by the number of its own or of others' messages in the
//! span at most, whichever is smaller, until the watermark has passed it. No error outlives its span.

use alloc::boxed::Box;
use carillon_protocol::ids::Seq;
use smallvec::SmallVec;

use crate::limits::OWN_SPANS_MAX;

/// Messages from `first` to `last`, both of them the member's, and how many in all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) own: u64,
}

impl Span {
    /// Messages of anybody.
    pub(crate) const fn len(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// How many of the member's come after this seq.
    fn own_after(&self, seq: Seq) -> u64 {
        let after = self.last.0.saturating_sub(seq.0).min(self.len());
        let even = u128::from(self.own) * u128::from(after) / u128::from(self.len());
        u64::try_from(even).expect("no more than all of them")
    }
}

/// The spans of one member. Most have none, and pay a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnMessages(Option<Box<SmallVec<[Span; 1]>>>);

impl OwnMessages {
    /// Takes spans as they are: ascending, apart, `OWN_SPANS_MAX` at most.
    pub(crate) fn from_spans(spans: &[Span]) -> Self {
        Self((!spans.is_empty()).then(|| Box::new(spans.into())))
    }

    /// Ascending.
    pub(crate) fn spans(&self) -> &[Span] {
        self.0.as_ref().map_or(&[], |spans| spans)
    }

    /// How many come after the watermark: O(`OWN_SPANS_MAX`).
    pub(crate) fn after(&self, watermark: Seq) -> u64 {
        self.spans().iter().map(|span| span.own_after(watermark)).sum()
    }

    /// The member wrote this message, the newest.
    pub(crate) fn publish(&mut self, seq: Seq) {
        let spans = self.0.get_or_insert_default();
        if let Some(newest) = spans.last_mut().filter(|newest| newest.last.next() == seq) {
            newest.last = seq;
            newest.own += 1;
            return;
        }
        if spans.len() == OWN_SPANS_MAX {
            merge_two(spans);
        }
        spans.push(Span { first: seq, last: seq, own: 1 });
    }

    /// The watermark moved here.
    pub(crate) fn mark(&mut self, watermark: Seq) {
        let Some(spans) = &mut self.0 else { return };
        let passed = spans.partition_point(|span| span.last <= watermark);
        if passed == spans.len() {
            self.0 = None;
        } else {
            spans.drain(..passed);
        }
    }

    /// The membership ended: nothing is unread.
    pub(crate) fn leave(&mut self) {
        self.0 = None;
    }
}

/// Makes one of two spans of the older half: those that take in the fewest messages of others, the oldest of such.
fn merge_two(spans: &mut SmallVec<[Span; 1]>) {
    let merged = |pair: &[Span]| Span { first: pair[0].first, last: pair[1].last, own: pair[0].own + pair[1].own };
    let candidates = spans[..OWN_SPANS_MAX / 2].windows(2).map(merged).enumerate();
    let (at, merged) = candidates.min_by_key(|(_, span)| span.len() - span.own).expect("half of them are two or more");
    spans[at] = merged;
    spans.remove(at + 1);
}
