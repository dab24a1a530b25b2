//! Producers as good clients: numbers that rise, a window of what is unsettled, repeats under the same number.

use std::collections::BTreeMap;

use bytes::Bytes;
use carillon_core::effect::Reply;
use carillon_core::input::{Authority, Input, Principal};
use carillon_protocol::Frame;
use carillon_protocol::ids::{ConversationId, Position, ProducerId, Seq, TenantId, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::{Publish, Published};

use crate::sim::rng::Rng;

/// So many results are kept in the window although they came, so that acknowledged publishes are repeated too.
const LAG: u64 = 12;

/// Of a payload, below.
const PAYLOAD_BYTES_BELOW: usize = 700;

/// One of them: a user with one producer and one session.
pub(super) struct Person {
    /// Number of the session, device and producer.
    pub(super) number: u32,
    /// Once it is known.
    pub(super) user: Option<UserId>,
    /// The next number to be given.
    next: u64,
    /// Everything from `low` on: whom to, and the result if there was one.
    window: BTreeMap<u64, (u64, Option<Published>)>,
    /// Repeats of what has a result, in this life.
    pub(super) repeats: u64,
}

/// A result that came for the first time.
pub(super) struct Acknowledged {
    pub(super) place: (ConversationId, Seq, Position),
    pub(super) author: UserId,
    pub(super) payload: Vec<u8>,
}

impl Person {
    pub(super) fn new(number: u32) -> Self {
        Self { number, user: None, next: 1, window: BTreeMap::new(), repeats: 0 }
    }

    pub(super) fn handle(&self) -> String {
        format!("person-{}", self.number)
    }

    /// The lowest number that it may still repeat.
    fn low(&self) -> u64 {
        self.window.keys().next().copied().unwrap_or(self.next)
    }

    /// A new publish to the user of this id.
    pub(super) fn publish(&mut self, to: u64) -> Input {
        let number = self.next;
        self.next += 1;
        self.window.insert(number, (to, None));
        self.input(number)
    }

    /// Everything in the window again, in the order of its numbers.
    pub(super) fn repeat(&mut self) -> Vec<Input> {
        self.repeats += self.window.values().filter(|(_, result)| result.is_some()).count() as u64;
        let numbers: Vec<_> = self.window.keys().copied().collect();
        numbers.into_iter().map(|number| self.input(number)).collect()
    }

    fn input(&self, number: u64) -> Input {
        let (target_id, _) = self.window[&number];
        let user = self.user.expect("it is attached");
        let who = Principal { tenant: TenantId(0), user, authority: Authority::User };
        let payload = Bytes::from(payload(self.number, number));
        let (target, kind) = (Target::USER, MessageKind::TEXT);
        let publish = Publish { number, low: self.low(), target, target_id, kind, payload };
        Input::Publish { who, producer: Some(ProducerId(u64::from(self.number))), publish }
    }

    /// Takes a reply. The result is new, or it must be what it was.
    pub(super) fn take(&mut self, reply: Reply) -> Result<Option<Acknowledged>, String> {
        let published = match reply {
            Reply::Frame(Frame::Published(published)) => published,
            Reply::Attached(attached) => {
                self.user = Some(attached.user);
                return Ok(None);
            }
            Reply::Frame(_) => return Ok(None),
            other => return Err(format!("person {} is answered {other:?}", self.number)),
        };
        let number = published.number;
        let (_, known) = self.window.get_mut(&number).ok_or(format!("a result for {number}, which is settled"))?;
        let place = |published: &Published| (published.conversation, published.seq, published.position);
        if let Some(known) = known {
            let same = place(known) == place(&published);
            return if same { Ok(None) } else { Err(format!("{known:?} became {published:?}")) };
        }
        *known = Some(published.clone());
        let author = self.user.expect("it is attached");
        let acknowledged = Acknowledged { place: place(&published), author, payload: payload(self.number, number) };
        while self.window.len() as u64 > LAG
            && self.window.first_key_value().is_some_and(|(_, (_, done))| done.is_some())
        {
            self.window.pop_first();
        }
        Ok(Some(acknowledged))
    }
}

/// What a person's publish of this number holds.
fn payload(person: u32, number: u64) -> Vec<u8> {
    let mut rng = Rng::new((u64::from(person) << 40) ^ number);
    (0..rng.below(PAYLOAD_BYTES_BELOW)).map(|_| rng.next().to_le_bytes()[3]).collect()
}
