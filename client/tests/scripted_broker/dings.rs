//! DINGs: what a device says of those it has, what it shows, and how far others have come.

use std::time::Duration;

use carillon_client::protocol::Frame;
use carillon_client::protocol::ding::DingReminded;
use carillon_client::protocol::ding_status::{DingAttempts, DingWatch, Dings};
use carillon_client::protocol::error::{Done, Error};
use carillon_client::protocol::kinds::Lane;
use carillon_client::{
    AttemptState, CancelState, Client, Ding, DingAttempt, DingId, DingProgress, DingState, DingStates, ErrorCode,
    Event, Limits, MessageKind, Outlet, Position, Recipients, RequestError, Step, Timestamp, UserId, Welcome,
};

use crate::broker::{Broker, CONVERSATION, Session, ding, idle, next, soon, welcome, write};

async fn received(session: &mut Session) -> DingId {
    match session.control.frame().await {
        Frame::DingReceived(received) => received.ding,
        other => panic!("{} instead of DingReceived", other.name()),
    }
}

async fn watch(session: &mut Session) -> DingWatch {
    match session.control.frame().await {
        Frame::DingWatch(watch) => watch,
        other => panic!("{} instead of DingWatch", other.name()),
    }
}

/// Watches a DING; the broker has nothing against it.
async fn watched(client: &Client, session: &mut Session, id: u64) {
    let (watched, ()) = tokio::join!(soon(client.watch_ding(DingId(id))), async {
        let asked = watch(session).await;
        assert_eq!((asked.ding, asked.on), (DingId(id), 1));
        session.control.send(Done { request: asked.request }).await;
    });
    watched.expect("the broker has nothing against it");
}

fn progress(id: u64, position: u64, confirmed: u32) -> DingProgress {
    DingProgress {
        ding: DingId(id),
        state: if confirmed == 5 { DingState::CONFIRMED } else { DingState::SENT },
        time: Timestamp(1),
        position: Position(position),
        recipients: 5,
        delivered: 0,
        confirmed,
        failed: 0,
    }
}

#[tokio::test]
async fn a_ding_is_given_once_however_often_it_comes() {
    let broker = Broker::start();
    let (_client, mut events, session) = broker.connect(broker.config()).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    for id in [1, 1, 2] {
        write(&mut urgent, ding(id)).await;
    }
    for expected in [1, 2] {
        assert!(matches!(next(&mut events).await, Event::Ding(push) if push.ding == DingId(expected)));
    }
    session.close(ErrorCode::INTERNAL).await;
    let session = begin(&broker, &[1, 2, 3]).await;
    assert!(matches!(next(&mut events).await, Event::Ding(push) if push.ding == DingId(3)));
    session.close(ErrorCode::INTERNAL).await;
}

/// A session that begins with these DINGs.
async fn begin(broker: &Broker, dings: &[u64]) -> Session {
    let mut session = broker.accept().await;
    let dings_open = u32::try_from(dings.len()).expect("a few");
    session.control.send(Welcome { dings_open, ..welcome() }).await;
    if !dings.is_empty() {
        let mut urgent = session.lane(Lane::URGENT).await;
        for id in dings {
            write(&mut urgent, ding(*id)).await;
        }
    }
    session
}

#[tokio::test]
async fn what_a_session_does_not_begin_with_is_over() {
    let broker = Broker::start();
    let (_client, mut events, session) = broker.connect(broker.config()).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    for id in [1, 2, 3] {
        write(&mut urgent, ding(id)).await;
        assert!(matches!(next(&mut events).await, Event::Ding(push) if push.ding == DingId(id)));
    }
    session.close(ErrorCode::INTERNAL).await;
    let session = begin(&broker, &[2, 4]).await;
    for over in [1, 3] {
        assert!(matches!(next(&mut events).await, Event::DingOver(ding) if ding == DingId(over)));
    }
    assert!(matches!(next(&mut events).await, Event::Ding(push) if push.ding == DingId(4)));
    session.close(ErrorCode::INTERNAL).await;
    let _session = begin(&broker, &[]).await;
    for over in [2, 4] {
        assert!(matches!(next(&mut events).await, Event::DingOver(ding) if ding == DingId(over)));
    }
}

#[tokio::test]
async fn the_broker_is_told_once_of_each_push_that_comes_repeats_included() {
    let broker = Broker::start();
    let (_client, _events, mut session) = broker.connect(broker.config()).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    for id in [1, 1, 2] {
        write(&mut urgent, ding(id)).await;
        assert_eq!(received(&mut session).await, DingId(id), "no application has taken it");
    }
    assert!(idle(session.control.try_frame()).await, "it is told once");
    session.close(ErrorCode::INTERNAL).await;
    let mut session = broker.welcome().await;
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, ding(1)).await;
    assert_eq!(received(&mut session).await, DingId(1), "of the same DING in a new session");
}

