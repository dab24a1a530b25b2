//! Attaching: from the sequencer's answer to an open session.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use carillon_core::effect::{Attached, Moment, Signal};
use carillon_core::input::Attach;
use carillon_protocol::ding::DingPush;
use carillon_protocol::ding_status::{DingProgress, DingsOpen};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::{Body, Text};
use carillon_protocol::ids::{DingId, Incarnation, Position, ProducerId, TenantId, UserId};
use carillon_protocol::limits::PAYLOAD_BYTES_MAX;
use carillon_protocol::session::{Hello, NEWEST_ALL, VERSION, Welcome};
use carillon_transport::{Link, LinkKey};

use super::catchup::CatchUp;
use super::directory::Listed;
use super::inbound::Which;
use super::interest::Known;
use super::receipts::Told;
use super::session::{Feed, Identity, Phase, Session, Weight};
use super::{Edge, Links};
use crate::sequencer::Submission;
use crate::sequencer::ring::{Committed, Found};
use carillon_core::input::Principal;

/// What the edge processed after an attach was answered, and before it learnt of it.
pub(super) enum Missed {
    /// These batches hold it.
    Batches(Vec<Arc<Committed>>),
    /// Some of it has left the ring: attach again.
    Gone,
}

/// What came to be after a user's attach, in the batches that the edge processed before it learnt of the attach.
struct Since<'a> {
    batches: &'a [Arc<Committed>],
    tenant: TenantId,
    user: UserId,
    as_of: Position,
}

impl<'a> Since<'a> {
    /// Those of the batch that holds the attach's position may be older than it.
    fn signals(&self) -> impl Iterator<Item = &'a Signal> + use<'a> {
        self.batches.iter().flat_map(|committed| &committed.signals)
    }

    /// The urgent frames to the user that are later than the attach.
    fn urgent(&self) -> impl Iterator<Item = &'a Bytes> {
        self.signals().filter_map(|signal| match signal {
            Signal::Urgent { position, tenant, users, frame } => {
                self.concerns(*position, *tenant, users).then_some(frame)
            }
            Signal::Message { .. }
            | Signal::MembersAdded { .. }
            | Signal::MembersRemoved { .. }
            | Signal::Read { .. }
            | Signal::Ding { .. }
            | Signal::DeviceRetired { .. }
            | Signal::ProducerRetired { .. } => None,
        })
    }

    /// Whether a signal of this position to these users is later than the attach, and the user's.
    fn concerns(&self, position: Position, tenant: TenantId, users: &[UserId]) -> bool {
        tenant == self.tenant && position > self.as_of && users.contains(&self.user)
    }
}

impl Session {
    /// What the sequencer is asked; `None` before `Hello`.
    pub(super) fn attach(&self) -> Option<Attach> {
        match &self.phase {
            Phase::AwaitingHello { .. } => None,
            Phase::Attaching(attaching) => Some(Attach {
                tenant: attaching.tenant.clone(),
                handle: attaching.handle.clone(),
                authority: attaching.authority,
                device: attaching.hello.device,
                producer: producer(&attaching.hello),
            }),
            Phase::Attached(identity) => Some(Attach {
                tenant: identity.tenant.clone(),
                handle: identity.handle.clone(),
                authority: identity.who.authority,
                device: identity.device,
                producer: identity.producer,
            }),
        }
    }
}

impl Edge {
    pub(super) fn handle_attached<L: Links>(&mut self, links: &mut L, key: LinkKey, attached: Attached) {
        let Missed::Batches(missed) = self.missed_since(attached.as_of) else {
            return self.attaching_again.push_back(key);
        };
        let Some(session) = self.sessions.at_key(key) else { return };
        let (tenant, user) = (attached.tenant, attached.user);
        let again = session.identity().is_some();
        if matches!(&session.feed, Feed::CatchingUp(catch_up) if catch_up.attach_is_stale) {
            return self.attaching_again.push_back(key);
        }
        let dings = match &session.phase {
            Phase::AwaitingHello { .. } => return,
            Phase::Attached(_) => {
                if let Feed::CatchingUp(catch_up) = &mut session.feed {
                    catch_up.attaching = false;
                }
                attached.dings
            }
            Phase::Attaching(_) => {
                let Some(dings) = self.welcome(links, key, &attached) else { return };
                dings
            }
        };
        let as_of = attached.as_of;
        let known = Known { stints: attached.stints, forgotten: attached.forgotten };
        let since = Since { batches: &missed, tenant, user, as_of };
        if self.interest.add_session(tenant, user, key.index, known, as_of) {
            self.apply_missed_stints(&since);
        }
        if again {
            self.tell_dings_open(links, key, dings.len(), &since);
        }
        for ding in dings {
            self.push_urgent(links, key, ding, Weight::Shared);
        }
        self.push_missed_urgent(links, key, &since);
        self.push_missed_progress(links, key, attached.progress, &since);
        self.close_missed_retired(links, key, &since);
        // One that is live with read updates by now has been told what came since.
        if again {
            self.list_behind(key);
        } else {
            self.begin_receipts(links, key);
        }
        self.schedule_catch_up(key);
        self.serve_history(links, key);
        self.resume(key);
    }

