//! One edge with a group's sessions on connections that take everything, and the sequencer behind it, all in one thread.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use carillon::clock::{Clock, SystemClock};
use carillon::edge::auth::Authenticator;
use carillon::edge::limits::{FENCES_QUEUED_MAX, MARKS_UNDER_WAY_MAX, REPLY_QUEUE_MAX};
use carillon::edge::{self, Edge, Left};
use carillon::index::Index;
use carillon::journal::{Journal, JournalOptions, MemoryStorage, ReaderPool, SegmentJournal, open};
use carillon::material::{Grant, Material, sign_token};
use carillon::sequencer::ring::{RING_BATCHES_MAX, RING_BYTES_MAX, ring};
use carillon::sequencer::{self, EdgeId, Mail, NoOutlets, Sequencer, Wake, mailbox, submissions};
use carillon_core::Shard;
use carillon_protocol::control::ConversationCreate;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId, Timestamp, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy};
use carillon_protocol::limits::MEMBERS_A_REQUEST_MAX;
use carillon_protocol::session::{Hello, NEWEST_ALL, VERSION};
use carillon_transport::{Direction, Event, LinkKey};
use jsonwebtoken::DecodingKey;

use crate::sink::{CONTROL, PUBLISH, Sinks};
use crate::{NOW, SHARD, as_received, publish};

/// Nothing is due while it stands still, so that a round does the same work each time.
struct Stopped(Instant);

impl carillon_transport::Clock for Stopped {
    fn now(&self) -> Instant {
        self.0
    }
}

impl Clock for Stopped {
    fn wall(&self) -> Timestamp {
        NOW
    }
}

/// Nobody sleeps here.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// See the module.
pub struct Stage {
    edge: Edge,
    links: Sinks,
    sequencer: Sequencer<SegmentJournal>,
    publisher: LinkKey,
    group: ConversationId,
    sessions: u64,
    published: u64,
    /// Kept for reuse, empty between turns.
    events: Vec<Event>,
}

/// Messages that were sent and not yet received.
pub struct Publishes {
    frames: Bytes,
    messages: u64,
}

impl Stage {
    /// A group of so many users, at most 1,000 with one session each, and the service that publishes into it.
    ///
    /// # Panics
    /// If something is refused.
    pub fn of(sessions: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let material = Material::ensure(directory.path()).expect("keys");
        let public = std::fs::read(&material.token_public_key).expect("the public key");
        let keys = vec![DecodingKey::from_ed_pem(&public).expect("a public key")];
        let token = |handle: &str, role| {
            let grant = Grant { tenant: "bench", handle, role, expires_at_s: u64::MAX / 4_000 };
            sign_token(&material.token_key, &grant).expect("a token")
        };
        let (edge, sequencer) = edge_and_sequencer(Authenticator::new(keys));
        let (links, publisher) = (Sinks::default(), LinkKey { index: 0, generation: 0 });
        let (group, sessions_of) = (ConversationId(0), u64::from(sessions) + 1);
        let mut stage =
            Self { edge, links, sequencer, publisher, group, sessions: sessions_of, published: 0, events: Vec::new() };
        stage.publisher = stage.connect(token("service", "service"));
        for nth in 0..sessions {
            stage.connect(token(&format!("member-{nth}"), "user"));
        }
        assert!(sessions as usize <= MEMBERS_A_REQUEST_MAX, "one request makes the group");
        // Users are numbered as they come, the service first; conversations likewise, each user's own first.
        let members = (1..=sessions).map(UserId).collect();
        stage.group = ConversationId::new(SHARD, u64::from(sessions) + 2);
        let (kind, post_policy, history) = (ConversationKind::GROUP, PostPolicy(0), HistoryPolicy(0));
        let name = Default::default();
        let create =
            ConversationCreate { request: 1, kind, post_policy, history, receipts: ReceiptPolicy(0), name, members };
        stage.send(stage.publisher, create.to_bytes());
        stage.settle();
        stage.open(stage.publisher, true);
        stage
    }

    /// So many messages are published at once and reach every session; answers how many deliveries that was.
    ///
    /// # Panics
    /// If one of them does not.
    pub fn round(&mut self, messages: u64) -> u64 {
        let publishes = self.publishes(messages);
        self.deliver(publishes)
    }

