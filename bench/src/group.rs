//! A shard with one group in it, driven as the sequencer drives it: one input, its effects, the next.

use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply};
use carillon_core::input::{Attach, Authority, Input, Principal, Request, Written};
use carillon_core::moved::MovedQuestion;
use carillon_core::record::Record;
use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreate, MembersAdd, UserFind};
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId, Seq, TenantId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role, StatusList};
use carillon_protocol::limits::MEMBERS_A_REQUEST_MAX;
use carillon_protocol::receipt::{MarkRead, ReadStatus, ReadStatusReply};

use crate::{NOW, SHARD, publish, received};

const PRODUCER: ProducerId = ProducerId(1);

/// A shard, a service that publishes, and a group of so many members, of whom the service is one.
pub struct Group {
    shard: Shard,
    effects: Effects,
    service: Principal,
    conversation: ConversationId,
    members: Vec<UserId>,
    /// Messages published so far: their highest number and, because nobody else publishes, their highest seq.
    published: u64,
}

impl Group {
    /// A fresh shard with a group of `members`: the service that owns it, and users.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn of(members: u32) -> Self {
        let mut group = Self::of_service();
        group.make_users(members - 1);
        group.add_all();
        group
    }

    /// As [`Group::of`], each member added after another message: no two of them joined at one seq.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn of_joined_apart(members: u32) -> Self {
        let mut group = Self::of_service();
        group.make_users(members - 1);
        for member in group.members.clone() {
            group.publish();
            group.add(group.conversation, &[member]);
        }
        group
    }

    /// A group of the service alone.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn of_service() -> Self {
        let service = Principal { tenant: TenantId(0), user: UserId(0), authority: Authority::Service };
        let mut group = Self {
            shard: Shard::new(SHARD),
            effects: Effects::default(),
            service,
            conversation: ConversationId(0),
            members: Vec::new(),
            published: 0,
        };
        let Some(Reply::Attached(attached)) = group.handle(attach("service", Authority::Service)) else {
            panic!("the service attaches");
        };
        (group.service.tenant, group.service.user) = (attached.tenant, attached.user);
        group.conversation = group.create();
        group
    }

    /// So many users more, who are to be members and are none yet.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn make_users(&mut self, users: u32) {
        for index in 0..users {
            let find = UserFind { request: 1, create: 1, handle: handle(index).as_str().into() };
            let Frame::UserFound(found) = self.ask(Request::UserFind(find)) else { panic!("a service makes users") };
            self.members.push(found.user);
        }
    }

    /// Makes all of the users members, as many at a time as a request may name.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn add_all(&mut self) {
        let members = self.members.clone();
        for some in members.chunks(MEMBERS_A_REQUEST_MAX) {
            self.add(self.conversation, some);
        }
    }

    /// Another group, of all of the users.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn add_all_to_another(&mut self) {
        self.conversation = self.create();
        self.add_all();
    }

    /// Puts the first member into so many more groups.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn enrol_first(&mut self, groups: u32) {
        let first = self.members[0];
        for _ in 0..groups {
            let conversation = self.create();
            self.add(conversation, &[first]);
        }
    }

    /// Present members, the service apart.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The service publishes one message.
    ///
    /// # Panics
    /// If it is refused.
    pub fn publish(&mut self) {
        self.published += 1;
        let publish = publish(self.published, self.conversation);
        let reply = self.handle(Input::Publish { who: self.service, producer: Some(PRODUCER), publish });
        assert!(matches!(reply, Some(Reply::Frame(Frame::Published(_)))), "{reply:?}");
    }

    /// The service's next message as it comes from the wire, for [`Group::handle`]: its payload is a slice of what was received.
    pub fn next_publish(&mut self) -> Input {
        self.published += 1;
        let publish = received(&publish(self.published, self.conversation));
        Input::Publish { who: self.service, producer: Some(PRODUCER), publish }
    }

    /// As [`Group::publish`], for the record that goes to the journal.
    ///
    /// # Panics
    /// If it is refused.
    pub fn publish_record(&mut self) -> Record {
        self.published += 1;
        let publish = publish(self.published, self.conversation);
        let input = Input::Publish { who: self.service, producer: Some(PRODUCER), publish };
        self.shard.handle(NOW, input, &mut self.effects);
        let record = self.effects.records.pop().expect("a message is one record");
        self.effects = Effects::default();
        record
    }

    /// A member reads all that was published.
    ///
    /// # Panics
    /// If there is no such member, or the mark is refused.
    pub fn mark_read(&mut self, member: usize) {
        self.mark_read_up_to(member, self.published);
    }

    /// As [`Group::mark_read`], up to a message.
    ///
    /// # Panics
    /// If there is no such member, or the mark is refused.
    pub fn mark_read_up_to(&mut self, member: usize, up_to: u64) {
        let mark = self.mark(member, up_to);
        let reply = self.handle(mark);
        assert!(matches!(reply, Some(Reply::Frame(Frame::Marked(_)))), "{reply:?}");
    }

    /// A member's mark up to a message, for [`Group::handle`].
    ///
    /// # Panics
    /// If there is no such member.
    pub fn mark(&self, member: usize, up_to: u64) -> Input {
        let who = Principal { user: self.members[member], authority: Authority::User, ..self.service };
        let mark = MarkRead { request: 1, conversation: self.conversation, up_to: Seq(up_to) };
        Input::Request { who, request: Request::MarkRead(mark) }
    }

    /// The highest seq.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Where the journal would be.
    pub fn head(&self) -> Position {
        self.shard.head()
    }

    /// What the service is told of what has moved since a position: so many updates.
    pub fn moved(&self, since: Position) -> usize {
        let Principal { tenant, user, .. } = self.service;
        let question = MovedQuestion { tenant, user, since, updates_max: 256, named_members_max: 1_000 };
        self.shard.moved(question).updates.len()
    }

    /// So many members at a time read up to another message, each published for them: seqs that the group's watermarks are at.
    /// Returns how many there are.
    ///
    /// # Panics
    /// If the shard refuses something.
    pub fn read_apart(&mut self, members_a_seq: usize) -> u64 {
        for first in (0..self.members()).step_by(members_a_seq) {
            self.publish();
            for member in first..self.members().min(first + members_a_seq) {
                self.mark_read(member);
            }
        }
        self.published
    }

    /// How many have read a message, and how many have not, the service apart.
    ///
    /// # Panics
    /// If there is no such message.
    pub fn read_counts(&mut self, seq: u64) -> (u32, u32) {
        let reply = self.read_status(seq, StatusList::COUNTS);
        (reply.read, reply.unread)
    }

    /// The first page of those who have read the newest message.
    ///
    /// # Panics
    /// If there is no message.
    pub fn page_of_readers(&mut self) -> ReadStatusReply {
        self.read_status(self.published, StatusList::DONE)
    }

    fn read_status(&mut self, seq: u64, list: StatusList) -> ReadStatusReply {
        let (conversation, seq, from) = (self.conversation, Seq(seq), UserId(0));
        let status = ReadStatus { request: 1, conversation, seq, list, from, limit: 1_000 };
        let written = Written { author: self.service.user, position: Position(1) };
        let request = Request::ReadStatus(status, Some(written));
        match self.handle(Input::Request { who: self.service, request }) {
            Some(Reply::ReadPage(page)) => page.reply,
            other => panic!("the author may ask: {other:?}"),
        }
    }

    /// A member's device attaches: for the first time, if it has not before.
    ///
    /// # Panics
    /// If it is refused.
    pub fn attach(&mut self, member: u32) {
        let reply = self.handle(attach(&handle(member), Authority::User));
        assert!(matches!(reply, Some(Reply::Attached(_))), "{reply:?}");
    }

    fn create(&mut self) -> ConversationId {
        let create = ConversationCreate {
            request: 1,
            kind: ConversationKind::GROUP,
            post_policy: PostPolicy(0),
            history: HistoryPolicy(0),
            receipts: ReceiptPolicy(0),
            name: "".into(),
            members: Vec::new(),
        };
        match self.ask(Request::ConversationCreate(create)) {
            Frame::ConversationCreated(created) => created.conversation,
            other => panic!("a service makes groups: {other:?}"),
        }
    }

    fn add(&mut self, conversation: ConversationId, members: &[UserId]) {
        let add = MembersAdd { request: 1, conversation, role: Role::MEMBER, members: members.to_vec() };
        let reply = self.ask(Request::MembersAdd(add));
        assert!(matches!(reply, Frame::Done(_)), "{reply:?}");
    }

    fn ask(&mut self, request: Request) -> Frame {
        match self.handle(Input::Request { who: self.service, request }) {
            Some(Reply::Frame(frame)) => frame,
            other => panic!("a request is answered by a frame: {other:?}"),
        }
    }

    /// One input; what it brought is let go of as the sequencer does after a commit.
    pub fn handle(&mut self, input: Input) -> Option<Reply> {
        self.shard.handle(NOW, input, &mut self.effects);
        self.effects.records.clear();
        self.effects.signals.clear();
        self.effects.reply.take()
    }
}

fn handle(member: u32) -> String {
    format!("member-{member}")
}

pub(crate) fn attach(handle: &str, authority: Authority) -> Input {
    Input::Attach(Attach {
        tenant: "bench".into(),
        handle: handle.into(),
        authority,
        device: DeviceId(1),
        producer: Some(PRODUCER),
    })
}
