//! A message whose bytes on disk are damaged: it is named to the device as gone, and catching up goes on behind it.

use carillon_core::effect::StintView;
use carillon_protocol::ids::{Position, Seq};
use carillon_protocol::session::Truncated;
use carillon_transport::LinkKey;

use super::super::Edge;
use super::super::session::Feed;
use super::plan::before;
use crate::index::{Index, Lookup, LookupError};
use crate::journal::ReadError;
use crate::report::Causes;

/// Of which conversations messages lie at a position, and which of each, of those that the stints entitle to: one, or several that are lost. Where
/// retention took what comes before a lost one, that may be lost as well, and is named with it.
///
/// # Errors
/// As [`Lookup::rank`].
pub(in crate::edge) fn places_at(
    index: &Index,
    lookup: &impl Lookup,
    stints: &[StintView],
    position: Position,
) -> Result<Vec<Truncated>, LookupError> {
    let mut found = Vec::new();
    for stint in stints {
        let entitles = stint.joined.position < position && stint.left.is_none_or(|left| position <= left.position);
        if !entitles || index.last(stint.conversation).1 < position {
            continue;
        }
        let seq = lookup.rank(stint.conversation, position)?;
        if seq > lookup.rank(stint.conversation, before(position))? {
            let (conversation, floor) = (stint.conversation, index.floor(stint.conversation).0);
            let is_lowest = floor > Seq(0) && seq == floor.next() && index.is_lost(position);
            let first = if is_lowest { stint.joined.seq.next().min(seq) } else { seq };
            found.push(Truncated { conversation, first, last: seq, position });
        }
    }
    Ok(found)
}

impl Edge {
    /// The first position that a read was asked for has damaged bytes.
    pub(super) fn pass_over(&mut self, key: LinkKey, position: Position, error: &ReadError) {
        self.tell_unreadable(position, error);
        let Some(session) = self.sessions.at_key(key) else { return };
        if let Feed::CatchingUp(catch_up) = &mut session.feed {
            catch_up.unreadable = Some(position);
        }
        self.schedule_catch_up(key);
    }

    /// Counts, and logs if it is another one than the last: many devices meet the same. What is left out since the start was told then.
    pub(in crate::edge) fn tell_unreadable(&mut self, position: Position, error: &ReadError) {
        self.stats.unreadable += 1;
        if self.last_unreadable != position && !matches!(error, ReadError::LeftOut { .. }) {
            self.last_unreadable = position;
            tracing::error!(%position, error = %Causes(error), "a message is damaged in the journal, and left out");
        }
    }

    /// What lies at a position that cannot be read; nothing if it is not this user's: it was planned under other stints.
    pub(super) fn name_unreadable(&mut self, key: LinkKey, position: Position, places: Vec<Truncated>) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let sent = session.inbox.sent;
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return };
        if catch_up.unreadable.take_if(|unreadable| *unreadable == position).is_none() {
            return;
        }
        if places.is_empty() {
            return catch_up.forget_plan();
        }
        if catch_up.plan.front() == Some(&position) {
            catch_up.plan.pop_front();
            catch_up.next = position.next();
            catch_up.name(places, sent);
        }
    }
}
