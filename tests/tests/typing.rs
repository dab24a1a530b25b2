//! Signals: members who are online see who is writing and who looks at a conversation. Nobody else does.

use carillon_client::{Client, ConversationId, ErrorCode, Event, Events, SignalKind, Signalled, UserId};
use carillon_protocol::Frame;
use carillon_protocol::control::UserLookup;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::limits::PRESENT_CONVERSATIONS_MAX;
use carillon_protocol::presence::Signal;
use carillon_tests::harness::{Broker, connect, group_of, next_that, patiently, say};
use carillon_tests::raw::{Dial, Session, hello};

/// The next signal; what else comes is passed over.
async fn next_signal(events: &mut Events) -> Signalled {
    next_that(events, |event| match event {
        Event::Signal(signalled) => Some(signalled.clone()),
        _ => None,
    })
    .await
}

/// Signals until it has arrived: loopback loses next to nothing, and the receiver may still be on its way to being a member here.
async fn signal_until_heard(
    from: &Client,
    conversation: ConversationId,
    kind: SignalKind,
    to: &mut Events,
) -> Signalled {
    patiently(async {
        loop {
            from.signal(conversation, kind);
            let heard = tokio::time::timeout(std::time::Duration::from_millis(200), next_signal(to)).await;
            if let Ok(heard) = heard
                && heard.kind == kind
            {
                return heard;
            }
        }
    })
    .await
}

fn expected(conversation: ConversationId, user: UserId, kind: SignalKind) -> Signalled {
    Signalled { conversation, user, kind }
}

