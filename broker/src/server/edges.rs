//! The edges of a broker: what they are made of, and their threads.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use carillon_protocol::ids::{Incarnation, Position};
use carillon_transport::Endpoint;
use crossbeam::channel::Sender;

use super::{Failure, SHARD, spawn};
use crate::clock::Clock;
use crate::dings::DingPolicies;
use crate::edge::auth::Authenticator;
use crate::edge::limits::{FENCES_QUEUED_MAX, Limits, MARKS_UNDER_WAY_MAX, REPLY_QUEUE_MAX};
use crate::edge::{self, Control, Edge, Peers, ReadBodies};
use crate::index::Index;
use crate::journal::ReaderPool;
use crate::metrics::Running;
use crate::metrics::meter::EdgeMeter;
use crate::report::Causes;
use crate::sequencer::ring::Ring;
use crate::sequencer::{self, EdgeId, Mail, Mailbox, Submit, mailbox};

/// What all edges are made of.
pub(super) struct Shared {
    pub(super) incarnation: Incarnation,
    pub(super) start: Position,
    pub(super) idle_timeout_ms: u32,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) submit: Submit,
    pub(super) ring: Arc<Ring>,
    pub(super) index: Arc<Index>,
    pub(super) bodies: Arc<ReaderPool>,
    pub(super) policies: Arc<DingPolicies>,
}

impl Shared {
    /// An edge's parts for each endpoint, and how the sequencer reaches it.
    pub(super) fn edges(&self, endpoints: Vec<Endpoint>) -> (Vec<Mailbox>, Vec<(edge::Parts, Endpoint)>) {
        let peers = Peers::of(endpoints.iter().map(|endpoint| Arc::new(endpoint.waker()) as Arc<dyn sequencer::Wake>));
        let edge = |((nth, endpoint), peers): ((usize, Endpoint), Peers)| {
            let waker: Arc<dyn sequencer::Wake> = Arc::new(endpoint.waker());
            let (mailbox, mail) = mailbox(waker.clone(), [REPLY_QUEUE_MAX, MARKS_UNDER_WAY_MAX, FENCES_QUEUED_MAX]);
            let Mail { replies, replies_in, marked, fences } = mail;
            let parts = edge::Parts {
                id: EdgeId(nth),
                shard: SHARD,
                incarnation: self.incarnation,
                start: self.start,
                idle_timeout_ms: self.idle_timeout_ms,
                clock: self.clock.clone(),
                authenticator: self.authenticator.clone(),
                submit: self.submit.clone(),
                replies,
                replies_in,
                marked,
                fences,
                waker,
                ring: self.ring.clone(),
                index: self.index.clone(),
                bodies: self.bodies.clone() as Arc<dyn ReadBodies>,
                peers,
                policies: self.policies.clone(),
            };
            (mailbox, (parts, endpoint))
        };
        endpoints.into_iter().enumerate().zip(peers).map(edge).unzip()
    }
}

/// A thread for each edge.
pub(super) fn start_edges(
    (parts, limits): (Vec<(edge::Parts, Endpoint)>, Limits),
    running: &Running,
    control: &Control,
    failed: &Sender<Failure>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |((parts, endpoint), meter): ((edge::Parts, Endpoint), &Arc<EdgeMeter>)| {
        let (id, meter, control, failed) = (parts.id.0, meter.clone(), control.clone(), failed.clone());
        spawn(format!("edge-{id}"), move || {
            // Made on its own thread: its tables of interest are not shared.
            let edge = Edge::with_limits(parts, limits).with_meter(meter);
            if let Err(source) = edge::run(edge, endpoint, &control) {
                tracing::error!(edge = id, error = %Causes(&source), "an edge failed");
                failed.try_send(Failure::Edge { edge: id, source }).ok();
            }
        })
    };
    parts.into_iter().zip(&running.edges).map(start).collect()
}
