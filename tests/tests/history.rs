//! Pages of history: in both directions, over the gaps between stints, bounded in bytes, and to nobody who may not.

use carillon_client::{
    Client, ConversationId, Direction, ErrorCode, MessageKind, NewConversation, Page, Role, Seq, UserId,
};
use carillon_tests::harness::{Broker, group_of, next_message, patiently, refusal, say};

const NEWEST: Seq = Seq(u64::MAX);

async fn page(client: &Client, of: ConversationId, from: Seq, direction: Direction, limit: u16) -> Page {
    patiently(client.history(of, from, direction, limit)).await.expect("one's own history")
}

fn seqs(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|message| message.seq.0).collect()
}

/// Everything in one direction, page by page.
async fn all(client: &Client, of: ConversationId, from: Seq, direction: Direction, limit: u16) -> Vec<u64> {
    let (mut next, mut found) = (Some(from), Vec::new());
    while let Some(from) = next {
        let page = page(client, of, from, direction, limit).await;
        assert!(page.messages.len() <= usize::from(limit));
        if direction == Direction::BACKWARD {
            found.splice(0..0, seqs(&page));
        } else {
            found.extend(seqs(&page));
        }
        next = page.next;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_pages_through_a_conversation_in_both_directions() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for number in 1..=25 {
        say(&alice, group, format!("message {number}")).await;
    }
    let newest = page(&bob, group, NEWEST, Direction::BACKWARD, 10).await;
    assert_eq!(seqs(&newest), (16..=25).collect::<Vec<_>>());
    assert_eq!((newest.next, newest.truncated), (Some(Seq(15)), Seq(0)));
    for message in &newest.messages {
        assert_eq!(message.payload, format!("message {}", message.seq));
        assert_eq!((message.author, message.conversation), (alice.user(), group));
    }
    let forward = page(&bob, group, Seq(7), Direction::FORWARD, 3).await;
    assert_eq!((seqs(&forward), forward.next), (vec![7, 8, 9], Some(Seq(10))));
    let beyond = page(&bob, group, Seq(26), Direction::FORWARD, 3).await;
    assert_eq!((seqs(&beyond), beyond.next), (vec![], None));
    for limit in [1, 7, 25, 1_000] {
        assert_eq!(all(&bob, group, NEWEST, Direction::BACKWARD, limit).await, (1..=25).collect::<Vec<_>>());
        assert_eq!(all(&bob, group, Seq(0), Direction::FORWARD, limit).await, (1..=25).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_so_many_bytes_and_at_least_one_message() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let group = group_of(&alice, &[]).await;
    for bytes in [60_000, 100, 64 * 1024, 30_000, 40_000, 30_000, 10] {
        patiently(alice.publish(group, MessageKind::FILE, vec![7; bytes])).await.unwrap();
    }
    let newest = page(&alice, group, NEWEST, Direction::BACKWARD, 100).await;
    assert_eq!((seqs(&newest), newest.next), (vec![6, 7], Some(Seq(5))), "40,000 more do not fit");
    let largest = page(&alice, group, Seq(3), Direction::BACKWARD, 100).await;
    assert_eq!((seqs(&largest), largest.next), (vec![3], Some(Seq(2))));
    assert_eq!(largest.messages[0].payload.len(), 64 * 1024);
    let first = page(&alice, group, Seq(1), Direction::FORWARD, 100).await;
    assert_eq!((seqs(&first), first.next), (vec![1, 2], Some(Seq(3))));
    for direction in [Direction::BACKWARD, Direction::FORWARD] {
        let from = if direction == Direction::BACKWARD { NEWEST } else { Seq(1) };
        assert_eq!(all(&alice, group, from, direction, 100).await, (1..=7).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_had_by_stint_and_answers_others_as_if_there_were_none() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let group = group_of(&alice, &[]).await;
    let bobs: [UserId; 1] = [bob.user()];
    // Seqs 1 to 3 before bob, 4 to 6 with him, 7 to 9 without, 10 to 12 with him.
    for round in 0..4 {
        if round % 2 == 1 {
            alice.add_members(group, &bobs, Role::MEMBER).await.unwrap();
        } else if round == 2 {
            alice.remove_members(group, &bobs).await.unwrap();
        }
        for _ in 0..3 {
            say(&alice, group, "a line").await;
        }
    }
    assert_eq!(all(&bob, group, NEWEST, Direction::BACKWARD, 4).await, [4, 5, 6, 10, 11, 12]);
    assert_eq!(all(&bob, group, Seq(1), Direction::FORWARD, 2).await, [4, 5, 6, 10, 11, 12]);
    alice.remove_members(group, &bobs).await.unwrap();
    say(&alice, group, "without bob again").await;
    assert_eq!(
        all(&bob, group, NEWEST, Direction::BACKWARD, 100).await,
        [4, 5, 6, 10, 11, 12],
        "what was his stays his"
    );

    let foreign = carol.history(group, NEWEST, Direction::BACKWARD, 10).await;
    // The last one has an ordinal that no shard ever gives out.
    for nowhere in [4_711, 0xffff_0000_0000_0001, 0xffff_ffff_ffff] {
        let absent = carol.history(ConversationId(nowhere), NEWEST, Direction::BACKWARD, 10).await;
        assert_eq!(format!("{foreign:?}"), format!("{absent:?}"));
        assert_eq!(refusal(carol.read_counts(ConversationId(nowhere), Seq(1)).await), ErrorCode::NOT_FOUND);
    }
    assert_eq!(refusal(foreign), ErrorCode::NOT_FOUND);
    assert_eq!(refusal(alice.history(group, NEWEST, Direction(9), 10).await), ErrorCode::INVALID);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_may_let_its_members_have_what_was_before_them() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let open = alice.create_conversation(NewConversation::group([]).with_full_history()).await.unwrap().conversation;
    for _ in 0..3 {
        say(&alice, open, "before bob").await;
    }
    assert_eq!(refusal(bob.history(open, NEWEST, Direction::BACKWARD, 10).await), ErrorCode::NOT_FOUND);
    alice.add_members(open, &[bob.user()], Role::MEMBER).await.unwrap();
    say(&alice, open, "with bob").await;
    let first = next_message(&mut bob_events).await;
    assert_eq!(first.seq, Seq(4), "what was before comes as history alone");
    assert_eq!(all(&bob, open, NEWEST, Direction::BACKWARD, 10).await, [1, 2, 3, 4]);
    alice.remove_members(open, &[bob.user()]).await.unwrap();
    say(&alice, open, "without bob").await;
    assert_eq!(all(&bob, open, Seq(1), Direction::FORWARD, 10).await, [1, 2, 3, 4], "and ends where his stint ended");
    let policies: Vec<_> =
        alice.conversations().await.unwrap().iter().map(|c| (c.entry.conversation, c.entry.history)).collect();
    assert!(policies.contains(&(open, carillon_client::HistoryPolicy::FULL)), "{policies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pages_at_once_come_each_to_its_request() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let group = group_of(&alice, &[]).await;
    for number in 1..=40 {
        patiently(alice.publish(group, MessageKind::FILE, vec![number; 20_000])).await.unwrap();
    }
    let mut pages = Vec::new();
    for from in 1..=40 {
        let alice = alice.clone();
        pages.push(tokio::spawn(async move { page(&alice, group, Seq(from), Direction::FORWARD, 2).await }));
    }
    for (from, page) in (1..).zip(pages) {
        let page = patiently(page).await.unwrap();
        assert_eq!(seqs(&page), if from < 40 { vec![from, from + 1] } else { vec![40] });
        assert!(page.messages.iter().all(|message| message.payload.iter().all(|b| u64::from(*b) == message.seq.0)));
    }
}
