//! DINGs at the edge: their terms, who watches them, how far they have come, and which devices have them.
//!
//! A DING that moves is noted once, however often it moves; at most once an interval its sender's sessions here, and those that watch
//! it, are told how far it has come. So ten thousand confirmations within a second are five frames to each.
//!
//! Invariants: a DING stands in `due` once; a session watches, and has asked to watch, `DINGS_WATCHED_MAX` at most; who stands in `watchers`
//! is there in `watched` as well, once the shard has let it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_core::effect::Signal;
use carillon_core::input::{DingReceipt, Principal, Request};
use carillon_protocol::Frame;
use carillon_protocol::ding::{DingCreate, DingRemind};
use carillon_protocol::ding_status::{DingProgress, DingWatch};
use carillon_protocol::error::{Done, Error, ErrorCode};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DingId, TenantId, UserId};
use carillon_protocol::limits::DINGS_WATCHED_MAX;
use carillon_transport::LinkKey;
use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use super::attach::Missed;
use super::limits::DINGS_DUE_MAX;
use super::session::{Feed, Session, Weight};
use super::{Edge, Links};
use crate::sequencer::Submission;
use crate::sequencer::ring::Committed;

/// How far a DING has come, and who sent it.
#[derive(Clone, Debug)]
struct Moved {
    tenant: TenantId,
    sender: UserId,
    progress: DingProgress,
}

/// A session's place among those that watch a DING, taken when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This request of it waits for the shard.
    Asked { request: u32 },
    /// The shard lets it.
    Watches,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dings {
    moved: HashMap<DingId, Moved, FxBuildHasher>,
    /// Those in `moved`, in the order in which they first moved.
    due: VecDeque<DingId>,
    /// Nobody is told before this time, once somebody was.
    next: Option<Instant>,
    watchers: HashMap<DingId, HashSet<LinkKey, FxBuildHasher>, FxBuildHasher>,
    /// The same the other way round, and who has asked.
    watched: HashMap<LinkKey, HashMap<DingId, Place, FxBuildHasher>, FxBuildHasher>,
    /// Devices that have DINGs, not handed on yet.
    received: Vec<DingReceipt>,
}

impl Dings {
    /// When somebody is to be told, if anybody is.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.next.filter(|_| !self.due.is_empty())
    }

    /// What a session watches.
    pub(super) fn watched_by(&self, key: LinkKey) -> Vec<DingId> {
        let places = self.watched.get(&key).into_iter().flatten();
        places.filter(|(_, place)| **place == Place::Watches).map(|(ding, _)| *ding).collect()
    }

    /// Whether a session watches a DING.
    pub(super) fn is_watched_by(&self, key: LinkKey, ding: DingId) -> bool {
        self.place(key, ding) == Some(Place::Watches)
    }

    fn place(&self, key: LinkKey, ding: DingId) -> Option<Place> {
        self.watched.get(&key)?.get(&ding).copied()
    }

    /// Takes a place for who asks; false if there is none. Who watches already keeps its place, whatever the shard says now.
    fn ask(&mut self, key: LinkKey, ding: DingId, request: u32) -> bool {
        let places = self.watched.entry(key).or_default();
        if places.get(&ding) == Some(&Place::Watches) {
            return true;
        }
        let room = places.len() < DINGS_WATCHED_MAX || places.contains_key(&ding);
        if room {
            places.insert(ding, Place::Asked { request });
        }
        room
    }

    /// The shard lets it, by the answer to this request, unless it has asked to watch no longer meanwhile.
    fn grant(&mut self, key: LinkKey, ding: DingId, request: u32) {
        let place = self.watched.get_mut(&key).and_then(|places| places.get_mut(&ding));
        if let Some(place) = place.filter(|place| **place == Place::Asked { request }) {
            *place = Place::Watches;
            self.watchers.entry(ding).or_default().insert(key);
        }
    }

    /// A request was refused; the place that it may have taken is free.
    pub(super) fn refuse(&mut self, key: LinkKey, request: u32) {
        if let Some(places) = self.watched.get_mut(&key) {
            places.retain(|_, place| *place != Place::Asked { request });
            if places.is_empty() {
                self.watched.remove(&key);
            }
        }
    }

    fn unwatch(&mut self, key: LinkKey, ding: DingId) {
        if let Some(watchers) = self.watchers.get_mut(&ding) {
            watchers.remove(&key);
            if watchers.is_empty() {
                self.watchers.remove(&ding);
            }
        }
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.remove(&ding);
            if watched.is_empty() {
                self.watched.remove(&key);
            }
        }
    }
}

