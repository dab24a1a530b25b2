//! How many sessions come in: some at a time, each as fast as the broker lets it.

use std::time::{Duration, Instant};

use carillon_protocol::session::Cursor;
use hdrhistogram::Histogram;

use crate::failure::{Ended, Failure};
use crate::fleet::{Greeting, SessionIndex};
use crate::latency::{histogram, record};
use crate::limits::IDLE_WAIT;
use crate::rig::{Guest, Rig};
use crate::session::News;
use crate::token::Role;

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd<'a> {
    pub(crate) handles: &'a [String],
    pub(crate) role: Role,
    pub(crate) publishes: bool,
    /// Where their sessions begin.
    pub(crate) cursor: Cursor,
    /// Handshakes under way at once.
    pub(crate) at_once: u32,
}

/// How they came.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// The session of the first one; the others follow it.
    pub(crate) first: SessionIndex,
    /// From the first packet to the last welcome.
    pub(crate) took: Duration,
    /// From there until the last one had caught up.
    pub(crate) caught_up_in: Duration,
    /// Of each: from its first packet to its welcome.
    pub(crate) connected: Histogram<u64>,
    /// Of each: from its first packet until it had caught up.
    pub(crate) caught_up: Histogram<u64>,
    /// By session: the highest number of its producer.
    pub(crate) producers: Vec<u64>,
}

/// What is known on the way.
struct Progress {
    admission: Admission,
    begin: Instant,
    /// By session: when it began.
    began: Vec<Instant>,
    open: usize,
    caught_up: usize,
    lost: Option<Ended>,
}

impl Progress {
    fn take(&mut self, session: SessionIndex, now: Instant, news: &News) {
        let Some(of) = session.checked_sub(self.admission.first) else { return };
        match news {
            News::Open(welcome) => {
                self.open += 1;
                self.admission.took = now.saturating_duration_since(self.begin);
                self.admission.producers[of] = welcome.producer_highest;
                record(&mut self.admission.connected, now, self.began[of]);
            }
            News::CaughtUp => {
                self.caught_up += 1;
                self.admission.caught_up_in = now.saturating_duration_since(self.begin);
                record(&mut self.admission.caught_up, now, self.began[of]);
            }
            News::Ended(why) => self.lost = Some(why.clone()),
            News::Answer(_) | News::Message(_) | News::Receipt(_) | News::Urgent(_) => {}
        }
    }
}

impl Rig<'_> {
    /// Lets a crowd in, and waits until all have caught up. Tokens are signed before the first packet. What else happens is told.
    pub(crate) fn admit(
        &mut self,
        crowd: &Crowd<'_>,
        tell: &mut impl FnMut(SessionIndex, Instant, &News),
    ) -> Result<Admission, Failure> {
        let Crowd { role, publishes, cursor, at_once, .. } = *crowd;
        let greeting = |handle: &String| self.greeting(&Guest { handle, role, publishes, cursor: Some(cursor) });
        let greetings = crowd.handles.iter().map(greeting).collect::<Result<Vec<Greeting>, _>>()?;
        let (count, first, begin) = (greetings.len(), self.fleet.sessions(), self.clock.now());
        let admission = Admission {
            first,
            took: Duration::ZERO,
            caught_up_in: Duration::ZERO,
            connected: histogram(),
            caught_up: histogram(),
            producers: vec![0; count],
        };
        let began = Vec::with_capacity(count);
        let mut progress = Progress { admission, begin, began, open: 0, caught_up: 0, lost: None };
        let mut greetings = greetings.into_iter();
        while progress.caught_up < count {
            while progress.began.len() - progress.open < at_once as usize
                && let Some(greeting) = greetings.next()
            {
                progress.began.push(self.clock.now());
                self.fleet.connect(greeting)?;
            }
            let watch = &mut self.watch;
            self.fleet.turn(IDLE_WAIT, &mut |session, now, news| {
                if session >= first {
                    watch.note(now);
                }
                progress.take(session, now, &news);
                tell(session, now, &news);
            })?;
            self.check_lost(progress.lost.as_ref())?;
            self.look(progress.began.len(), &progress.admission.connected);
            let Progress { open, caught_up, .. } = progress;
            self.tell_count(if open < count { open } else { caught_up }, count);
            let waits_for = || format!("{} welcomes and {} catch-ups", count - open, open - caught_up.min(open));
            self.watch.check(self.clock.now(), waits_for)?;
        }
        self.look(count, &progress.admission.connected);
        Ok(progress.admission)
    }

    /// Opens the sessions of these handles' users, `at_once` at a time, each with this cursor, and waits until all have
    /// caught up from there. Answers the time from the first packet to the last welcome.
    pub(crate) fn connect_users(
        &mut self,
        handles: impl ExactSizeIterator<Item = String>,
        at_once: u32,
        cursor: Cursor,
    ) -> Result<Duration, Failure> {
        let handles: Vec<_> = handles.collect();
        let crowd = Crowd { handles: &handles, role: Role::User, publishes: false, cursor, at_once };
        self.admit(&crowd, &mut |_, _, _| {}).map(|admission| admission.took)
    }
}
