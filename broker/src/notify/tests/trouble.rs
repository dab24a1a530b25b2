//! Gateways that are gone, slow, rude or not where they should be, and a shard that has no room.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::gateway::Answer;
use super::*;

#[tokio::test]
async fn a_gateway_that_never_answers_is_given_up() {
    let mut gateway = Gateway::start([Answer::Never, Answer::Never]).await;
    let hasty = OutletOptions { timeout: Duration::from_millis(50), tries_max: 1, ..sms(&gateway.url) };
    let mut world = World::new(vec![hasty]);
    assert_eq!(world.call().await, (Outcome::Failed, Detail::TIMEOUT));
    assert_eq!(gateway.rest(), 1);
}

#[tokio::test]
async fn a_start_that_comes_while_its_cancel_is_under_way_is_not_posted() {
    let mut gateway = Gateway::start([Answer::Never]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    world.send(cancel(7));
    gateway.next().await;
    world.send(start(7));
    assert_eq!(world.page.next().await, (key(7), Verb::Start, Outcome::Failed, Detail::CANCELLED));
    assert_eq!(gateway.rest(), 0);
}

#[tokio::test]
async fn a_gateway_that_is_down_is_given_up_and_nothing_is_cancelled_there() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::new(vec![sms(&format!("http://{address}/"))]);
    assert_eq!(world.call().await, (Outcome::Failed, Detail::CONNECT));
}

#[tokio::test]
async fn a_name_that_is_none_is_given_up() {
    let mut world = World::new(vec![OutletOptions { plain: true, ..sms("http://gateway.invalid/") }]);
    assert_eq!(world.call().await, (Outcome::Failed, Detail::RESOLVE));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let mut gateway = Gateway::start([Answer::Now(status, ("location", "/elsewhere".into()), String::new())]).await;
        let mut world = World::new(vec![sms(&gateway.url)]);
        assert_eq!(world.call().await, (Outcome::Failed, Detail(status)));
        assert_eq!(gateway.rest(), 1, "{status}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_not_connected_to() {
    let mut gateway = Gateway::start([]).await;
    let port = gateway.url.split(['/', ':']).nth(4).unwrap().to_owned();
    let check = async |host: &str, allow: &[&str], expected: (Outcome, Detail)| {
        let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
        let options = sms(&format!("http://{host}:{port}/ding"));
        let mut world = World::new(vec![OutletOptions { allow, ..options }]);
        assert_eq!(world.call().await, expected, "{host}");
    };
    let refused = (Outcome::Failed, Detail::REFUSED_ADDRESS);
    check("127.0.0.1", &[], refused).await;
    check("localhost", &[], refused).await;
    check("[::ffff:127.0.0.1]", &[], refused).await;
    check("127.0.0.1", &["10.0.0.0/8", "127.0.0.2/32"], refused).await;
    assert_eq!(gateway.rest(), 0);
    check("localhost", &["127.0.0.0/8"], (Outcome::Accepted, Detail(202))).await;
    assert_eq!(gateway.rest(), 1);
}

#[tokio::test]
async fn what_is_not_encrypted_stays_on_this_machine_unless_the_configuration_says_otherwise() {
    // An address of documentation that nobody has: what is refused is refused without a packet.
    let allow = vec!["192.0.2.0/24".parse().unwrap()];
    let away = OutletOptions { allow, ..sms("http://192.0.2.1:9/") };
    let mut world = World::new(vec![away.clone()]);
    assert_eq!(world.call().await, (Outcome::Failed, Detail::REFUSED_ADDRESS));
    let connect_timeout = Duration::from_millis(20);
    let mut world = World::new(vec![OutletOptions { plain: true, connect_timeout, tries_max: 1, ..away }]);
    assert_eq!(world.call().await, (Outcome::Failed, Detail::CONNECT));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read_to_its_end_and_means_what_its_status_says() {
    let long = "x".repeat(limits::ANSWER_BYTES_MAX + 1);
    for (status, end) in [(200, (Outcome::Accepted, Detail::ANSWER_TOO_LONG)), (400, (Outcome::Failed, Detail(400)))] {
        let mut gateway = Gateway::start([Answer::body(status, long.clone())]).await;
        let mut world = World::new(vec![sms(&gateway.url)]);
        assert_eq!(world.call().await, end);
        assert_eq!(gateway.rest(), 1);
    }
    let just_so = format!("{}{}", r#"{"status":"failed"}"#, " ".repeat(limits::ANSWER_BYTES_MAX - 19));
    let gateway = Gateway::start([Answer::body(200, just_so)]).await;
    assert_eq!(World::new(vec![sms(&gateway.url)]).call().await, (Outcome::Failed, Detail::SAID_FAILED));
}

/// A server that reads a little and then writes these bytes, to every connection.
fn rude(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.read_exact(&mut [0; 16]).ok();
            stream.write_all(answer).ok();
        }
    });
    url
}