    pub(super) fn missed_since(&self, as_of: Position) -> Missed {
        let mut batches = Vec::new();
        let mut next = as_of.next();
        while next <= self.seen {
            let Some(committed) = self.parts.ring.find(next) else { return Missed::Gone };
            next = committed.batch.last().next();
            batches.push(committed);
        }
        Missed::Batches(batches)
    }

    /// Asks for stints anew, as far as there is room for the answers.
    pub(super) fn attach_again(&mut self) {
        while self.reserved < self.limits.replies_reserved_max {
            let Some(key) = self.attaching_again.pop_front() else { break };
            let Some(session) = self.sessions.at_key(key) else { continue };
            let Some(attach) = session.attach() else { continue };
            if let Feed::CatchingUp(catch_up) = &mut session.feed {
                catch_up.attach_is_stale = false;
            }
            self.reserved += 1;
            let (from, watched) = (self.origin(key), self.dings.watched_by(key));
            self.submit(Submission::AttachAgain { from, attach, watched });
        }
    }

    /// Opens the session: the inbox, its place in the journal, `Welcome`. `None` if it was closed instead.
    fn welcome<L: Links>(&mut self, links: &mut L, key: LinkKey, attached: &Attached) -> Option<Vec<Bytes>> {
        let (shard, incarnation) = (self.parts.shard, self.parts.incarnation);
        let session = self.sessions.at_key(key)?;
        let Phase::Attaching(attaching) = &session.phase else { return None };
        let cursor = attaching.hello.cursors.iter().find(|cursor| cursor.shard == shard);
        let start = cursor.map_or(Position(0), |cursor| cursor.position);
        if cursor.is_some_and(|c| {
            let furthest = c.position.max(c.receipts_through);
            let says_another = c.incarnation != incarnation && c.incarnation != Incarnation(0);
            furthest > attached.as_of || says_another || (furthest > Position(0) && c.incarnation != incarnation)
        }) {
            let text = "the cursor is of another journal or from the future: start anew";
            self.close_for_cause(links, key, ErrorCode::CURSOR_INVALID, text);
            return None;
        }
        let receipts_through = cursor.map_or(Position(0), |cursor| cursor.receipts_through);
        let identity = Identity {
            who: Principal { tenant: attached.tenant, user: attached.user, authority: attaching.authority },
            tenant: attaching.tenant.clone(),
            handle: attaching.handle.clone(),
            device: attaching.hello.device,
            producer: producer(&attaching.hello),
            expires_at: attaching.expires_at,
            as_of: attached.as_of,
        };
        let newest_wanted = attaching.hello.newest;
        let client = attaching.hello.client.clone();
        let welcome = Welcome {
            version: VERSION,
            user: attached.user,
            shard,
            incarnation,
            head: attached.as_of,
            producer_highest: attached.producer_highest,
            time: attached.time,
            idle_timeout_ms: self.parts.idle_timeout_ms,
            payload_bytes_max: u32::try_from(PAYLOAD_BYTES_MAX).expect("64 KiB"),
            dings_open: u32::try_from(attached.dings.len()).unwrap_or(u32::MAX),
            handle: identity.handle.clone(),
        };
        session.phase = Phase::Attached(Box::new(identity));
        let catch_up = match newest_wanted {
            NEWEST_ALL => CatchUp::new(start.next()),
            newest => CatchUp::bounded(start.next(), newest),
        };
        session.feed = Feed::CatchingUp(Box::new(catch_up));
        session.inbox.sent = start;
        session.inbox.told = Told::begin(receipts_through, attached.as_of);
        session.inbox.receipts_sent = match session.inbox.told {
            Told::Live { after } => after,
            _ => receipts_through,
        };
        if !self.open_inbox(links, key) {
            // Not registered yet, so that `forget` must not take the user's other sessions' interest with it.
            let text = "allow the broker three unidirectional streams";
            self.close_for_cause(links, key, ErrorCode::UNEXPECTED_FRAME, text);
            return None;
        }
        self.meter.sessions_opened.add(1);
        self.list_session(links, key, client);
        self.write_reply(links, key, Which::Control, &welcome.into());
        self.sessions.at_key(key).map(|_| attached.dings.clone())
    }