/// How far a DING has come by the end of these batches, if it moved in them.
fn newest_of(batches: &[Arc<Committed>], ding: DingId) -> Option<DingProgress> {
    let signals = batches.iter().rev().flat_map(|committed| committed.signals.iter().rev());
    signals.into_iter().find_map(|signal| match signal {
        Signal::Ding { progress, .. } if progress.ding == ding => Some(progress.clone()),
        Signal::Ding { .. }
        | Signal::Message { .. }
        | Signal::MembersAdded { .. }
        | Signal::MembersRemoved { .. }
        | Signal::Read { .. }
        | Signal::Urgent { .. }
        | Signal::DeviceRetired { .. }
        | Signal::ProducerRetired { .. } => None,
    })
}

impl Edge {
    /// A new DING goes to the shard with what the tenant's policy makes of it.
    pub(super) fn submit_ding(&mut self, key: LinkKey, who: Principal, create: DingCreate) {
        let now = self.now();
        let Some(identity) = self.sessions.at_key(key).and_then(|session| session.identity()) else { return };
        let terms = self.parts.policies.of(identity.tenant.as_str()).terms(who.authority, &create, now);
        self.submit_request(key, who, Request::DingCreate(create, terms));
    }

    /// As [`Edge::submit_ding`], for a reminder.
    pub(super) fn submit_reminder(&mut self, key: LinkKey, who: Principal, remind: DingRemind) {
        let now = self.now();
        let Some(identity) = self.sessions.at_key(key).and_then(|session| session.identity()) else { return };
        let allowed = self.parts.policies.of(identity.tenant.as_str()).reminder(who.authority, remind.outlet, now);
        self.submit_request(key, who, Request::DingRemind(remind, allowed));
    }

    /// A session watches a DING, if the shard says that it may, or no longer.
    pub(super) fn handle_watch<L: Links>(&mut self, links: &mut L, key: LinkKey, watch: DingWatch) {
        let request = watch.request;
        if watch.on == 0 {
            self.dings.unwatch(key, watch.ding);
            return self.answer(links, key, &Done { request }.into());
        }
        if !self.dings.ask(key, watch.ding, request) {
            let text = "this session watches 64 DINGs already, or has asked to: watch one no longer first".into();
            let refused = Error { request, code: ErrorCode::LIMIT_REACHED, text };
            return self.answer(links, key, &refused.into());
        }
        let Some(who) = self.sessions.at_key(key).and_then(|session| session.identity().map(|found| found.who)) else {
            return;
        };
        self.submit_request(key, who, Request::DingWatch(watch));
    }