    /// So many messages as they come from the service's connection, for [`Stage::deliver`].
    pub fn publishes(&mut self, messages: u64) -> Publishes {
        let mut frames = BytesMut::new();
        for _ in 0..messages {
            self.published += 1;
            publish(self.published, self.group).encode(&mut frames);
        }
        Publishes { frames: as_received(frames), messages }
    }

    /// They are published at once and reach every session; answers how many deliveries that was.
    ///
    /// # Panics
    /// If one of them does not.
    pub fn deliver(&mut self, Publishes { frames, messages }: Publishes) -> u64 {
        let before = self.edge.stats().delivered_live;
        self.links.send(self.publisher, PUBLISH, frames);
        self.turn(Some(Event::Readable { link: self.publisher, stream: PUBLISH }));
        self.settle();
        let delivered = self.edge.stats().delivered_live - before;
        assert_eq!(delivered, messages * self.sessions, "every session has every message");
        delivered
    }

    fn connect(&mut self, token: String) -> LinkKey {
        let link = self.links.connect();
        let hello = Hello {
            version: VERSION,
            device: DeviceId(1),
            producer: ProducerId(u64::from(link.index == 0)),
            newest: NEWEST_ALL,
            token: token.as_str().into(),
            client: "bench".into(),
            cursors: Vec::new(),
        };
        self.links.send(link, CONTROL, hello.to_bytes());
        self.turn(Some(Event::Connected { link }));
        self.open(link, false);
        self.settle();
        assert_eq!(self.links.closed, 0, "the session is open");
        link
    }

    fn open(&mut self, link: LinkKey, publishes: bool) {
        let stream = if publishes { PUBLISH } else { CONTROL };
        self.turn(Some(Event::Opened { link, stream, direction: Direction::Bidirectional }));
    }

    fn send(&mut self, link: LinkKey, frame: Bytes) {
        self.links.send(link, CONTROL, frame);
        self.turn(Some(Event::Readable { link, stream: CONTROL }));
    }

    fn turn(&mut self, event: Option<Event>) -> Left {
        self.events.extend(event);
        let left = self.edge.turn(&mut self.links, &mut self.events);
        self.events.clear();
        left
    }

    /// Until everything that was sent is committed, answered and delivered.
    fn settle(&mut self) {
        loop {
            self.sequencer.step().expect("memory does not fail");
            while self.turn(None) == Left::Work {}
            if self.edge.seen() == self.sequencer.head() && self.edge.is_settled() {
                return;
            }
        }
    }
}

fn edge_and_sequencer(authenticator: Authenticator) -> (Edge, Sequencer<SegmentJournal>) {
    let opened = open(Arc::new(MemoryStorage::new()), JournalOptions::new(SHARD), Position(0), &mut |_| Ok(()));
    let opened = opened.expect("a fresh journal");
    let clock: Arc<dyn Clock> = Arc::new(Stopped(carillon_transport::Clock::now(&SystemClock)));
    let (writer, ring) = ring(RING_BATCHES_MAX, RING_BYTES_MAX);
    let (submit, queues) = submissions();
    let index = Arc::new(Index::new());
    let waker: Arc<dyn Wake> = Arc::new(Awake);
    let room = [REPLY_QUEUE_MAX, MARKS_UNDER_WAY_MAX, FENCES_QUEUED_MAX];
    let (mailbox, Mail { replies, replies_in, marked, fences }) = mailbox(waker.clone(), room);
    let peers = edge::Peers::of([waker.clone()]).remove(0);
    let edge = Edge::new(edge::Parts {
        id: EdgeId(0),
        shard: SHARD,
        incarnation: opened.journal.incarnation(),
        start: opened.journal.head(),
        idle_timeout_ms: 30_000,
        clock: clock.clone(),
        authenticator: Arc::new(authenticator),
        submit,
        replies,
        replies_in,
        marked,
        fences,
        waker,
        ring,
        index: index.clone(),
        peers,
        policies: Arc::default(),
        bodies: Arc::new(ReaderPool::start(&opened.reader, 1, 1).expect("a thread")),
    });
    let sequencer = Sequencer::new(sequencer::Parts {
        shard: Shard::new(SHARD),
        journal: opened.journal,
        ring: writer,
        index,
        clock,
        queues,
        edges: vec![mailbox],
        outlets: Box::new(NoOutlets),
        policies: Arc::default(),
    });
    (edge, sequencer)
}
