//! What goes out, and what a gateway's answers mean.

use super::gateway::Answer;
use super::*;
use serde_json::json;

#[tokio::test]
async fn a_start_is_posted_once_signed_and_accepted() {
    let mut gateway = Gateway::start([]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    assert_eq!(world.call().await, (Outcome::Accepted, Detail(202)));
    let seen = gateway.next().await;
    assert_eq!(seen.path, "/ding");
    assert_eq!(seen.header("webhook-id"), "ding-0000000000000001-7-2-start");
    assert_eq!(seen.header("content-type"), "application/json");
    assert!(seen.header("user-agent").starts_with("carillon/"));
    assert_eq!(gateway.url, format!("http://{}/ding", seen.header("host")));
    let (body, call) = (seen.json(), start(7));
    assert_eq!((&body["type"], &body["data"]["key"]), (&json!("ding.step.started"), &json!(call.key.to_string())));
    assert_eq!((&body["data"]["text"], &body["data"]["outlet"]), (&json!("Fire in hall 3 🔔"), &json!("sms")));
    assert_eq!(gateway.rest(), 0);
}

#[tokio::test]
async fn a_url_with_a_query_and_no_path_is_posted_to() {
    let mut gateway = Gateway::start([]).await;
    let mut world = World::new(vec![sms(&gateway.url.replace("/ding", "?token=x"))]);
    assert_eq!(world.call().await, (Outcome::Accepted, Detail(202)));
    assert_eq!(gateway.next().await.path, "/?token=x");
}

#[tokio::test]
async fn each_secret_of_a_rotation_verifies_what_is_sent() {
    let mut gateway = Gateway::start([]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    world.call().await;
    let seen = gateway.next().await;
    assert!(seen.is_signed_with(OLD) && seen.is_signed_with(NEW));
    assert!(!seen.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
}

#[tokio::test]
async fn an_answer_may_say_more_than_accepted() {
    for (body, outcome, detail) in [
        (r#"{"status":"accepted"}"#, Outcome::Accepted, Detail(200)),
        (r#"{"status":"delivered","more":[1]}"#, Outcome::Delivered, Detail(200)),
        (r#"{"status":"answered"}"#, Outcome::Answered, Detail(200)),
        (r#"{"status":"failed"}"#, Outcome::Failed, Detail::SAID_FAILED),
        (r#"{"status":"splendid"}"#, Outcome::Accepted, Detail(200)),
        ("<html>", Outcome::Accepted, Detail(200)),
        ("", Outcome::Accepted, Detail(200)),
    ] {
        let mut gateway = Gateway::start([Answer::body(200, body)]).await;
        let mut world = World::new(vec![sms(&gateway.url)]);
        assert_eq!(world.call().await, (outcome, detail), "{body}");
        gateway.next().await;
        assert_eq!(gateway.rest(), 0, "{body}");
    }
}

#[tokio::test]
async fn what_may_be_better_later_is_tried_again_under_the_same_key_and_with_the_same_body() {
    for status in [500, 502, 503, 504, 408, 425, 429] {
        let mut gateway = Gateway::start([Answer::status(status), Answer::status(status)]).await;
        let mut world = World::new(vec![sms(&gateway.url)]);
        assert_eq!(world.call().await, (Outcome::Accepted, Detail(202)), "{status}");
        let (first, second, third) = (gateway.next().await, gateway.next().await, gateway.next().await);
        assert_eq!((&first.body, &second.body), (&second.body, &third.body));
        assert_eq!(first.header("webhook-id"), third.header("webhook-id"));
        assert!(third.is_signed_with(NEW));
        assert_eq!(gateway.rest(), 0);
    }
}

#[tokio::test]
async fn tries_come_to_an_end() {
    let mut gateway = Gateway::start((0..9).map(|_| Answer::status(500))).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    assert_eq!(world.call().await, (Outcome::Failed, Detail(500)));
    assert_eq!(gateway.rest(), 3);
}

#[tokio::test]
async fn what_is_refused_fails_at_once() {
    for status in [400, 401, 403, 404, 405, 410, 413, 422] {
        let mut gateway = Gateway::start([Answer::status(status)]).await;
        let mut world = World::new(vec![sms(&gateway.url)]);
        assert_eq!(world.call().await, (Outcome::Failed, Detail(status)));
        assert_eq!(gateway.rest(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_expiry_fails_at_once() {
    let answer = || Answer::Now(429, ("retry-after", "120".into()), String::new());
    let mut gateway = Gateway::start([answer()]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    let call = start(7);
    world.send(Call { expires_at: Timestamp(call.started_at.0 + 100_000), ..call });
    assert_eq!(world.page.next().await, (key(7), Verb::Start, Outcome::Failed, Detail(429)));
    assert_eq!(gateway.rest(), 1);
    // One that can be waited for is.
    gateway.answer(Answer::Now(429, ("retry-after", "0".into()), String::new()));
    assert_eq!(world.call().await, (Outcome::Accepted, Detail(202)));
    assert_eq!(gateway.rest(), 2);
}

#[tokio::test]
async fn a_cancel_goes_out_under_the_key_of_its_start_and_carries_no_content() {
    let mut gateway = Gateway::start([]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    world.call().await;
    world.send(cancel(7));
    assert_eq!(world.page.next().await, (key(7), Verb::Cancel, Outcome::Done, Detail(202)));
    let (started, cancelled) = (gateway.next().await, gateway.next().await);
    assert_eq!(started.json()["data"]["key"], cancelled.json()["data"]["key"]);
    assert_ne!(started.header("webhook-id"), cancelled.header("webhook-id"));
    assert_eq!(cancelled.header("webhook-id"), "ding-0000000000000001-7-2-cancel");
    assert_eq!(cancelled.json()["type"], "ding.step.cancelled");
    assert!(cancelled.json()["data"].get("text").is_none());
    assert!(cancelled.is_signed_with(NEW));
}

#[tokio::test]
async fn a_cancel_while_backing_off_ends_the_tries_and_goes_out() {
    let mut gateway = Gateway::start([Answer::status(500)]).await;
    // It will be tried again, long after this test.
    let patient = OutletOptions { backoff_first: LONG, backoff_max: LONG, tries_for: 4 * LONG, ..sms(&gateway.url) };
    let mut world = World::new(vec![patient]);
    world.send(Call { expires_at: Timestamp(u64::MAX), ..start(7) });
    assert_eq!(gateway.next().await.json()["type"], "ding.step.started");
    world.send(cancel(7));
    assert_eq!(world.page.next().await, (key(7), Verb::Start, Outcome::Failed, Detail::CANCELLED));
    assert_eq!(gateway.next().await.json()["type"], "ding.step.cancelled");
    assert_eq!(world.page.next().await, (key(7), Verb::Cancel, Outcome::Done, Detail(202)));
}

#[tokio::test]
async fn a_start_whose_ding_has_expired_is_not_posted() {
    let mut gateway = Gateway::start([]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    world.send(Call { expires_at: Timestamp(1), ..start(7) });
    assert_eq!(world.page.next().await, (key(7), Verb::Start, Outcome::Failed, Detail::EXPIRED));
    assert_eq!(gateway.rest(), 0);
}

#[tokio::test]
async fn as_many_posts_are_under_way_as_the_outlet_may_have() {
    // Each waits until three are there: less than three at once would never end. That it is no more, a test of the outlet says.
    let barrier = Arc::new(tokio::sync::Barrier::new(3));
    let mut gateway = Gateway::start((0..30).map(|_| Answer::Together(barrier.clone()))).await;
    let mut world = World::new(vec![OutletOptions { concurrency: 3, ..sms(&gateway.url) }]);
    for user in 0..30 {
        world.send(start(user));
    }
    let mut most = 0;
    for _ in 0..30 {
        assert_eq!(world.page.next().await.2, Outcome::Accepted);
        most = most.max(gateway.next().await.under_way);
    }
    assert_eq!(most, 3);
}

#[tokio::test]
async fn an_outlet_that_is_dead_holds_up_no_other() {
    let mut dead = Gateway::start((0..64).map(|_| Answer::Never)).await;
    let mut alive = Gateway::start([]).await;
    let phone = OutletOptions { id: OutletId::PHONE, name: "phone".into(), ..sms(&alive.url) };
    let mut world = World::new(vec![OutletOptions { concurrency: 2, ..sms(&dead.url) }, phone]);
    for user in 0..64 {
        world.send(start(user));
    }
    dead.next().await;
    world.send(Call { outlet: OutletId::PHONE, ..start(7) });
    assert_eq!(world.page.results.recv().await.unwrap().outlet, OutletId::PHONE);
    assert_eq!(alive.next().await.json()["data"]["outlet"], "phone");
}

#[tokio::test]
async fn the_body_of_a_shard_s_call_is_the_one_of_the_documentation() {
    let page = include_str!("../../../../docs/DING.md");
    let [started, cancelled] = shard::documented();
    let voice = Call { kind: MessageKind::VOICE, payload: Bytes::from_static(&[0, 159, 255]), ..started.clone() };
    let secrets = Secrets::parse([NEW]).unwrap();
    for (call, sent_s) in [(started, 1_795_809_661), (cancelled, 1_795_809_686)] {
        let (id, body) = (body::id(&call), body::body(&call, "sms"));
        let signature = secrets.sign(&id, sent_s, &body);
        for line in [
            format!("webhook-id: {id}"),
            format!("webhook-timestamp: {sent_s}"),
            format!("webhook-signature: {signature}"),
            format!("content-length: {}", body.len()),
            String::from_utf8(body).unwrap(),
        ] {
            assert!(page.lines().any(|found| found == line), "docs/DING.md lacks the line\n{line}");
        }
    }
    let body = body::body(&voice, "sms");
    let data: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&data["data"]["kind"], &data["data"]["payload"]), (&json!("voice"), &json!("AJ//")));
    assert!(data["data"].get("text").is_none());
}
