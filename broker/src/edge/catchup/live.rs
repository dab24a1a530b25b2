//! From catching up to live, and what a session is told of how far the journal is.

use carillon_protocol::frame::Body;
use carillon_protocol::ids::Position;
use carillon_protocol::session::Progress;
use carillon_transport::{Link, LinkKey, Room};

use super::Slice;
use crate::edge::receipts::Told;
use crate::edge::session::Feed;
use crate::edge::{Edge, Links};
use crate::sequencer::ring::Found;

impl Edge {
    /// Everything up to `seen` was offered: from here on the session is fed as batches come.
    pub(super) fn turn_live<L: Links>(&mut self, links: &mut L, key: LinkKey) -> Slice {
        let seen = self.seen;
        let Some(session) = self.sessions.at_key(key) else { return Slice::Waits };
        let Some(identity) = session.identity() else { return Slice::Waits };
        let (tenant, user) = (identity.who.tenant, identity.who.user);
        // Stints from beyond `seen` would let a live session have what came before them.
        if self.interest.user(tenant, user).is_none_or(|known| known.stale || known.as_of > seen) {
            return Slice::Later;
        }
        let Feed::CatchingUp(catch_up) = &session.feed else { return Slice::Waits };
        // A device that comes from an edge that is ahead has a cursor beyond `seen`: what lies between it has already.
        if catch_up.next > seen.next() {
            return Slice::Later;
        }
        debug_assert_eq!(catch_up.next, seen.next(), "a session turns live exactly at the edge's position");
        session.feed = Feed::Live { from: seen.next() };
        self.tell_progress(links, key);
        Slice::Waits
    }

    /// Tells a session that nothing more was addressed to it up to `seen`. Only when no round is unfinished.
    pub(in crate::edge) fn tell_progress<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        self.tell_untold(links, key);
        let position = self.seen;
        let (shard, through) = (self.parts.shard, self.told_through(position));
        let Some(session) = self.sessions.at_key(key) else { return };
        let receipts_through = match session.inbox.told {
            Told::Live { after } => through.max(after),
            Told::Behind { .. } | Told::Asking { .. } | Told::Counting(_) => Position(0),
        };
        let says_more = session.inbox.owes_through(receipts_through);
        if session.inbox.sent > position || session.inbox.sent == position && !says_more || session.inbox.blocked {
            return;
        }
        session.inbox.receipts_sent = session.inbox.receipts_sent.max(receipts_through);
        let (Some(stream), Some(mut link)) = (session.inbox.stream, links.link(key)) else { return };
        let mut frame = Progress { shard, position, receipts_through }.to_bytes();
        let written = link.write(stream, &mut frame, Room::Shared);
        drop(link);
        if written.is_err() {
            return self.lost_stream(links, key);
        }
        session.inbox.sent = position;
        if !frame.is_empty() {
            session.inbox.remainder = frame;
            session.inbox.blocked = true;
            self.fall_behind(key, None);
        }
    }

    /// The edge missed batches: every session reads on by itself, with stints asked for anew.
    pub(in crate::edge) fn recover_from_fall(&mut self) {
        self.stats.fell_off_ring += 1;
        self.interest.mark_stale();
        let told_through = self.told_through(self.seen);
        let keys: Vec<LinkKey> = self.sessions.iter_mut().map(|session| session.key).collect();
        for key in keys {
            self.fall_behind(key, None);
            self.fall_behind_receipts(key, told_through);
            let feed = self.sessions.at_key(key).map(|session| &mut session.feed);
            if let Some(Feed::CatchingUp(catch_up)) = feed
                && !std::mem::replace(&mut catch_up.attaching, true)
            {
                self.attaching_again.push_back(key);
            }
        }
        // From the newest batch on, so that the edge does not fall again before it has caught its breath.
        let newest = self.parts.ring.head() - 1;
        if let Found::Batch(committed) = self.parts.ring.at(newest) {
            tracing::warn!(from = %self.seen, to = %committed.batch.first(), "the edge fell off the ring");
            self.seen = Position(committed.batch.first().0 - 1);
            self.next_ordinal = newest;
        }
    }
}
