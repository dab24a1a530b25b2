//! A storm of read marks keeps nobody else waiting: whatever number of them is queued, a step of the sequencer handles few,
//! and all else that has come.

use std::sync::Arc;

use carillon::clock::SystemClock;
use carillon::dings::DingPolicies;
use carillon::index::Index;
use carillon::journal::{JournalOptions, MemoryStorage, open};
use carillon::sequencer::ring::ring;
use carillon::sequencer::{
    self, EdgeId, Flow, MARKS_A_BATCH_MAX, Mail, NoOutlets, Origin, Sequencer, Submission, ToEdge, Wake, mailbox,
    submissions,
};
use carillon_core::Shard;
use carillon_core::effect::Reply;
use carillon_core::input::{Attach, Authority, Input, Principal, Request};
use carillon_protocol::Frame;
use carillon_protocol::control::UserLookup;
use carillon_protocol::ids::{ConversationId, DeviceId, Position, Seq, ShardId, UserId};
use carillon_protocol::receipt::MarkRead;
use carillon_transport::LinkKey;

const SHARD: ShardId = ShardId(0);

struct Unheard;

impl Wake for Unheard {
    fn wake(&self) {}
}

fn input(input: Input) -> Submission {
    let from = Origin { edge: EdgeId(0), link: LinkKey { index: 0, generation: 0 } };
    Submission::Input { from, input }
}

fn mark(who: Principal) -> Submission {
    let mark = MarkRead { request: 1, conversation: ConversationId(1), up_to: Seq(1) };
    input(Input::Request { who, request: Request::MarkRead(mark) })
}

#[test]
fn a_request_behind_a_storm_of_marks_is_answered_in_the_same_step() {
    let opened = open(Arc::new(MemoryStorage::new()), JournalOptions::new(SHARD), Position(0), &mut |_| Ok(()));
    let journal = opened.expect("a fresh journal").journal;
    let (ring, _) = ring(64, 1 << 20);
    let (submit, queues) = submissions();
    let storm = 3 * MARKS_A_BATCH_MAX;
    let (mailbox, Mail { replies, marked, .. }) = mailbox(Arc::new(Unheard), [8, storm, 8]);
    let mut sequencer = Sequencer::new(sequencer::Parts {
        shard: Shard::new(SHARD),
        journal,
        ring,
        index: Arc::new(Index::new()),
        clock: Arc::new(SystemClock),
        queues,
        edges: vec![mailbox],
        outlets: Box::new(NoOutlets),
        policies: Arc::new(DingPolicies::default()),
    });
    let attach = Attach {
        tenant: "acme".into(),
        handle: "ann".into(),
        authority: Authority::User,
        device: DeviceId(1),
        producer: None,
    };
    submit.control(input(Input::Attach(attach))).expect("there is room");
    sequencer.step().expect("the disk works");
    let Ok(ToEdge::Reply { reply: Reply::Attached(attached), .. }) = replies.try_recv() else {
        panic!("the session is attached")
    };
    let who = Principal { tenant: attached.tenant, user: attached.user, authority: Authority::User };

    for _ in 0..storm {
        submit.mark(mark(who)).expect("there is room");
    }
    let lookup = UserLookup { request: 9, users: vec![UserId(0)] };
    let request = Request::UserLookup(lookup);
    submit.control(input(Input::Request { who, request })).expect("there is room");
    sequencer.step().expect("the disk works");
    assert!(matches!(replies.try_recv(), Ok(ToEdge::Reply { reply: Reply::Frame(Frame::UserHandles(_)), .. })));
    assert_eq!(marked.len(), MARKS_A_BATCH_MAX, "the others wait");

    submit.stop();
    while sequencer.step().expect("the disk works") == Flow::Continue {}
    assert_eq!(marked.len(), storm, "none is forgotten");
    assert!(replies.is_empty(), "a mark is answered apart");
}
