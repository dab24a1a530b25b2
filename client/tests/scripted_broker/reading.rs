//! Events: order, once, acknowledgements, and what happens when nobody takes them.

use std::sync::Arc;

use bytes::Bytes;
use carillon_client::protocol::deliver::Deliver;
use carillon_client::protocol::error::Done;
use carillon_client::protocol::frame::Body;
use carillon_client::protocol::kinds::Lane;
use carillon_client::{
    Change, ConversationId, ConversationKind, ErrorCode, Event, Limits, MembershipChanged, MemoryStore, MessageKind,
    Position, Progress, ReadUpdate, Role, Seq, ShardId, Skipped, Store, UserId,
};

use crate::broker::{Broker, CONVERSATION, INCARNATION, deliver, ding, next, position, soon, write};

const SHARD: ShardId = ShardId(0);

#[tokio::test]
async fn each_message_comes_once_and_in_order_over_reconnects() {
    let broker = Broker::start();
    let (client, mut events, mut session) = broker.connect(broker.config()).await;
    let _inbox = session.deliver([2, 3, 5, 8]).await;
    for expected in [2, 3, 5] {
        assert_eq!(position(&mut events).await, expected);
    }
    client.ack(SHARD, Position(3));
    assert_eq!(session.ack().await.position, Position(3));
    session.close(ErrorCode::SLOW).await;

    let mut session = broker.welcome().await;
    let cursor = session.hello.cursors[0];
    assert_eq!((cursor.position, cursor.incarnation), (Position(3), INCARNATION), "it goes on at the cursor");
    let _inbox = session.deliver([5, 8, 9]).await;
    assert_eq!(position(&mut events).await, 8, "5 was handed out, 8 once");
    assert_eq!(position(&mut events).await, 9);
    client.ack(SHARD, Position(9));
    assert_eq!(session.ack().await.position, Position(9));
}

#[tokio::test]
async fn acknowledgements_are_put_together_and_saved() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let (_client, mut events, mut session) = broker.connect(broker.config().store(Arc::clone(&store) as Arc<_>)).await;
    events.auto_ack(true);
    let mut inbox = session.deliver(1..=50).await;
    let (user, read_up_to) = (UserId(4), Seq(2));
    let update =
        ReadUpdate { conversation: CONVERSATION, user, read_up_to, position: Position(162), through: Position(160) };
    write(&mut inbox, update).await;
    write(&mut inbox, Progress { shard: SHARD, position: Position(170), receipts_through: Position(0) }).await;
    for expected in 1..=50 {
        assert_eq!(position(&mut events).await, expected);
    }
    assert!(matches!(next(&mut events).await, Event::Read(ReadUpdate { read_up_to: Seq(2), .. })));
    assert!(matches!(next(&mut events).await, Event::Progress(Progress { position: Position(170), .. })));
    let mut acks = 0;
    let ack = loop {
        acks += 1;
        let ack = session.ack().await;
        if ack.position == Position(170) && ack.receipts_through == Position(160) {
            break ack;
        }
    };
    assert!(acks <= 3, "{acks} acknowledgements for 52 events");
    let saved = store.load().unwrap().cursors[0];
    assert_eq!((saved.position, saved.receipts_through), (ack.position, ack.receipts_through));
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_neither_dings_nor_replies() {
    let broker = Broker::start();
    let mut config = broker.config();
    config.limits = Limits { events_queued: 1, ..Limits::default() };
    let (client, mut events, mut session) = broker.connect(config).await;
    let mut inbox = session.lane(Lane::INBOX).await;
    let flood = tokio::spawn(async move {
        for position in 1..=100 {
            write(&mut inbox, Deliver { payload: Bytes::from(vec![0; 60_000]), ..deliver(position) }).await;
        }
        inbox
    });
    let mut urgent = session.lane(Lane::URGENT).await;
    let (leave, ()) = tokio::join!(soon(client.leave(CONVERSATION)), async {
        assert_eq!(session.control.frame().await.name(), "Leave");
        session.control.send(Done { request: 1 }).await;
    });
    leave.unwrap();
    assert!(!flood.is_finished(), "6 MB do not fit the inbox's window");
    write(&mut urgent, ding(1)).await;
    write(&mut urgent, ding(2)).await;
    let mut seen = Vec::new();
    for _ in 0..102 {
        match next(&mut events).await {
            Event::Message(_) => seen.push('m'),
            Event::Ding(_) => seen.push('d'),
            other => panic!("{other:?}"),
        }
    }
    let dings: Vec<_> = seen.iter().enumerate().filter(|(_, kind)| **kind == 'd').map(|(at, _)| at).collect();
    assert_eq!(dings.len(), 2);
    assert!(dings[1] < 60, "DINGs came behind the flood: {dings:?}");
    soon(flood).await.unwrap();
}