/// That they are all on one of two edges has a chance of 2⁻¹⁹.
const LISTENERS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn members_on_all_edges_see_who_is_writing() {
    let broker = Broker::start();
    let (ann, ann_events) = broker.client("ann").await;
    drop(ann_events);
    let mut listeners = Vec::new();
    for nth in 0..LISTENERS {
        listeners.push(broker.client(&format!("listener-{nth}")).await);
    }
    let members: Vec<UserId> = listeners.iter().map(|(client, _)| client.user()).collect();
    let group = group_of(&ann, &members).await;
    for (_, events) in &mut listeners {
        let heard = signal_until_heard(&ann, group, SignalKind::TYPING, events).await;
        assert_eq!(heard, expected(group, ann.user(), SignalKind::TYPING));
    }
    let mut edges: Vec<u16> = Vec::new();
    for (client, _) in &listeners {
        let sessions = patiently(client.sessions(client.user())).await.unwrap();
        edges.extend(sessions.iter().map(|session| session.edge));
    }
    edges.sort_unstable();
    edges.dedup();
    assert_eq!(edges, [0, 1], "the listeners are on both edges");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_signal_and_only_members_hear_it() {
    let broker = Broker::start();
    let (ann, _ann_events) = broker.client("ann").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (eve, mut eve_events) = broker.client("eve").await;
    let group = group_of(&ann, &[bob.user()]).await;
    let other = group_of(&eve, &[bob.user()]).await;
    signal_until_heard(&ann, group, SignalKind::TYPING, &mut bob_events).await;
    // Eve's own conversation is heard, what she says of Ann's is not.
    for _ in 0..3 {
        eve.signal(group, SignalKind::TYPING);
        eve.signal(other, SignalKind::TYPING_STOPPED);
        let heard = next_that(&mut bob_events, |event| match event {
            Event::Signal(signalled) if signalled.user == eve.user() => Some(signalled.clone()),
            _ => None,
        })
        .await;
        assert_eq!(heard, expected(other, eve.user(), SignalKind::TYPING_STOPPED));
    }
    // Whatever Ann signals comes before what Bob says afterwards in a conversation with Eve; nothing of it comes to her.
    signal_until_heard(&ann, group, SignalKind::TYPING_STOPPED, &mut bob_events).await;
    say(&bob, other, "done").await;
    patiently(async {
        loop {
            match eve_events.next().await.expect("she is connected") {
                Event::Signal(signalled) => panic!("eve heard {signalled:?}"),
                Event::Message(message) if message.conversation == other => break,
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_is_away() {
    let broker = Broker::start();
    let (ann, _ann_events) = broker.client("ann").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&ann, &[bob.user()]).await;
    signal_until_heard(&ann, group, SignalKind::PRESENT, &mut bob_events).await;
    let user = ann.user();
    patiently(ann.close()).await;
    let gone = next_that(&mut bob_events, |event| match event {
        Event::Signal(signalled) if signalled.kind == SignalKind::AWAY => Some(signalled.clone()),
        _ => None,
    })
    .await;
    assert_eq!(gone, expected(group, user, SignalKind::AWAY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_present_again_after_a_reconnect_and_when_its_user_is_taken_for_away() {
    let broker = Broker::start();
    let (ann, ann_events) = broker.client("ann").await;
    drop(ann_events);
    let (bob, mut bob_events) = broker.client("bob").await;
    let (operator, _operator_events) = broker.service("operator").await;
    let (second, second_events) = connect(broker.site.config(broker.address, "ann")).await;
    let group = group_of(&ann, &[bob.user()]).await;
    signal_until_heard(&ann, group, SignalKind::PRESENT, &mut bob_events).await;
    signal_until_heard(&second, group, SignalKind::PRESENT, &mut bob_events).await;
    let device = patiently(second.sessions(second.user())).await.unwrap().last().expect("two").device;
    assert_eq!(patiently(operator.kick(ann.user(), Some(device))).await.unwrap(), 1);
    let mut said = Vec::new();
    while said.last() != Some(&SignalKind::PRESENT) || !said.contains(&SignalKind::AWAY) {
        said.push(next_signal(&mut bob_events).await.kind);
    }
    drop((second, second_events));
}

/// Waits for the news of a membership: the edge knows of it then.
fn next_message_of(session: &mut Session) {
    while !matches!(session.next_of_inbox().expect("it lives"), Frame::Deliver(_)) {}
}

/// What a raw session was signalled so far.
fn heard(session: &mut Session) -> Vec<Signalled> {
    let frames = session.raw.datagrams().into_iter().map(|bytes| RawFrame::new(bytes).expect("a frame"));
    frames.map(|raw| Signalled::decode(&raw).expect("Signalled")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_present_in_eight_conversations_at_a_time() {
    let broker = Broker::start();
    let (host, _host_events) = broker.client("host").await;
    let dial = Dial::new(&broker.site, broker.address);
    let mut ann = dial.attach(&hello(&broker.site, "ann", 1)).expect("a session");
    let mut bob = dial.attach(&hello(&broker.site, "bob", 1)).expect("a session");
    let mut groups = Vec::new();
    for _ in 0..=PRESENT_CONVERSATIONS_MAX {
        groups.push(group_of(&host, &[ann.welcome.user, bob.welcome.user]).await);
        next_message_of(&mut ann);
        next_message_of(&mut bob);
    }
    for group in &groups {
        ann.raw.send_datagram(Signal { conversation: *group, kind: SignalKind::PRESENT }.to_bytes());
    }
    let lookup = UserLookup { request: 1, users: vec![ann.welcome.user] };
    ann.request(&lookup).expect("it lives");
    ann.raw.close();
    let mut away = Vec::new();
    while away.len() < PRESENT_CONVERSATIONS_MAX {
        bob.request(&lookup).expect("it lives");
        away.extend(heard(&mut bob).into_iter().filter(|signalled| signalled.kind == SignalKind::AWAY));
    }
    let told: Vec<ConversationId> = away.iter().map(|signalled| signalled.conversation).collect();
    assert_eq!(told, groups[..PRESENT_CONVERSATIONS_MAX]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_let_go_of() {
    const FLOOD: usize = 1_000;
    let broker = Broker::start();
    let (host, _host_events) = broker.client("host").await;
    let dial = Dial::new(&broker.site, broker.address);
    let mut ann = dial.attach(&hello(&broker.site, "ann", 1)).expect("a session");
    let mut bob = dial.attach(&hello(&broker.site, "bob", 1)).expect("a session");
    let group = group_of(&host, &[ann.welcome.user, bob.welcome.user]).await;
    next_message_of(&mut ann);
    next_message_of(&mut bob);
    let lookup = UserLookup { request: 1, users: vec![ann.welcome.user] };
    for nth in 0..FLOOD {
        ann.raw.send_datagram(Signal { conversation: group, kind: SignalKind::TYPING }.to_bytes());
        if nth % 50 == 0 {
            ann.request(&lookup).expect("it lives");
        }
    }
    ann.request(&lookup).expect("it lives");
    let mut count = 0;
    while count == 0 {
        bob.request(&lookup).expect("it lives");
        count += heard(&mut bob).len();
    }
    bob.request(&lookup).expect("it lives");
    count += heard(&mut bob).len();
    // Ten a second: a flood that took half a minute would pass more.
    assert!(count < FLOOD / 3, "{count} of {FLOOD} were passed on");
}

#[test]
fn what_is_no_frame_closes_and_what_is_no_signal_is_passed_over() {
    let broker = Broker::start();
    let mut session =
        Dial::new(&broker.site, broker.address).attach(&hello(&broker.site, "ann", 1)).expect("a session");
    let lookup = UserLookup { request: 1, users: vec![session.welcome.user] };
    let unnamed = Signal { conversation: ConversationId(1), kind: SignalKind(77) }.to_bytes();
    for passed_over in [lookup.to_bytes(), unnamed.clone()] {
        session.raw.send_datagram(passed_over);
        session.request(&lookup).expect("it lives");
    }
    session.raw.send_datagram(unnamed.slice(..9));
    session.raw.closed().check(ErrorCode::MALFORMED, "half a frame");
}
