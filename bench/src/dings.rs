//! A shard with very many pending DINGs, of which one is due each millisecond.

use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply};
use carillon_core::input::{Audience, Authority, DingTerms, Input, Principal, QuietWindow, Request};
use carillon_core::record::{PlannedStep, Record};
use carillon_protocol::Frame;
use carillon_protocol::control::UserFind;
use carillon_protocol::ding::{DingConfirm, DingCreate};
use carillon_protocol::ids::{ConversationId, DingId, Seq, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{MessageKind, Outlet, QuietHours, Target};

use crate::group::attach;
use crate::{NOW, SHARD, payload};

/// Users who send the pending DINGs to each other, as many as each may have open and may wait for each.
const USERS: u32 = 1_000;

/// DINGs of one sender that are pending.
const DINGS_A_SENDER: u32 = 1_000;

/// How often the first step of each begins; what is left of 192 is for the others.
const TIMES: u16 = 190;

/// The most that can be pending.
pub const DINGS_MAX: u32 = USERS * DINGS_A_SENDER;

/// A shard, the users of its DINGs, and two that have none of them.
pub struct Dings {
    shard: Shard,
    effects: Effects,
    service: Principal,
    users: Vec<UserId>,
    count: u32,
    now: Timestamp,
    /// Steps that have begun.
    begun: u64,
    next_key: u64,
    /// Whether records are kept, to be taken.
    keeps: bool,
    records: Vec<Record>,
}

impl Dings {
    /// A fresh shard with `count` DINGs that are scheduled, each to one recipient. The first starts after a second, the next a
    /// millisecond later and so on; when the last has started, the first repeats.
    ///
    /// # Panics
    /// If `count` is 0 or above [`DINGS_MAX`], or the shard refuses something.
    pub fn of(count: u32) -> Self {
        let mut dings = Self::of_users(count, NOW, false);
        for number in 0..count {
            dings.schedule(number);
        }
        dings
    }

    /// The users, without a DING yet.
    fn of_users(count: u32, now: Timestamp, keeps: bool) -> Self {
        assert!((1..=DINGS_MAX).contains(&count));
        let service = Principal { tenant: TenantId(0), user: UserId(0), authority: Authority::Service };
        let (shard, effects) = (Shard::new(SHARD), Effects::default());
        let mut dings = Self {
            shard,
            effects,
            service,
            users: Vec::new(),
            count,
            now,
            begun: 0,
            next_key: 0,
            keeps,
            records: Vec::new(),
        };
        let Some(Reply::Attached(attached)) = dings.handle(attach("service", Authority::Service)) else {
            panic!("the service attaches");
        };
        (dings.service.tenant, dings.service.user) = (attached.tenant, attached.user);
        for user in 0..USERS + 2 {
            let find = UserFind { request: 1, create: 1, handle: format!("user-{user}").as_str().into() };
            let Frame::UserFound(found) = dings.ask(dings.service, Request::UserFind(find)) else {
                panic!("a service makes users");
            };
            dings.users.push(found.user);
        }
        dings
    }

    /// Makes `count` DINGs at this time, each due when `due` says, on a fresh shard; hands out each record that this takes.
    ///
    /// # Panics
    /// As [`Dings::of`].
    pub fn due_at(now: Timestamp, count: u32, due: impl Fn(u32) -> Timestamp, mut take: impl FnMut(&Record)) {
        let mut dings = Self::of_users(count, now, true);
        let mut drain = |dings: &mut Self| {
            dings.records.iter().for_each(&mut take);
            dings.records.clear();
        };
        drain(&mut dings);
        for number in 0..count {
            let (sender, recipient) = dings.pair(number);
            dings.create(sender, recipient, due(number));
            drain(&mut dings);
        }
    }

    fn pair(&self, number: u32) -> (UserId, UserId) {
        let (sender, nth) = (number % USERS, number / USERS);
        // Each of the others in turn, so that no more than may be wait for one.
        let recipient = (sender + 1 + nth % (USERS - 1)) % USERS;
        (self.users[sender as usize], self.users[recipient as usize])
    }

    fn schedule(&mut self, number: u32) {
        let (sender, recipient) = self.pair(number);
        let starts_at = Timestamp(self.now.0 + 1_000 + u64::from(number));
        self.create(sender, recipient, starts_at);
    }

    fn create(&mut self, sender: UserId, recipient: UserId, starts_at: Timestamp) -> DingId {
        let creation = self.creation_of(sender, recipient, starts_at);
        self.take_creation(creation)
    }

    fn creation_of(&mut self, sender: UserId, recipient: UserId, starts_at: Timestamp) -> Input {
        self.next_key += 1;
        let create = DingCreate {
            request: 1,
            key: self.next_key,
            target: Target::USERS,
            target_id: 0,
            starts_at,
            expires_after_ms: 0,
            quiet: QuietHours::HEED,
            kind: MessageKind::TEXT,
            conversation: ConversationId(0),
            seq: Seq(0),
            recipients: vec![recipient],
            steps: Vec::new(),
            payload: payload(),
        };
        let step = |outlet, after_ms, times| PlannedStep {
            outlet,
            heeds_quiet: 0,
            times,
            after_ms,
            // So that one of all is due each millisecond.
            repeat_every_ms: self.count.max(1_000),
        };
        // The last two never begin: the DING expires first.
        let steps = vec![step(Outlet::APP, 0, TIMES), step(Outlet::SMS, u32::MAX, 1), step(Outlet::PHONE, u32::MAX, 1)];
        let terms = DingTerms {
            steps,
            quiet: QuietWindow::NONE,
            expires_after_ms: 30 * 86_400_000,
            audience: Audience::Tenant,
        };
        let who = Principal { user: sender, authority: Authority::User, ..self.service };
        Input::Request { who, request: Request::DingCreate(create, Ok(terms)) }
    }

    /// One more DING is made.
    ///
    /// # Panics
    /// If it is refused.
    pub fn take_creation(&mut self, creation: Input) -> DingId {
        match self.handle(creation) {
            Some(Reply::Frame(Frame::DingCreated(created))) => created.ding,
            other => panic!("a DING is made: {other:?}"),
        }
    }

    /// One tick at the time of the last; how many records it made. None, after a tick that fired all that was due.
    pub fn tick(&mut self) -> usize {
        self.shard.handle(self.now, Input::Tick, &mut self.effects);
        let records = self.effects.records.len();
        self.clear();
        records
    }

    /// One tick when the next DING is due; how many records it made: one. When all steps have begun, it makes everything anew
    /// first, once in 190 ticks a DING.
    ///
    /// # Panics
    /// If none is pending.
    pub fn tick_when_due(&mut self) -> usize {
        if self.begun == u64::from(TIMES) * u64::from(self.count) {
            *self = Self::of(self.count);
        }
        self.begun += 1;
        self.now = self.shard.next_timer().expect("DINGs are pending");
        self.tick()
    }

    /// One more DING, from one user without any to another, who confirms it. Once the sender has 10,000 that are over, each
    /// new one takes the oldest's place.
    ///
    /// # Panics
    /// If it is refused.
    pub fn create_and_confirm(&mut self) {
        let creation = self.creation();
        let ding = self.take_creation(creation);
        let confirmation = self.confirmation(ding);
        self.confirm(confirmation);
    }

    /// One more DING, from one user without any to another, for [`Dings::take_creation`].
    pub fn creation(&mut self) -> Input {
        let [.., sender, recipient] = self.users[..] else { panic!("there are more users than two") };
        self.creation_of(sender, recipient, Timestamp(0))
    }

    /// What confirms a DING of [`Dings::creation`], for [`Dings::confirm`].
    pub fn confirmation(&self, ding: DingId) -> Input {
        let [.., recipient] = self.users[..] else { panic!("there are users") };
        let who = Principal { user: recipient, authority: Authority::User, ..self.service };
        Input::Request { who, request: Request::DingConfirm(DingConfirm { request: 1, ding }) }
    }

    /// The recipient confirms.
    ///
    /// # Panics
    /// If that is refused.
    pub fn confirm(&mut self, confirmation: Input) {
        let reply = self.handle(confirmation);
        assert!(matches!(reply, Some(Reply::Frame(Frame::DingConfirmed(_)))), "{reply:?}");
    }

    fn ask(&mut self, who: Principal, request: Request) -> Frame {
        match self.handle(Input::Request { who, request }) {
            Some(Reply::Frame(frame)) => frame,
            other => panic!("a request is answered by a frame: {other:?}"),
        }
    }

    fn handle(&mut self, input: Input) -> Option<Reply> {
        self.shard.handle(self.now, input, &mut self.effects);
        let reply = self.effects.reply.take();
        self.clear();
        reply
    }

    /// What an input brought is let go of as the sequencer does after a commit.
    fn clear(&mut self) {
        if self.keeps {
            self.records.append(&mut self.effects.records);
        }
        self.effects.records.clear();
        self.effects.signals.clear();
    }
}
