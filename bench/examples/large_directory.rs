//! Makes the journal of a data directory with many messages in many conversations, as a broker would have written it, for
//! measuring what starting, catching up and verifying cost:
//!
//! ```sh
//! cargo run --release -p carillon-bench --example large_directory -- DIR [MESSAGES] [CONVERSATIONS]
//! ```
//!
//! 20 services own the conversations, 10,000 users are their members, four in each; the user `heavy` is in 1,000 of them.

use std::path::PathBuf;
use std::sync::Arc;

use carillon::journal::{Draft, FileStorage, Journal, JournalOptions, SegmentJournal, open};
use carillon_bench::{NOW, SHARD, publish};
use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply};
use carillon_core::input::{Attach, Authority, Input, Principal, Request};
use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreate, UserFind};
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy};

/// Who owns the conversations: a user may be in 10,000 of them.
const SERVICES: usize = 20;
const USERS: u32 = 10_000;
const HEAVY: usize = 1_000;
const PRODUCER: ProducerId = ProducerId(1);

/// Records of a batch, as a busy broker has them.
const BATCH_RECORDS: usize = 1_000;

struct Maker {
    shard: Shard,
    journal: SegmentJournal,
    draft: Draft,
    effects: Effects,
}

impl Maker {
    fn handle(&mut self, input: Input) -> Reply {
        self.shard.handle(NOW, input, &mut self.effects);
        for record in self.effects.records.drain(..) {
            self.draft.push(|private, frame| record.encode(private, frame));
        }
        self.effects.signals.clear();
        if self.draft.is_full() || self.draft.count() >= BATCH_RECORDS {
            self.commit();
        }
        self.effects.reply.take().expect("it is answered")
    }

    fn commit(&mut self) {
        if !self.draft.is_empty() {
            let next = Draft::new(self.draft.next_position());
            self.journal.commit(std::mem::replace(&mut self.draft, next)).expect("the disk takes it");
        }
    }

    fn ask(&mut self, who: Principal, request: Request) -> Frame {
        match self.handle(Input::Request { who, request }) {
            Reply::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    fn attach(&mut self, handle: &str, authority: Authority) -> Principal {
        let attach = Attach {
            tenant: "dev".into(),
            handle: handle.into(),
            authority,
            device: DeviceId(1),
            producer: Some(PRODUCER),
        };
        match self.handle(Input::Attach(attach)) {
            Reply::Attached(attached) => Principal { tenant: attached.tenant, user: attached.user, authority },
            other => panic!("{other:?}"),
        }
    }
}

#[allow(clippy::print_stdout, reason = "it tells what it made")]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("the first argument is the directory"));
    let messages: u64 = arguments.next().map_or(10_000_000, |text| text.parse().expect("a number"));
    let conversations: usize = arguments.next().map_or(100_000, |text| text.parse().expect("a number"));
    let storage = Arc::new(FileStorage::open(directory.join("journal")).expect("a directory"));
    let opened = open(storage, JournalOptions::new(SHARD), Position(0), &mut |_| Ok(())).expect("a fresh journal");
    assert_eq!(opened.journal.head(), Position(0), "the directory has a journal already");
    let draft = Draft::new(Position(1));
    let mut maker = Maker { shard: Shard::new(SHARD), journal: opened.journal, draft, effects: Effects::default() };

    let services: Vec<_> = (0..SERVICES).map(|n| maker.attach(&format!("service-{n}"), Authority::Service)).collect();
    let users = make_users(&mut maker, services[0]);
    let heavy = maker.attach("heavy", Authority::User).user;
    let mut groups = Vec::new();
    for nth in 0..conversations {
        let mut members: Vec<_> = (0..4).map(|k| users[(nth * 7_919 + k * 104_729) % users.len()]).collect();
        members.extend(nth.is_multiple_of((conversations / HEAVY).max(1)).then_some(heavy));
        groups.push(make_group(&mut maker, services[nth % SERVICES], members));
    }
    maker.commit();
    println!("{} users, {} conversations: {} records", USERS + 21, groups.len(), maker.journal.head());
    let mut numbers = [0u64; SERVICES];
    for nth in 0..messages {
        // A prime step: neighbours in the journal are of different conversations.
        let at = usize::try_from(nth.wrapping_mul(7_919) % groups.len() as u64).expect("an index");
        let service = at % SERVICES;
        numbers[service] += 1;
        let publish = publish(numbers[service], groups[at]);
        let input = Input::Publish { who: services[service], producer: Some(PRODUCER), publish };
        let reply = maker.handle(input);
        assert!(matches!(reply, Reply::Frame(Frame::Published(_))), "{reply:?}");
    }
    maker.commit();
    println!("{messages} messages: {} records", maker.journal.head());
}

fn make_users(maker: &mut Maker, service: Principal) -> Vec<UserId> {
    let mut users = Vec::new();
    for nth in 0..USERS {
        let find = UserFind { request: 1, create: 1, handle: format!("user-{nth}").as_str().into() };
        let Frame::UserFound(found) = maker.ask(service, Request::UserFind(find)) else { panic!("refused") };
        users.push(found.user);
    }
    users
}

fn make_group(maker: &mut Maker, owner: Principal, members: Vec<UserId>) -> ConversationId {
    let (kind, post_policy, history) = (ConversationKind::GROUP, PostPolicy(0), HistoryPolicy(0));
    let create = ConversationCreate {
        request: 1,
        kind,
        post_policy,
        history,
        receipts: ReceiptPolicy(0),
        name: "".into(),
        members,
    };
    match maker.ask(owner, Request::ConversationCreate(create)) {
        Frame::ConversationCreated(created) => created.conversation,
        other => panic!("{other:?}"),
    }
}
