//! Many sessions that publish in turn by one schedule: each has its own numbers, its own window and its own share of what is due.
//!
//! The schedule is cut among them so that message n of all is the next one of author n modulo their number: who is to send next is known
//! without looking at everybody.

use std::time::{Duration, Instant};

use carillon_protocol::Frame;

use crate::fleet::{Fleet, SessionIndex};
use crate::publisher::{Place, Publisher, Publishing};
use crate::schedule::Schedule;

/// What they publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    /// Tells this run's messages from those of others.
    pub(crate) run: u64,
    /// When the first message is due.
    pub(crate) start: Instant,
    /// Messages a second, of all together.
    pub(crate) rate: u32,
    pub(crate) payload_bytes: usize,
    /// Messages of each that may be without an answer.
    pub(crate) window: u32,
}

/// One of them.
struct Author {
    session: SessionIndex,
    publisher: Publisher,
    schedule: Schedule,
    /// It has no session now: what is due waits.
    is_away: bool,
    /// It is among those that are behind.
    is_listed: bool,
}

/// See the module. Authors are counted from 0, and so are the messages of each.
pub(crate) struct Authors {
    what: Writing,
    authors: Vec<Author>,
    /// The next message of all that is to be looked at.
    next: u32,
    /// Nothing is due from this moment on.
    end: Option<Instant>,
    /// Authors that could not send all that was due: at most each of them, once.
    behind: Vec<usize>,
}

impl Authors {
    /// `sessions` has, for each author, its session and its producer's highest number; `places` says where an author publishes to.
    pub(crate) fn new(
        what: Writing,
        sessions: impl ExactSizeIterator<Item = (SessionIndex, u64)>,
        places: impl Fn(usize) -> Vec<Place>,
    ) -> Self {
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let apart = Duration::from_secs(1) / what.rate.max(1);
        let authors = sessions.zip(0..).map(|((session, highest), nth): (_, u32)| {
            let schedule = Schedule { start: what.start + apart * nth, interval: apart * count, batch: 1 };
            let publishing = Publishing {
                run: what.run,
                schedule,
                messages: u32::MAX,
                conversations: Vec::new(),
                payload_bytes: what.payload_bytes,
            };
            let publisher =
                Publisher::new(publishing, highest).with_places(places(nth as usize)).with_window(what.window);
            Author { session, publisher, schedule, is_away: false, is_listed: false }
        });
        Self { what, authors: authors.collect(), next: 0, end: None, behind: Vec::new() }
    }

    /// Sends what is due, as far as it can be.
    pub(crate) fn send_due(&mut self, now: Instant, fleet: &mut Fleet) {
        for author in std::mem::take(&mut self.behind) {
            self.authors[author].is_listed = false;
            self.act(author, now, fleet);
        }
        while self.next_due().is_some_and(|due| due <= now) {
            let author = self.next as usize % self.authors.len();
            self.next += 1;
            if !self.authors[author].is_listed {
                self.act(author, now, fleet);
            }
        }
    }

    /// When the next message is due; `None` when no more is.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = self.all().due_at(self.next);
        self.end.is_none_or(|end| due < end).then_some(due)
    }

    /// Messages that are due before a moment, of all together.
    pub(crate) fn due_until(&self, now: Instant) -> u64 {
        u64::from(self.all().count_until(self.end.map_or(now, |end| end.min(now))))
    }

    /// Takes an answer to an author; says which message has got its first.
    ///
    /// # Errors
    /// The broker refused a message for good.
    pub(crate) fn take(&mut self, author: usize, now: Instant, frame: &Frame) -> Result<Option<u32>, String> {
        let publisher = &mut self.authors[author].publisher;
        let taken = publisher.take(now, frame);
        // It may have been refused as too much at once, or the window has room again.
        if publisher.is_behind(now) {
            self.list(author);
        }
        taken
    }

    /// When a message of an author was due.
    pub(crate) fn due_at(&self, author: usize, index: u32) -> Instant {
        self.authors[author].schedule.due_at(index)
    }

    /// Nothing is due from this moment on.
    pub(crate) fn stop_at(&mut self, end: Instant) {
        self.end = Some(end);
        for author in &mut self.authors {
            author.publisher.stop_at(end);
        }
    }

    /// An author's session is about to end.
    pub(crate) fn leave(&mut self, author: usize) {
        self.authors[author].is_away = true;
    }

    /// It has another one, and sends again what has no answer.
    pub(crate) fn come_back(&mut self, author: usize, session: SessionIndex) {
        let of = &mut self.authors[author];
        (of.session, of.is_away) = (session, false);
        of.publisher.rewind();
        self.list(author);
    }

    /// Whether every message has its answer.
    pub(crate) fn are_done(&self) -> bool {
        self.authors.iter().all(|author| author.publisher.is_done())
    }

    /// Messages sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.authors.iter().map(|author| u64::from(author.publisher.sent())).sum()
    }

    /// Of them, those of one author.
    pub(crate) fn sent_by(&self, author: usize) -> u32 {
        self.authors[author].publisher.sent()
    }

    /// How late one was sent at worst, in milliseconds.
    pub(crate) fn late_ms_max(&self) -> f64 {
        let late = self.authors.iter().map(|author| author.publisher.late_max()).max();
        late.unwrap_or_default().as_secs_f64() * 1e3
    }

    /// The schedule of all together.
    fn all(&self) -> Schedule {
        Schedule::per_second(self.what.start, self.what.rate.max(1))
    }

    fn act(&mut self, author: usize, now: Instant, fleet: &mut Fleet) {
        let Author { session, publisher, is_away, .. } = &mut self.authors[author];
        if !*is_away {
            publisher.send_due(now, fleet, *session);
        }
        // What waits for an answer, for room or for a session is looked at again in each turn.
        if publisher.is_behind(now) {
            self.list(author);
        }
    }

    fn list(&mut self, author: usize) {
        if !std::mem::replace(&mut self.authors[author].is_listed, true) {
            self.behind.push(author);
        }
    }
}
