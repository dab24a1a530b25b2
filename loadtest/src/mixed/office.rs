//! Everybody at the office, and what is due to happen there.

use std::collections::HashMap;
use std::time::Instant;

use carillon_protocol::Frame;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::session::Cursor;
use hdrhistogram::Histogram;

use super::person::{MARK_REQUEST, Person};
use super::{Plan, SERVICE};
use crate::admission::Admission;
use crate::authors::{Authors, Writing};
use crate::channel::Purpose;
use crate::dinger::Dinger;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::latency::{histogram, record};
use crate::publisher::{Place, index_in};
use crate::pushes::{Confirming, Pushes};
use crate::rig::{Guest, Rig};
use crate::schedule::Schedule;
use crate::session::News;
use crate::token::Role;

/// Who drops next is so many further on in the list: a prime, so that everybody's turn comes.
const STRIDE: usize = 7_919;

/// Places of an author, in turn: a hundred, so that a percentage comes out even.
const PLACES: u32 = 100;

/// How far the places of one author lie behind those of the one before: no divisor of a hundred.
const APART: u32 = 37;

/// See the module.
pub(super) struct Office {
    run: u64,
    handles: Vec<String>,
    users: HashMap<UserId, usize>,
    people: Vec<Person>,
    /// By session of the fleet: whose it is.
    owners: Vec<Option<usize>>,
    pub(super) authors: Authors,
    pub(super) dinger: Dinger,
    pub(super) pushes: Pushes,
    /// When somebody drops, how often so far, and how often in all.
    drops: Schedule,
    pub(super) dropped: u32,
    drops_max: u32,
    /// People with something to mark or to confirm: may name one twice.
    busy: Vec<usize>,
    /// By author: whom a message of each place is for, the author included.
    audience: Vec<Vec<u32>>,
    pub(super) published: Histogram<u64>,
    pub(super) delivered: Histogram<u64>,
    pub(super) marked: Histogram<u64>,
    pub(super) returned: Histogram<u64>,
    pub(super) acked: u64,
    pub(super) arrived: u64,
    pub(super) misplaced: u64,
    pub(super) failed: Option<String>,
}

impl Office {
    pub(super) fn new(
        plan: &Plan,
        (writing, dinger): (Writing, Dinger),
        (handles, users): (Vec<String>, Vec<UserId>),
        groups: Vec<ConversationId>,
        (admission, cursor): (&Admission, Cursor),
    ) -> Self {
        let group_size = plan.group_size as usize;
        let count = users.len();
        // Colleagues write to the one beside them; without one, to themselves alone: to their group.
        let other = |of: usize| Some(of ^ 1).filter(|other| *other < count);
        let is_direct = |nth: u32| (nth + 1) * plan.direct_percent / PLACES > nth * plan.direct_percent / PLACES;
        let place = |of: usize, nth: u32| match other(of).filter(|_| is_direct(nth)) {
            Some(other) => (Place::User(users[other]), 2),
            None => {
                let group = of / group_size;
                let members = group_size.min(count - group * group_size);
                (Place::Conversation(groups[group]), u32::try_from(members).unwrap_or(u32::MAX))
            }
        };
        // Each begins elsewhere, or all would write to their groups in one second and to each other in the next.
        let begin = |of: usize| u32::try_from(of).unwrap_or(0).wrapping_mul(APART) % PLACES;
        let places = |of: usize| (0..PLACES).map(move |nth| place(of, (begin(of) + nth) % PLACES));
        let sessions = admission.producers.iter().enumerate().map(|(nth, highest)| (admission.first + nth, *highest));
        let authors = Authors::new(writing, sessions, |of| places(of).map(|(place, _)| place).collect());
        let mut owners = vec![None; admission.first];
        owners.extend((0..count).map(Some));
        Self {
            run: writing.run,
            audience: (0..count).map(|of| places(of).map(|(_, people)| people).collect()).collect(),
            people: (0..count).map(|of| Person::new(admission.first + of, cursor)).collect(),
            users: users.iter().copied().zip(0..).collect(),
            handles,
            owners,
            authors,
            pushes: Pushes::new(writing.run, Schedule::per_second(writing.start, plan.ding_rate)),
            dinger,
            drops: Schedule::per_second(writing.start, plan.reconnect_rate.max(1)),
            dropped: 0,
            drops_max: if plan.reconnect_rate == 0 { 0 } else { u32::MAX },
            busy: Vec::new(),
            published: histogram(),
            delivered: histogram(),
            marked: histogram(),
            returned: histogram(),
            acked: 0,
            arrived: 0,
            misplaced: 0,
            failed: None,
        }
    }