    /// The session is in the directory until it is forgotten.
    fn list_session<L: Links>(&mut self, links: &mut L, key: LinkKey, client: Text) {
        let (origin, since) = (self.origin(key), self.now());
        let Some(address) = links.link(key).map(|link| link.remote_address()) else { return };
        let Some(identity) = self.sessions.at_key(key).and_then(|session| session.identity()) else { return };
        let (device, producer) = (identity.device, identity.producer.unwrap_or(ProducerId(0)));
        let listed = Listed { origin, device, producer, client, address, since };
        self.parts.peers.directory.enter(identity.who.tenant, identity.who.user, listed);
    }

    /// Stints as of the attach become stints as of `seen`.
    fn apply_missed_stints(&mut self, since: &Since<'_>) {
        let (tenant, user) = (since.tenant, since.user);
        for signal in since.signals() {
            match signal {
                Signal::MembersAdded { position, tenant: of, conversation, seq, history, users }
                    if since.concerns(*position, *of, users) =>
                {
                    let joined = Moment { seq: *seq, position: *position };
                    self.interest.begin_stint(tenant, user, (*conversation, *history), joined);
                }
                Signal::MembersRemoved { position, tenant: of, conversation, seq, users }
                    if since.concerns(*position, *of, users) =>
                {
                    let left = Moment { seq: *seq, position: *position };
                    self.interest.end_stint(tenant, user, *conversation, left);
                }
                Signal::MembersAdded { .. }
                | Signal::MembersRemoved { .. }
                | Signal::Message { .. }
                | Signal::Read { .. }
                | Signal::Urgent { .. }
                | Signal::Ding { .. }
                | Signal::DeviceRetired { .. }
                | Signal::ProducerRetired { .. } => {}
            }
        }
    }

    /// A device or producer that was retired between the attach and `seen` has no session.
    fn close_missed_retired<L: Links>(&mut self, links: &mut L, key: LinkKey, since: &Since<'_>) {
        let Since { batches, tenant, user, as_of } = *since;
        let after = batches.iter().filter(|committed| committed.batch.last() > as_of);
        for signal in after.flat_map(|committed| &committed.signals) {
            let Some(identity) = self.sessions.at_key(key).and_then(|session| session.identity()) else { return };
            let retired = match signal {
                Signal::DeviceRetired { tenant: of, user: whose, device } => {
                    *of == tenant && *whose == user && *device == identity.device
                }
                Signal::ProducerRetired { tenant: of, user: whose, producer } => {
                    *of == tenant && *whose == user && Some(*producer) == identity.producer
                }
                _ => false,
            };
            if retired {
                return self.close(links, key, ErrorCode::RETIRED, "this device or producer was retired");
            }
        }
    }

    /// Batches were missed, and with them what was over: all pushes that follow are of what is open, and the device shows nothing else.
    fn tell_dings_open<L: Links>(&mut self, links: &mut L, key: LinkKey, dings: usize, since: &Since<'_>) {
        let pushes = dings + since.urgent().filter(|frame| is_push(frame)).count();
        let shown = self.sessions.at_key(key).is_some_and(|session| session.urgent.is_some());
        // Without the lane it was pushed nothing in this session, and `Welcome` has spoken of what it was pushed before.
        if shown || pushes > 0 {
            let count = u32::try_from(pushes).unwrap_or(u32::MAX);
            self.push_urgent(links, key, DingsOpen { count }.to_bytes(), Weight::Own);
        }
    }

    /// How DINGs have moved between the attach and `seen`, and before it if batches were missed: for who has sent or watches them.
    fn push_missed_progress<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        before: Vec<DingProgress>,
        since: &Since<'_>,
    ) {
        let mut newest: BTreeMap<DingId, DingProgress> = before.into_iter().map(|told| (told.ding, told)).collect();
        for signal in since.signals() {
            if let Signal::Ding { tenant, sender, progress } = signal
                && *tenant == since.tenant
                && progress.position > since.as_of
                && (*sender == since.user || self.dings.is_watched_by(key, progress.ding))
            {
                newest.insert(progress.ding, progress.clone());
            }
        }
        for progress in newest.into_values() {
            self.push_urgent(links, key, progress.to_bytes(), Weight::Own);
        }
    }

    /// Urgent frames between the attach and `seen` went out before this session was known here.
    fn push_missed_urgent<L: Links>(&mut self, links: &mut L, key: LinkKey, since: &Since<'_>) {
        for frame in since.urgent() {
            self.push_urgent(links, key, frame.clone(), Weight::Own);
        }
    }

    /// Whether the ring still holds the next batch this edge will read.
    pub(super) fn has_more(&self) -> bool {
        !matches!(self.parts.ring.at(self.next_ordinal), Found::NotYet)
    }
}

/// Whether an encoded frame is a `DingPush`: its kind lies behind its length.
fn is_push(frame: &Bytes) -> bool {
    frame.get(4) == Some(&DingPush::KIND)
}

fn producer(hello: &Hello) -> Option<ProducerId> {
    Some(hello.producer).filter(|producer| *producer != ProducerId(0))
}
