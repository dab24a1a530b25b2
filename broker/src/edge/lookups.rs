//! Questions to the index. Most are answered from memory at once; one whose answer lies on disk goes to a reader thread, so
//! that the edge never waits, and its answer comes back as a reply does.
//!
//! Questions are closed values that carry all they need: what they ask is immutable up to their `through`, so an answer
//! that comes late is as right as one that comes at once.

use std::sync::Arc;

use carillon_core::effect::{ReadPage, StintView};
use carillon_core::input::Written;
use carillon_protocol::ids::{ConversationId, Position, Seq};
use carillon_protocol::receipt::{ReadStatus, ReadStatusReply};
use carillon_protocol::session::Truncated;
use carillon_transport::LinkKey;

use super::catchup::{Plan, PlanBounds, Skip, places_at, plan, skips};
use super::read_status::{complete, written};
use super::{Edge, Links};
use crate::index::{Index, Lookup, LookupError, Place};
use crate::journal::{Entry, ReadError};
use crate::sequencer::ToEdge;

/// What an edge asks the index.
#[derive(Debug)]
pub enum Question {
    /// What a bounded catch-up leaves out.
    Skips {
        /// The user's.
        stints: Arc<Vec<StintView>>,
        /// The first position the device has not had.
        next: Position,
        /// As of here.
        through: Position,
        /// The newest so many of each conversation are wanted.
        newest: u32,
    },
    /// The next positions of a session that catches up.
    Plan {
        /// The user's.
        stints: Arc<Vec<StintView>>,
        /// What is not wanted.
        skips: Arc<Vec<Skip>>,
        /// From here.
        next: Position,
        /// To here.
        through: Position,
        /// How many.
        bounds: PlanBounds,
    },
    /// Which messages lie at a position.
    At {
        /// The user's.
        stints: Arc<Vec<StintView>>,
        /// Where.
        position: Position,
    },
    /// Who wrote the message that a status query is about, and where it lies.
    Written(ReadStatus),
    /// When those who have read a message did, and who was offered it.
    ReadPage(ReadPage),
    /// The places of a page of history: these ranges of seqs, inclusive.
    Page {
        /// The conversation.
        conversation: ConversationId,
        /// Ascending.
        ranges: Vec<(Seq, Seq)>,
    },
}

/// What came back from a reader thread.
#[derive(Debug)]
pub enum Found {
    /// To [`Question::Skips`].
    Skips {
        /// As asked.
        next: Position,
        /// As asked.
        through: Position,
        /// By conversation, then by time.
        skips: Vec<Skip>,
    },
    /// To [`Question::Plan`].
    Plan {
        /// As asked.
        next: Position,
        /// What is next.
        plan: Plan,
    },
    /// To [`Question::At`].
    At {
        /// As asked.
        position: Position,
        /// Those that the stints entitle to.
        places: Vec<Truncated>,
    },
    /// To [`Question::Written`].
    Written {
        /// As asked.
        query: ReadStatus,
        /// `None`: there is no such message, or retention has taken it.
        written: Option<Written>,
    },
    /// To [`Question::ReadPage`].
    ReadPage(ReadStatusReply),
    /// To [`Question::Page`]; by ascending seq.
    Page(Vec<Place>),
    /// The bodies of a page of history.
    PageBodies(Result<Vec<Entry>, ReadError>),
    /// The index is being rebuilt: ask again a little later.
    Rebuilding(Question),
}

impl Question {
    fn answer(&self, index: &Index, lookup: &impl Lookup) -> Result<Found, LookupError> {
        Ok(match self {
            Self::Skips { stints, next, through, newest } => {
                let skips = skips(index, lookup, stints, (*next, *through), *newest)?;
                Found::Skips { next: *next, through: *through, skips }
            }
            Self::Plan { stints, skips, next, through, bounds } => {
                Found::Plan { next: *next, plan: plan(index, lookup, (stints, skips), (*next, *through), *bounds)? }
            }
            Self::At { stints, position } => {
                Found::At { position: *position, places: places_at(index, lookup, stints, *position)? }
            }
            Self::Written(query) => Found::Written { query: query.clone(), written: written(query, lookup)? },
            Self::ReadPage(page) => Found::ReadPage(complete(index, lookup, page)?),
            Self::Page { conversation, ranges } => {
                let mut places = Vec::new();
                for (first, last) in ranges {
                    let count = usize::try_from(last.0 - first.0 + 1).unwrap_or(usize::MAX);
                    lookup.places(*conversation, *first, count, &mut places)?;
                    // Above a floor that has risen meanwhile there are as many, but not of this range.
                    while places.pop_if(|place| place.seq > *last).is_some() {}
                }
                Found::Page(places)
            }
        })
    }
}

impl Edge {
    /// The answer if it lies in memory. If not, it comes with a later turn.
    pub(super) fn ask(&mut self, key: LinkKey, question: Question) -> Option<Found> {
        let answer = question.answer(&self.parts.index, &self.parts.index.recent());
        match answer {
            Ok(found) => Some(found),
            Err(LookupError::OnDisk | LookupError::Rebuilding) => {
                self.ask_reader_thread(key, question);
                None
            }
        }
    }

    fn ask_reader_thread(&mut self, key: LinkKey, question: Question) {
        let (replies, waker) = (self.parts.replies_in.clone(), self.parts.waker.clone());
        let index = self.parts.index.clone();
        let job = Box::new(move || {
            let found = question.answer(&index, &index.whole()).unwrap_or_else(|_| Found::Rebuilding(question));
            // Room was reserved; an edge that is gone needs no answer.
            replies.try_send(ToEdge::Found { link: key, found }).ok();
            waker.wake();
        });
        self.stats.lookups_on_disk += 1;
        // One for each session that catches up, and one for each pending request.
        self.lookups.push_back((key, job));
        self.run_lookups();
    }

    /// Hands questions to the reader threads, as far as there is room for them.
    pub(super) fn run_lookups(&mut self) {
        while self.reading < self.limits.reads_in_flight_max {
            let Some((key, job)) = self.lookups.pop_front() else { break };
            if self.sessions.at_key(key).is_none() {
                continue;
            }
            if let Err(job) = self.parts.bodies.run(job) {
                self.lookups.push_front((key, job));
                break;
            }
            self.reading += 1;
        }
    }

    /// Asks again what could not be answered while the index was being rebuilt.
    pub(super) fn ask_again(&mut self) {
        for (key, question) in std::mem::take(&mut self.lookups_later) {
            self.ask_reader_thread(key, question);
        }
    }

    /// An answer that had to wait for a disk.
    pub(super) fn handle_found<L: Links>(&mut self, links: &mut L, key: LinkKey, found: Found) {
        match found {
            Found::Skips { .. } | Found::Plan { .. } | Found::At { .. } => {
                self.take_answer(key, found);
                self.schedule_catch_up(key);
            }
            Found::Written { query, written } => self.submit_read_status(key, query, written),
            Found::ReadPage(reply) => self.answer(links, key, &reply.into()),
            Found::Page(places) => self.read_page(links, key, places),
            Found::PageBodies(entries) => self.handle_page_bodies(links, key, entries),
            // Once a second: a rebuild takes its time.
            Found::Rebuilding(question) => self.lookups_later.push((key, question)),
        }
    }
}