#[tokio::test]
async fn a_device_says_that_it_has_a_ding_while_requests_wait_for_their_answers() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let mut asking = Vec::new();
    for _ in 0..20 {
        let client = client.clone();
        asking.push(tokio::spawn(async move { client.leave(CONVERSATION).await }));
    }
    for _ in 0..16 {
        assert_eq!(session.control.frame().await.name(), "Leave");
    }
    assert!(idle(session.control.try_frame()).await, "sixteen wait, so no more are asked");
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, ding(1)).await;
    assert_eq!(received(&mut session).await, DingId(1));
}

#[tokio::test]
async fn who_shows_no_dings_does_not_say_that_they_have_come() {
    let broker = Broker::start();
    let (_client, mut events, mut session) = broker.connect(broker.config().shows_dings(false)).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, ding(1)).await;
    assert!(matches!(next(&mut events).await, Event::Ding(_)));
    assert!(idle(session.control.try_frame()).await);

    let (_client, events, mut session) = broker.connect(broker.config()).await;
    drop(events);
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, ding(1)).await;
    assert!(idle(session.control.try_frame()).await, "nobody takes events");
}

#[tokio::test]
async fn what_has_come_is_told_before_a_client_closes() {
    let broker = Broker::start();
    let (client, mut events, mut session) = broker.connect(broker.config()).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, ding(1)).await;
    assert!(matches!(next(&mut events).await, Event::Ding(_)));
    let ((), ()) = tokio::join!(soon(client.close()), async {
        assert_eq!(received(&mut session).await, DingId(1));
        let Frame::UserLookup(question) = session.control.frame().await else { panic!("it may not have come") };
        session.control.send(Done { request: question.request }).await;
    });
}

#[tokio::test]
async fn watches_are_asked_for_again_in_each_session_until_they_are_given_up() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    for id in [5, 6, 7, 8] {
        watched(&client, &mut session, id).await;
    }
    let (unwatched, ()) = tokio::join!(soon(client.unwatch_ding(DingId(6))), async {
        let asked = watch(&mut session).await;
        assert_eq!((asked.ding, asked.on), (DingId(6), 0));
        session.control.send(Done { request: asked.request }).await;
    });
    unwatched.unwrap();
    session.close(ErrorCode::INTERNAL).await;

    let mut session = broker.welcome().await;
    let mut asked = Vec::new();
    for refusal in [None, Some(ErrorCode::BUSY), Some(ErrorCode::NOT_FOUND), None] {
        let DingWatch { request, ding, on } = watch(&mut session).await;
        asked.push((ding.0, on));
        match refusal {
            None => session.control.send(Done { request }).await,
            Some(code) => session.control.send(Error { request, code, text: "no".into() }).await,
        }
    }
    assert_eq!(asked, [(5, 1), (7, 1), (7, 1), (8, 1)], "busy is asked again");
    assert!(idle(session.control.try_frame()).await, "the rest is not");
    session.close(ErrorCode::INTERNAL).await;

    let mut session = broker.welcome().await;
    for id in [5, 8] {
        let DingWatch { request, ding, .. } = watch(&mut session).await;
        assert_eq!(ding, DingId(id), "what is there no more is watched no more");
        session.control.send(Done { request }).await;
    }
    assert!(idle(session.control.try_frame()).await);
}

#[tokio::test]
async fn a_watch_that_is_refused_is_not_renewed() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let (refused, ()) = tokio::join!(soon(client.watch_ding(DingId(5))), async {
        let asked = watch(&mut session).await;
        session.control.send(Error { request: asked.request, code: ErrorCode::NOT_FOUND, text: "no".into() }).await;
    });
    assert!(matches!(refused, Err(RequestError::Refused { code: ErrorCode::NOT_FOUND, .. })));
    session.close(ErrorCode::INTERNAL).await;
    let mut session = broker.welcome().await;
    assert!(idle(session.control.try_frame()).await);
}