    /// Nothing is due from this moment on.
    pub(super) fn stop_at(&mut self, end: Instant) {
        self.authors.stop_at(end);
        self.dinger.stop_at(end);
        self.drops_max = self.drops_max.min(self.drops.count_until(end));
    }

    /// When the next thing is to be done.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let drop = (self.dropped < self.drops_max).then(|| self.drops.due_at(self.dropped));
        [self.authors.next_due(), self.dinger.next_due(), drop].into_iter().flatten().min()
    }

    /// Deliveries to others that are due before a moment, on average of the places.
    pub(super) fn due_until(&self, now: Instant) -> u64 {
        let others: u64 = self.audience.iter().flatten().map(|people| u64::from(people - 1)).sum();
        let places = self.audience.iter().map(Vec::len).sum::<usize>().max(1) as u64;
        self.authors.due_until(now) * others / places
    }

    /// Deliveries that what was sent must come to, those to the authors' own devices included.
    pub(super) fn expected(&self) -> u64 {
        let of = |(author, places): (usize, &Vec<u32>)| {
            let sent = self.authors.sent_by(author) as usize;
            let whole: u64 = places.iter().map(|people| u64::from(*people)).sum();
            let rest: u64 = places.iter().take(sent % places.len()).map(|people| u64::from(*people)).sum();
            whole * (sent / places.len()) as u64 + rest
        };
        self.audience.iter().enumerate().map(of).sum()
    }

    /// Does what is due.
    pub(super) fn act(&mut self, now: Instant, rig: &mut Rig<'_>) -> Result<(), Failure> {
        self.authors.send_due(now, &mut rig.fleet);
        while let Some((_, frame)) = self.dinger.poll_due(now) {
            rig.fleet.send(SERVICE, Purpose::Control, frame);
        }
        for of in std::mem::take(&mut self.busy) {
            let person = &mut self.people[of];
            if person.away_since.is_some() {
                continue;
            }
            while let Some(frame) = person.confirming.poll() {
                rig.fleet.send(person.session, Purpose::Control, frame);
            }
            if person.is_paused(now) {
                self.busy.push(of);
            } else if let Some(frame) = person.poll_mark() {
                rig.fleet.send(person.session, Purpose::Control, frame);
            }
        }
        while self.dropped < self.drops_max && self.drops.due_at(self.dropped) <= now {
            let due = self.drops.due_at(self.dropped);
            self.dropped += 1;
            self.drop_and_return(rig, due)?;
        }
        Ok(())
    }

    /// Somebody who is there loses the connection, and comes back at once. If nobody is, nobody does.
    fn drop_and_return(&mut self, rig: &mut Rig<'_>, due: Instant) -> Result<(), Failure> {
        let count = self.people.len();
        let first = (self.dropped as usize).wrapping_mul(STRIDE) % count;
        let Some(of) = (first..first + count).map(|at| at % count).find(|at| self.people[*at].away_since.is_none())
        else {
            self.dropped -= 1;
            self.drops_max = self.dropped;
            return Ok(());
        };
        let person = &mut self.people[of];
        rig.fleet.leave(person.session);
        self.owners[person.session] = None;
        self.authors.leave(of);
        person.away_since = Some(due);
        person.mark_again();
        person.confirming = Confirming::default();
        let handle = &self.handles[of];
        let guest = Guest { handle, role: Role::User, publishes: true, cursor: Some(person.cursor) };
        person.session = rig.fleet.connect(rig.greeting(&guest)?)?;
        self.owners.resize(person.session + 1, None);
        self.owners[person.session] = Some(of);
        Ok(())
    }

    /// Takes what a session tells; answers whether anybody has waited for it.
    pub(super) fn take(&mut self, session: SessionIndex, now: Instant, news: News) -> bool {
        if session == SERVICE {
            return self.take_service(now, news);
        }
        let Some(of) = self.owners.get(session).copied().flatten() else { return false };
        match news {
            News::Message(deliver) => self.take_message(of, now, &deliver),
            News::Receipt(frame) => {
                self.people[of].take_receipt(&frame);
                false
            }
            News::Urgent(frame) => {
                self.pushes.take(now, &mut self.people[of].confirming, frame);
                self.busy.push(of);
                true
            }
            News::Answer(frame) => self.take_answer(of, now, frame),
            News::Open(_) => {
                self.authors.come_back(of, session);
                true
            }
            News::CaughtUp => {
                if let Some(since) = self.people[of].away_since.take() {
                    record(&mut self.returned, now, since);
                    self.busy.push(of);
                }
                true
            }
            News::Ended(why) => {
                self.failed = Some(format!("a session is lost: {why}"));
                false
            }
        }
    }

    fn take_service(&mut self, now: Instant, news: News) -> bool {
        match news {
            News::Answer(frame) | News::Urgent(frame) => {
                self.failed = self.dinger.take(now, 0, frame).err().or(self.failed.take());
                true
            }
            News::Ended(why) => {
                self.failed = Some(format!("the service is lost: {why}"));
                false
            }
            News::Open(_) | News::CaughtUp | News::Message(_) | News::Receipt(_) => false,
        }
    }

    fn take_message(&mut self, of: usize, now: Instant, deliver: &Deliver) -> bool {
        let Some(index) = index_in(&deliver.payload, self.run) else { return false };
        let Some(author) = self.users.get(&deliver.author).copied() else { return false };
        let person = &mut self.people[of];
        if !person.take_message(deliver) {
            self.misplaced += 1;
            return true;
        }
        self.arrived += 1;
        if author != of {
            record(&mut self.delivered, now, self.authors.due_at(author, index));
            person.has_read(deliver, now);
            self.busy.push(of);
        }
        true
    }

    fn take_answer(&mut self, of: usize, now: Instant, frame: Frame) -> bool {
        match frame {
            Frame::Marked(_) => {
                if let Some(since) = self.people[of].marked() {
                    record(&mut self.marked, now, since);
                }
            }
            Frame::Error(error) if error.request == MARK_REQUEST && error.code == ErrorCode::BUSY => {
                self.people[of].refused(now);
            }
            Frame::Error(error) if error.request == MARK_REQUEST => {
                self.failed = Some(format!("the broker refused a mark: {} ({})", error.code, error.text));
            }
            Frame::DingConfirmed(_) | Frame::Error(_) => {
                self.pushes.take(now, &mut self.people[of].confirming, frame);
            }
            answer => match self.authors.take(of, now, &answer) {
                Ok(Some(index)) => {
                    self.acked += 1;
                    record(&mut self.published, now, self.authors.due_at(of, index));
                }
                Ok(None) => {}
                Err(why) => self.failed = Some(why),
            },
        }
        self.busy.push(of);
        true
    }

    /// Whether nothing more is to come.
    pub(super) fn is_done(&self) -> bool {
        self.authors.are_done()
            && self.dinger.is_done()
            && self.dropped >= self.drops_max
            && self.arrived >= self.expected()
            && self.people.iter().all(Person::is_idle)
    }
}
