//! What edges say to each other: rare, and never waited for.

use std::sync::Arc;

use carillon_protocol::frame::Text;
use carillon_protocol::presence::Signalled;
use carillon_transport::LinkKey;
use crossbeam::channel::{Receiver, Sender, bounded};

use super::directory::Directory;
use super::limits::{KICKS_QUEUED_MAX, SIGNALS_QUEUED_MAX};
use crate::sequencer::{EdgeId, Wake};

/// A session that somebody ends.
#[derive(Debug)]
pub(super) struct Kick {
    pub(super) link: LinkKey,
    /// The handle of who ends it.
    pub(super) by: Text,
}

/// How to reach an edge.
struct Door {
    kicks: Sender<Kick>,
    signals: Sender<Signalled>,
    waker: Arc<dyn Wake>,
}

/// One edge's view of all edges.
pub struct Peers {
    own: EdgeId,
    doors: Arc<[Door]>,
    pub(super) kicks: Receiver<Kick>,
    pub(super) signals: Receiver<Signalled>,
    /// Who is online.
    pub(super) directory: Arc<Directory>,
}

impl Peers {
    /// The views of edges with these wakers, in the order of their ids.
    pub fn of(wakers: impl IntoIterator<Item = Arc<dyn Wake>>) -> Vec<Self> {
        let directory = Arc::new(Directory::default());
        let (mut doors, mut ends) = (Vec::new(), Vec::new());
        for waker in wakers {
            let (kicks_in, kicks) = bounded(KICKS_QUEUED_MAX);
            let (signals_in, signals) = bounded(SIGNALS_QUEUED_MAX);
            doors.push(Door { kicks: kicks_in, signals: signals_in, waker });
            ends.push((kicks, signals));
        }
        let doors: Arc<[Door]> = doors.into();
        let views = ends.into_iter().enumerate();
        views
            .map(|(nth, (kicks, signals))| Self {
                own: EdgeId(nth),
                doors: doors.clone(),
                kicks,
                signals,
                directory: directory.clone(),
            })
            .collect()
    }

    /// Who is online, on all edges.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Has an edge, perhaps this one, end a session in its next turn; false when too many wait.
    pub(super) fn kick(&self, edge: EdgeId, kick: Kick) -> bool {
        let Some(door) = self.doors.get(edge.0) else { return false };
        let sent = door.kicks.try_send(kick).is_ok();
        door.waker.wake();
        sent
    }

    /// Hands a signal to the other edges; returns how many of them have no room for it.
    pub(super) fn signal(&self, signalled: &Signalled) -> u64 {
        let mut full = 0;
        for (nth, door) in self.doors.iter().enumerate() {
            if nth != self.own.0 {
                full += u64::from(door.signals.try_send(signalled.clone()).is_err());
                door.waker.wake();
            }
        }
        full
    }
}
