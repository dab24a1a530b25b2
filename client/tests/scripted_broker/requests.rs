//! Requests: pipelining, refusals, repeats over reconnects, pages, tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carillon_client::protocol::Frame;
use carillon_client::protocol::control::{ConversationEntry, Conversations, UserEntry, UserHandles};
use carillon_client::protocol::error::{Done, Error};
use carillon_client::protocol::receipt::Marked;
use carillon_client::{
    ConversationId, ConversationKind, Ding, DingCreated, DingId, ErrorCode, HistoryPolicy, MessageKind,
    NewConversation, PostPolicy, ReceiptPolicy, Recipients, RequestError, Role, Seq, Timestamp, TokenSource, UserId,
    Welcome,
};

use crate::broker::{Broker, CONVERSATION, Session, idle, soon, welcome};

/// The `(request, seq)` of the next mark.
async fn mark(session: &mut Session) -> (u32, Seq) {
    match session.control.frame().await {
        Frame::MarkRead(mark) => (mark.request, mark.up_to),
        other => panic!("{} instead of a mark", other.name()),
    }
}

fn marked((request, read_up_to): (u32, Seq)) -> Marked {
    Marked { request, conversation: CONVERSATION, read_up_to }
}

#[tokio::test]
async fn sixteen_requests_are_on_their_way_and_answers_come_in_any_order() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let mut asked = Vec::new();
    for seq in 1..=20 {
        let client = client.clone();
        asked.push(tokio::spawn(async move { client.mark_read(CONVERSATION, Seq(seq)).await }));
    }
    let mut marks = Vec::new();
    for _ in 0..16 {
        marks.push(mark(&mut session).await);
    }
    assert!(idle(session.control.try_frame()).await, "a 17th was sent");
    // The newest first; each answer makes room for one more.
    let mut further = 4;
    while let Some(last) = marks.pop() {
        session.control.send(marked(last)).await;
        if further > 0 {
            further -= 1;
            marks.insert(0, mark(&mut session).await);
        }
    }
    for (seq, asked) in (1..=20).zip(asked) {
        assert_eq!(soon(asked).await.unwrap().unwrap(), Seq(seq));
    }
}

#[tokio::test]
async fn a_refusal_is_told_and_the_session_lives_on() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let (found, ()) = tokio::join!(soon(client.find_user("nobody")), async {
        let Frame::UserFind(find) = session.control.frame().await else { panic!("no question") };
        assert_eq!((find.handle.as_str(), find.create), ("nobody", 0));
        let error = Error { request: find.request, code: ErrorCode::UNKNOWN_USER, text: "who?".into() };
        session.control.send(error).await;
    });
    match found {
        Err(RequestError::Refused { code: ErrorCode::UNKNOWN_USER, text }) => assert_eq!(text, "who?"),
        other => panic!("{other:?}"),
    }
    let (marked_now, ()) = tokio::join!(soon(client.mark_read(CONVERSATION, Seq(1))), async {
        let mark = mark(&mut session).await;
        session.control.send(marked(mark)).await;
    });
    marked_now.unwrap();
}

#[tokio::test]
async fn what_may_be_done_twice_is_repeated_and_the_rest_is_interrupted() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let spawn = |new: NewConversation| {
        let client = client.clone();
        tokio::spawn(async move { client.create_conversation(new).await })
    };
    let unnamed = spawn(NewConversation::group([UserId(1)]));
    assert_eq!(session.control.frame().await.name(), "ConversationCreate");
    let ding = Ding::new(Recipients::Users(vec![UserId(1)]), MessageKind::TEXT, "now");
    let dinger = client.clone();
    let ding = tokio::spawn(async move { dinger.ding(ding).await });
    let Frame::DingCreate(first) = session.control.frame().await else { panic!("no DING") };
    session.close(ErrorCode::INTERNAL).await;
    assert!(matches!(soon(unnamed).await.unwrap(), Err(RequestError::Interrupted)));

    let mut session = broker.welcome().await;
    let Frame::DingCreate(again) = session.control.frame().await else { panic!("no DING") };
    assert_eq!(first, again, "the same key, so that it is one DING");
    let (ding_id, starts_at, expires_at) = (DingId(6), Timestamp(1), Timestamp(2));
    let created = DingCreated { request: again.request, ding: ding_id, recipients: 1, starts_at, expires_at };
    session.control.send(created.clone()).await;
    assert_eq!(soon(ding).await.unwrap().unwrap(), created);
}

