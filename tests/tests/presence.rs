//! Who is online: a user is from the first session to the end of the last, whichever edges hold them.

use carillon_client::{ErrorCode, UserId};
use carillon_protocol::Frame;
use carillon_protocol::presence::PresenceQuery;
use carillon_tests::harness::{Broker, connect, patiently};
use carillon_tests::raw::{Dial, hello};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_online_while_any_session_lives() {
    let broker = Broker::start();
    let (ann, _ann_events) = broker.client("ann").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let nobody = UserId(4_000_000);
    let both = [bob.user(), nobody, ann.user()];
    let before = patiently(ann.presence(&both)).await.unwrap();
    assert_eq!(before[1], None);
    let since = before[0].expect("bob is online");
    assert!(since >= bob.welcome().time);
    let (second, _second_events) = connect(broker.site.config(broker.address, "bob")).await;
    assert_eq!(patiently(ann.presence(&both)).await.unwrap()[0], Some(since), "since the first session");
    patiently(bob.close()).await;
    assert!(patiently(ann.presence(&[second.user()])).await.unwrap()[0].is_some(), "there is the second one");
    patiently(second.close()).await;
    // The close is on its way: the broker says so when it has it.
    patiently(async {
        while ann.presence(&both).await.unwrap()[0].is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_are_asked_for_in_turns_and_another_tenants_are_not_seen() {
    let broker = Broker::start();
    let (ann, _ann_events) = broker.client("ann").await;
    let token = broker.site.token_of("other", "mallory", "admin");
    let (mallory, _mallory_events) = connect(broker.site.config_with(broker.address, token)).await;
    let many: Vec<UserId> = (0..250).map(UserId).collect();
    let online = |presences: Vec<Option<_>>| presences.iter().filter(|since| since.is_some()).count();
    assert_eq!(online(patiently(ann.presence(&many)).await.unwrap()), 1, "ann herself");
    assert_eq!(online(patiently(mallory.presence(&many)).await.unwrap()), 1, "mallory");
}

#[test]
fn none_and_too_many_are_refused() {
    let broker = Broker::start();
    let mut session =
        Dial::new(&broker.site, broker.address).attach(&hello(&broker.site, "ann", 1)).expect("a session");
    for (count, code) in [(0, ErrorCode::INVALID), (101, ErrorCode::TOO_LARGE)] {
        let users = (0..count).map(UserId).collect();
        match session.request(&PresenceQuery { request: 3, users }) {
            Ok(Frame::Error(error)) => assert_eq!((error.request, error.code), (3, code)),
            other => panic!("{count} users: {other:?}"),
        }
    }
}