#[tokio::test]
async fn progress_that_comes_late_is_dropped_over_sessions_too() {
    let broker = Broker::start();
    let mut config = broker.config();
    config.limits = Limits { urgent_queued: 1, ..Limits::default() };
    let (client, mut events, mut session) = broker.connect(config).await;
    watched(&client, &mut session, 5).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    for (id, position, confirmed) in [(5, 10, 1), (5, 12, 3), (6, 4, 1), (5, 11, 2)] {
        write(&mut urgent, progress(id, position, confirmed)).await;
    }
    let mut told = async || match next(&mut events).await {
        Event::DingProgress(progress) => (progress.ding.0, progress.position.0, progress.confirmed),
        other => panic!("{other:?} instead of progress"),
    };
    for expected in [(5, 10, 1), (5, 12, 3), (6, 4, 1)] {
        assert_eq!(told().await, expected);
    }
    session.close(ErrorCode::INTERNAL).await;

    let mut session = broker.welcome().await;
    let asked = watch(&mut session).await;
    session.control.send(Done { request: asked.request }).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    for (position, confirmed) in [(11, 2), (20, 5)] {
        write(&mut urgent, progress(5, position, confirmed)).await;
    }
    assert_eq!(told().await, (5, 20, 5));
    session.close(ErrorCode::INTERNAL).await;
    let mut session = broker.welcome().await;
    assert!(idle(session.control.try_frame()).await, "a DING that is over is watched no more");
}

#[tokio::test]
async fn a_ding_goes_out_as_it_was_built() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let step = Step::after(Outlet::APP, Duration::ZERO).repeated(3, Duration::from_secs(60));
    let order = Ding::new(Recipients::Conversation(CONVERSATION), MessageKind::TEXT, "now")
        .starts_after(Duration::from_secs(60))
        .step(step);
    let asking = client.clone();
    let asking = tokio::spawn(async move { asking.ding(order).await });
    let Frame::DingCreate(create) = session.control.frame().await else { panic!("no DING") };
    assert_eq!((create.target_id, create.steps.len(), create.expires_after_ms), (CONVERSATION.0, 1, 0));
    // The broker said in its `Welcome` that its clock was at 1,000,000.
    assert!((1_060_000..1_080_000).contains(&create.starts_at.0), "{}", create.starts_at);
    asking.abort();
}

#[tokio::test]
async fn the_sender_asks_in_pages_and_reminds_at_most_once() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let (page, ()) = tokio::join!(soon(client.sent_dings(Some(DingId(9)), 10)), async {
        let Frame::DingList(list) = session.control.frame().await else { panic!("no question") };
        assert_eq!((list.before, list.limit), (DingId(9), 10));
        session.control.send(Dings { request: list.request, next: DingId(0), entries: Vec::new() }).await;
    });
    assert_eq!(page.unwrap().next, DingId(0));
    let attempt = DingAttempt {
        attempt: 1,
        step: 1,
        outlet: Outlet::SMS,
        started_at: Timestamp(1),
        state: AttemptState::FAILED,
        cancel: CancelState::NONE,
        detail: 503,
        time: Timestamp(2),
    };
    let (attempts, ()) = tokio::join!(soon(client.ding_attempts(DingId(5), UserId(8))), async {
        let Frame::DingAttemptList(list) = session.control.frame().await else { panic!("no question") };
        assert_eq!((list.ding, list.user), (DingId(5), UserId(8)));
        session.control.send(DingAttempts { request: list.request, entries: vec![attempt] }).await;
    });
    assert_eq!(attempts.unwrap(), [attempt]);
    let (reminded, ()) = tokio::join!(soon(client.remind_ding(DingId(5), Outlet::SMS)), async {
        let Frame::DingRemind(remind) = session.control.frame().await else { panic!("no request") };
        assert_eq!((remind.ding, remind.outlet), (DingId(5), Outlet::SMS));
        session.control.send(DingReminded { request: remind.request, ding: DingId(5), recipients: 2 }).await;
    });
    assert_eq!(reminded.unwrap(), 2);
    let (status, ()) =
        tokio::join!(soon(client.ding_status(DingId(5), DingStates::UNCONFIRMED, UserId(3), 7)), async {
            let Frame::DingStatus(status) = session.control.frame().await else { panic!("no question") };
            assert_eq!((status.states, status.from, status.limit), (!(1 << 4), UserId(3), 7));
            let error = Error { request: status.request, code: ErrorCode::NOT_FOUND, text: "no".into() };
            session.control.send(error).await;
        });
    assert!(matches!(status, Err(RequestError::Refused { code: ErrorCode::NOT_FOUND, .. })));

    let reminder = client.clone();
    let reminder = tokio::spawn(async move { reminder.remind_ding(DingId(5), Outlet::APP).await });
    assert_eq!(session.control.frame().await.name(), "DingRemind");
    session.close(ErrorCode::INTERNAL).await;
    assert!(matches!(soon(reminder).await.unwrap(), Err(RequestError::Interrupted)));
    let mut session = broker.welcome().await;
    assert!(idle(session.control.try_frame()).await, "a second reminder would be one more");
}