#[tokio::test]
async fn a_change_of_membership_is_decoded_and_gaps_are_named() {
    let broker = Broker::start();
    let (_client, mut events, session) = broker.connect(broker.config()).await;
    let changed = MembershipChanged {
        conversation: CONVERSATION,
        kind: ConversationKind::GROUP,
        change: Change::ADDED,
        role: Role::MEMBER,
        by: UserId(2),
    };
    let personal = ConversationId(77);
    let mut inbox = session.lane(Lane::INBOX).await;
    let system =
        Deliver { conversation: personal, kind: MessageKind::SYSTEM, payload: changed.to_bytes(), ..deliver(1) };
    write(&mut inbox, system).await;
    for conversation in [1, 2] {
        let conversation = ConversationId(conversation);
        write(&mut inbox, Skipped { conversation, first: Seq(1), last: Seq(9), position: Position(4) }).await;
    }
    write(&mut inbox, deliver(5)).await;
    match next(&mut events).await {
        Event::Membership(membership) => assert_eq!((membership.changed, membership.personal), (changed, personal)),
        other => panic!("{other:?}"),
    }
    for conversation in [1, 2] {
        let conversation = ConversationId(conversation);
        assert!(matches!(next(&mut events).await, Event::Skipped(skipped) if skipped.conversation == conversation));
    }
    assert_eq!(position(&mut events).await, 5);
}

#[tokio::test]
async fn a_lane_of_a_newer_broker_is_passed_over() {
    let broker = Broker::start();
    let (_client, mut events, session) = broker.connect(broker.config()).await;
    let mut newer = session.lane(Lane(9)).await;
    newer.write_all(b"no frame at all").await.unwrap();
    let _inbox = session.deliver([1]).await;
    assert_eq!(position(&mut events).await, 1);
}

#[tokio::test]
async fn a_frame_in_the_wrong_place_closes_the_connection() {
    let broker = Broker::start();
    let (_client, _events, session) = broker.connect(broker.config()).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, deliver(1)).await;
    assert_eq!(session.closed().await, ErrorCode::UNEXPECTED_FRAME);
}

#[tokio::test]
async fn without_events_what_comes_is_dropped_and_never_acknowledged() {
    let broker = Broker::start();
    let (client, events, mut session) = broker.connect(broker.config()).await;
    drop(events);
    let mut inbox = session.lane(Lane::INBOX).await;
    for position in 1..=100 {
        // 6 MB: more than the lane's window, so it is read.
        soon(write(&mut inbox, Deliver { payload: Bytes::from(vec![0; 60_000]), ..deliver(position) })).await;
    }
    write(&mut inbox, Progress { shard: SHARD, position: Position(200), receipts_through: Position(0) }).await;
    let (leave, ()) = tokio::join!(soon(client.leave(CONVERSATION)), async {
        assert_eq!(session.control.frame().await.name(), "Leave", "nothing else is said");
        session.control.send(Done { request: 1 }).await;
    });
    leave.unwrap();
    tokio::join!(soon(client.close()), async {
        assert_eq!(session.closed().await, ErrorCode::NONE, "there was nothing to acknowledge first");
    });
}