#[tokio::test]
async fn what_is_no_http_or_breaks_off_is_tried_again_and_given_up() {
    let endless_head: &'static [u8] = [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'y'; 64 * 1024]].concat().leak();
    let broken_off = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"status\":";
    for answer in [&b"SSH-2.0-rude\r\n"[..], b"", endless_head, broken_off] {
        let mut world = World::new(vec![sms(&rude(answer))]);
        assert_eq!(world.call().await, (Outcome::Failed, Detail::BROKEN), "{:?}", answer.get(..16));
    }
}

#[tokio::test]
async fn an_outlet_that_is_not_configured_fails_what_comes() {
    let mut world = World::new(Vec::new());
    assert_eq!(world.call().await, (Outcome::Failed, Detail::NO_OUTLET));
    world.send(cancel(7));
    assert_eq!(world.page.next().await, (key(7), Verb::Cancel, Outcome::GaveUp, Detail::NO_OUTLET));
    assert_eq!(world.notify.calls().outlets().count(), 0);
}

#[tokio::test]
async fn results_for_which_the_shard_has_no_room_come_later() {
    let gateway = Gateway::start([]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    world.page.book.full.store(5, Ordering::Relaxed);
    for user in 0..50 {
        world.send(start(user));
    }
    let mut users = Vec::new();
    for _ in 0..50 {
        users.push(world.page.next().await.0.user.0);
    }
    users.sort_unstable();
    assert_eq!(users, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn room_is_reserved_for_starts_and_cancels_apart_and_is_free_when_they_are_decided() {
    let told = Arc::new(tokio::sync::Notify::new());
    let mut gateway = Gateway::start([Answer::When(told.clone())]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    let calls = world.notify.calls();
    let reserve = || calls.try_reserve(OutletId::SMS, Verb::Start);
    world.send(start(7));
    let permits: Vec<_> = (1..STARTS_MAX).map(|_| reserve().unwrap()).collect();
    gateway.next().await;
    assert!(reserve().is_none(), "one is under way, the others are reserved");
    assert!(calls.try_reserve(OutletId::SMS, Verb::Cancel).is_some());
    assert!(calls.try_reserve(OutletId::PHONE, Verb::Start).is_some(), "another outlet has room of its own");
    told.notify_one();
    assert_eq!(world.page.next().await.2, Outcome::Accepted);
    let again = reserve().expect("the shard that sees a result finds its room");
    assert!(reserve().is_none());
    drop((permits, again));
    assert!(reserve().is_some());
}

#[tokio::test]
async fn a_broker_that_stops_breaks_off_what_is_under_way_and_decides_nothing() {
    let mut gateway = Gateway::start([Answer::Never, Answer::status(500)]).await;
    let patient = OutletOptions {
        concurrency: 1,
        backoff_first: LONG,
        backoff_max: LONG,
        tries_for: 4 * LONG,
        ..sms(&gateway.url)
    };
    let world = World::new(vec![patient]);
    for user in 0..10 {
        world.send(start(user));
    }
    gateway.next().await;
    let World { notify, mut page } = world;
    let calls = notify.calls();
    drop(notify);
    assert!(page.results.try_recv().is_err());
    // Who comes too late finds nobody, and no panic.
    if let Some(room) = calls.try_reserve(OutletId::SMS, Verb::Start) {
        room.send(start(77));
    }
    assert_eq!(gateway.rest(), 0);
}