#[tokio::test]
async fn lists_are_asked_for_page_by_page() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let entry = |conversation, name_bytes| ConversationEntry {
        conversation: ConversationId(conversation),
        kind: ConversationKind::GROUP,
        role: Role::OWNER,
        post_policy: PostPolicy::MEMBERS,
        history: HistoryPolicy::JOINED,
        receipts: ReceiptPolicy::ON,
        last_seq: Seq(0),
        read_up_to: Seq(0),
        unread: 0,
        members: 1,
        peer: UserId(u32::MAX),
        name_bytes,
    };
    let pages = [
        Conversations {
            request: 1,
            next: ConversationId(9),
            entries: vec![entry(1, 3), entry(2, 0)],
            names: "abc".into(),
        },
        Conversations { request: 2, next: ConversationId(u64::MAX), entries: vec![entry(9, 2)], names: "de".into() },
    ];
    let (listed, ()) = tokio::join!(soon(client.conversations()), async {
        for (from, page) in [0, 9].into_iter().zip(pages) {
            let Frame::ConversationList(list) = session.control.frame().await else { panic!("no question") };
            assert_eq!(list.from, ConversationId(from));
            session.control.send(page).await;
        }
    });
    let names: Vec<_> = listed.unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, [Some("abc".to_owned()), None, Some("de".to_owned())]);

    let (handles, ()) = tokio::join!(soon(client.handles(&[UserId(1), UserId(2)])), async {
        let Frame::UserLookup(lookup) = session.control.frame().await else { panic!("no question") };
        let entries =
            vec![UserEntry { user: UserId(1), handle_bytes: 5 }, UserEntry { user: UserId(2), handle_bytes: 0 }];
        session.control.send(UserHandles { request: lookup.request, entries, handles: "alice".into() }).await;
    });
    assert_eq!(handles.unwrap(), [Some("alice".to_owned()), None]);
}

#[tokio::test]
async fn long_lists_of_members_are_split() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let members: Vec<_> = (0..2_500).map(UserId).collect();
    let (added, sizes) = tokio::join!(soon(client.add_members(CONVERSATION, &members, Role::MEMBER)), async {
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let Frame::MembersAdd(add) = session.control.frame().await else { panic!("no request") };
            sizes.push(add.members.len());
            session.control.send(Done { request: add.request }).await;
        }
        sizes
    });
    added.unwrap();
    assert_eq!(sizes, [1_000, 1_000, 500]);
}

/// A JWT whose claims are `{"exp":1002}`: two seconds after the welcome's time.
const SHORT_TOKEN: &str = "e30.eyJleHAiOjEwMDJ9.c2ln";

#[tokio::test]
async fn a_token_is_refreshed_before_its_time_is_over() {
    let broker = Broker::start();
    let mut config = broker.config();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    config.token = TokenSource::from_fn(move || {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move { Ok(if first { SHORT_TOKEN } else { "another" }.to_owned()) }
    });
    let (_client, _events, mut session) = broker.connect_as(config, Welcome { ..welcome() }).await;
    assert_eq!(session.hello.token.as_str(), SHORT_TOKEN);
    let refresh = tokio::time::timeout(Duration::from_secs(5), session.control.frame()).await.unwrap();
    let Frame::Refresh(refresh) = refresh else { panic!("no refresh") };
    assert_eq!(refresh.token.as_str(), "another");
    session.control.send(Done { request: refresh.request }).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