    /// The shard says that it may: the session is told how the DING stands, and whenever it moves. The shard is ahead of this edge or
    /// behind it: what moved after its answer and was processed here before nobody watched is told as well.
    pub(super) fn handle_watching<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        request: u32,
        progress: DingProgress,
    ) {
        let Some(who) = self.sessions.at_key(key).and_then(|session| session.identity().map(|found| found.who)) else {
            return;
        };
        let ding = progress.ding;
        let Missed::Batches(missed) = self.missed_since(progress.position) else {
            // Some of it has left the ring: the next answer is newer. Its room is that of this one.
            return self.submit_request(key, who, Request::DingWatch(DingWatch { request, ding, on: 1 }));
        };
        let newest = newest_of(&missed, ding).filter(|moved| moved.position > progress.position).unwrap_or(progress);
        self.dings.grant(key, ding, request);
        // What moved is lost if the edge falls off the ring again before that answer: it does not speak of this DING.
        if let Some(Feed::CatchingUp(catch_up)) = self.sessions.at_key(key).map(|session| &mut session.feed) {
            catch_up.attach_is_stale = catch_up.attaching;
        }
        self.answer(links, key, &Frame::from(Done { request }));
        self.push_urgent(links, key, newest.to_bytes(), Weight::Own);
    }

    /// The session is gone, and watches nothing.
    pub(super) fn unwatch_all(&mut self, session: &Session) {
        for (ding, _) in self.dings.watched.remove(&session.key).into_iter().flatten() {
            self.dings.unwatch(session.key, ding);
        }
    }

    /// A DING has moved: who sent or watches it here is told, soon.
    pub(super) fn note_ding<L: Links>(
        &mut self,
        links: &mut L,
        tenant: TenantId,
        sender: UserId,
        progress: DingProgress,
    ) {
        let ding = progress.ding;
        if self.interest.user(tenant, sender).is_none() && !self.dings.watchers.contains_key(&ding) {
            return;
        }
        let now = self.instant();
        if self.dings.due.is_empty() {
            self.dings.next = Some(self.dings.next.map_or(now, |next| next.max(now)));
        }
        if self.dings.moved.insert(ding, Moved { tenant, sender, progress }).is_none() {
            self.dings.due.push_back(ding);
        }
        if self.dings.due.len() >= DINGS_DUE_MAX {
            self.dings.next = Some(now);
            self.tell_dings(links);
        }
    }

    /// Tells how far the DINGs have come that moved within the last interval.
    pub(super) fn tell_dings<L: Links>(&mut self, links: &mut L) {
        let now = self.instant();
        if self.dings.due_at().is_none_or(|due| now < due) {
            return;
        }
        self.dings.next = Some(now + Duration::from_millis(self.limits.counts_every_ms));
        for ding in std::mem::take(&mut self.dings.due) {
            let Moved { tenant, sender, progress } = self.dings.moved.remove(&ding).expect("what is due has moved");
            let frame = progress.to_bytes();
            let own = self.interest.user(tenant, sender).map(|known| known.sessions.clone()).unwrap_or_default();
            let key_of = |at| self.sessions.at(at).map(|session| session.key);
            let mut told: Vec<LinkKey> = own.into_iter().filter_map(key_of).collect();
            told.extend(self.dings.watchers.get(&ding).into_iter().flatten());
            told.sort_unstable();
            told.dedup();
            for key in told {
                self.push_urgent(links, key, frame.clone(), Weight::Own);
            }
        }
    }

    /// Whether no control stream is to be read on before the shard has had what devices have said: each of it may be all that keeps a
    /// person from having failed to be reached.
    pub(super) fn is_full_of_received(&self) -> bool {
        self.dings.received.len() >= self.limits.dings_received_max
    }

    /// A device says that it has a DING.
    pub(super) fn note_received(&mut self, key: LinkKey, ding: DingId) {
        let Some(who) = self.sessions.at_key(key).and_then(|session| session.identity().map(|found| found.who)) else {
            return;
        };
        self.dings.received.push(DingReceipt { tenant: who.tenant, user: who.user, ding });
    }

    /// What devices have said since the last turn goes to the shard, unless its queue is full.
    pub(super) fn hand_on_received(&mut self) {
        if !self.dings.received.is_empty() && self.outbox.is_empty() {
            let received = std::mem::take(&mut self.dings.received);
            self.submit(Submission::DingsReceived(received));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LinkKey = LinkKey { index: 3, generation: 1 };

    #[test]
    fn a_place_is_taken_by_who_asks_and_free_when_it_is_refused() {
        let mut dings = Dings::default();
        for (ding, request) in (1..=DINGS_WATCHED_MAX as u64).zip(1..) {
            assert!(dings.ask(KEY, DingId(ding), request));
        }
        assert!(!dings.ask(KEY, DingId(999), 100), "all have asked, nobody watches yet");
        assert!(dings.ask(KEY, DingId(1), 101), "it has a place");
        dings.grant(KEY, DingId(2), 2);
        dings.refuse(KEY, 2);
        assert!(!dings.ask(KEY, DingId(999), 102), "what is granted stays");
        dings.refuse(KEY, 3);
        assert!(dings.ask(KEY, DingId(999), 103));
        assert_eq!(dings.watched_by(KEY), [DingId(2)]);
    }

    #[test]
    fn who_asks_no_longer_does_not_watch() {
        let mut dings = Dings::default();
        let watched = |dings: &Dings| (dings.is_watched_by(KEY, DingId(7)), dings.watchers.contains_key(&DingId(7)));
        dings.ask(KEY, DingId(7), 1);
        dings.unwatch(KEY, DingId(7));
        dings.grant(KEY, DingId(7), 1);
        assert_eq!(watched(&dings), (false, false));
        dings.ask(KEY, DingId(7), 2);
        dings.unwatch(KEY, DingId(7));
        dings.ask(KEY, DingId(7), 3);
        dings.grant(KEY, DingId(7), 2);
        assert_eq!(watched(&dings), (false, false), "the last request is not answered yet");
        dings.grant(KEY, DingId(7), 3);
        assert_eq!(watched(&dings), (true, true));
        dings.unwatch(KEY, DingId(7));
        assert!(dings.watched.is_empty() && dings.watchers.is_empty());
    }
}
