//! Members come and go while messages flow: each gets exactly what its stints entitle it to, live or later.

use std::collections::BTreeMap;

use carillon_client::{
    Change, Client, ConversationId, ErrorCode, Event, Events, Membership, MessageKind, Position, Published, Role, Seq,
};
use carillon_tests::harness::{
    Broker, connect, group_of, next_membership, next_message, next_texts, next_that, patiently, publish_refusal,
    refusal, say,
};
use tokio::sync::{mpsc, watch};

/// What a device was told, in the order it was told: positions, with what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Message(Seq, Position),
    Change(Change, Position),
}

/// Reads up to the change that ends the test: the user is made an admin.
async fn read_to_promotion(mut events: Events) -> Vec<Told> {
    let mut told = Vec::new();
    loop {
        let next = next_that(&mut events, |event| match event {
            Event::Message(message) => Some(Told::Message(message.seq, message.position)),
            Event::Membership(membership) => Some(Told::Change(membership.changed.change, membership.position)),
            _ => None,
        });
        let next = next.await;
        told.push(next);
        if let Told::Change(Change::ROLE, _) = next {
            return told;
        }
    }
}

/// Publishes without pause until `stop` is dropped; says each result.
fn stream(client: &Client, group: ConversationId, count: watch::Sender<u64>, stop: mpsc::Sender<()>) -> Stream {
    let (client, (handles_in, mut handles)) = (client.clone(), mpsc::channel(256));
    tokio::spawn(async move {
        while !stop.is_closed() {
            let handle = client.enqueue(group, MessageKind::TEXT, "flow").await.expect("it is enqueued");
            handles_in.send(handle).await.expect("its result is awaited");
        }
    });
    tokio::spawn(async move {
        let mut published: Vec<Published> = Vec::new();
        while let Some(handle) = handles.recv().await {
            published.push(handle.await.expect("it is accepted"));
            count.send_modify(|count| *count += 1);
        }
        published
    })
}

type Stream = tokio::task::JoinHandle<Vec<Published>>;

/// So many more messages are accepted.
async fn flow(count: &mut watch::Receiver<u64>, more: u64) {
    let until = *count.borrow() + more;
    patiently(count.wait_for(|count| *count >= until)).await.expect("messages flow");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_and_goes_while_messages_flow_gets_what_its_stints_entitle_it_to() {
    const STINTS: usize = 8;
    let broker = Broker::start();
    let (owner, _owner_events) = broker.client("owner").await;
    let (anna, anna_events) = broker.client("anna").await;
    let (ben, ben_events) = broker.client("ben").await;
    drop((anna_events, ben_events));
    let (carol, mut carol_events) = broker.client("carol").await;
    let (dora, dora_events) = broker.client("dora").await;
    let (_dora_phone, dora_phone_events) = broker.client("dora").await;
    let (eve, eve_events) = broker.client("eve").await;
    patiently(eve.close()).await;
    drop(eve_events);
    let group = group_of(&owner, &[anna.user(), ben.user(), carol.user()]).await;

    let live = [tokio::spawn(read_to_promotion(dora_events)), tokio::spawn(read_to_promotion(dora_phone_events))];
    let (count_in, mut count) = watch::channel(0);
    let (stop, stopped) = mpsc::channel(1);
    let streams = [stream(&anna, group, count_in.clone(), stop.clone()), stream(&ben, group, count_in, stop)];
    let joining = [dora.user(), eve.user()];
    let mut late = Vec::new();
    for nth in 0..STINTS {
        flow(&mut count, 150).await;
        patiently(owner.add_members(group, &joining, Role::MEMBER)).await.unwrap();
        flow(&mut count, 150).await;
        // Devices that come in the middle of a stint, and in the middle of the time between two.
        late.push(connect(broker.site.config(broker.address, "dora")).await);
        if nth % 2 == 0 {
            patiently(owner.remove_members(group, &joining)).await.unwrap();
        } else {
            // A removal of one's own ends a stint as one by the owner does.
            patiently(owner.remove_members(group, &joining[1..])).await.unwrap();
            patiently(dora.leave(group)).await.unwrap();
        }
        if nth % 4 == 0 {
            late.push(connect(broker.site.config(broker.address, "eve")).await);
        }
    }
    flow(&mut count, 150).await;
    drop(stopped);
    let mut published = BTreeMap::new();
    for stream in streams {
        published.extend(patiently(stream).await.unwrap().into_iter().map(|done| (done.position, done.seq)));
    }
    // The end that every reader of these two waits for.
    for role in [Role::MEMBER, Role::ADMIN] {
        patiently(owner.add_members(group, &joining, role)).await.unwrap();
    }
    for handle in ["dora", "eve"] {
        late.push(connect(broker.site.config(broker.address, handle)).await);
    }

    let mut checked = BTreeMap::new();
    let mut readers: Vec<_> = Vec::from(live.map(|reading| (dora.user(), reading)));
    let mut clients = Vec::new();
    for (client, events) in late {
        readers.push((client.user(), tokio::spawn(read_to_promotion(events))));
        clients.push(client);
    }
    for (user, reading) in readers {
        let told = patiently(reading).await.unwrap();
        check(&told, &published, STINTS + 1);
        // All devices of a user are told the same.
        assert_eq!(*checked.entry(user).or_insert_with(|| told.clone()), told);
    }
    assert_eq!(checked.len(), 2);
    // Nobody else noticed.
    for (seq, (position, _)) in (1..).zip(&published) {
        let message = next_message(&mut carol_events).await;
        assert_eq!((message.seq.0, message.position), (seq, *position));
    }
}

/// Between each `ADDED` and the next `REMOVED` or `LEFT` lies everything that was published there, and outside lies nothing.
fn check(told: &[Told], published: &BTreeMap<Position, Seq>, stints: usize) {
    let mut entitled = Vec::new();
    let mut joined = None;
    let mut begun = 0;
    for told in told {
        match *told {
            Told::Change(Change::ADDED, position) => {
                assert_eq!(joined.replace(position), None);
                begun += 1;
                entitled.push(*told);
            }
            Told::Change(change, position) => {
                let joined = if change == Change::ROLE { joined } else { joined.take() };
                let stint = published.range(joined.expect("it was a member")..position);
                entitled.extend(stint.map(|(position, seq)| Told::Message(*seq, *position)));
                entitled.push(*told);
            }
            Told::Message(..) => {}
        }
    }
    assert_eq!(begun, stints);
    assert_eq!(told, entitled, "what was told is what the stints entitle to, in position order");
    let messages = told.iter().filter(|told| matches!(told, Told::Message(..))).count();
    assert!(messages >= 100 * (stints - 1) && messages < published.len(), "{messages} messages inside the stints");
}

#[tokio::test(flavor = "multi_thread")]
async fn stints_are_kept_to_the_message() {
    let mut broker = Broker::start();
    let (owner, mut owner_events) = broker.client("owner").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (dan, dan_events) = broker.client("dan").await;
    patiently(dan.close()).await;
    drop(dan_events);
    let group = group_of(&owner, &[]).await;
    let both = [bob.user(), dan.user()];
    let (mut inside, mut all) = (Vec::new(), Vec::new());
    for nth in 0..5 {
        let texts = [format!("before {nth}"), format!("first {nth}"), format!("last {nth}"), format!("after {nth}")];
        say(&owner, group, &texts[0]).await;
        patiently(owner.add_members(group, &both, Role::MEMBER)).await.unwrap();
        say(&owner, group, &texts[1]).await;
        if nth == 2 {
            // Stints outlive the broker.
            broker.stop().await;
            broker.start_again();
        }
        say(&owner, group, &texts[2]).await;
        patiently(owner.remove_members(group, &both)).await.unwrap();
        say(&owner, group, &texts[3]).await;
        inside.extend_from_slice(&texts[1..=2]);
        all.extend(texts);
    }
    // Afterwards there is something that both may have: nothing else came before it.
    for user in both {
        say(&owner, user, "the end").await;
    }
    inside.push("the end".to_owned());
    let (_dan, mut dan_events) = broker.client("dan").await;
    let (_bob_tablet, mut tablet_events) = broker.client("bob").await;
    for events in [&mut bob_events, &mut dan_events, &mut tablet_events] {
        assert_eq!(next_texts(events, inside.len()).await, inside);
    }
    assert_eq!(next_texts(&mut owner_events, all.len()).await, all);
}

fn changed(membership: &Membership) -> (ConversationId, Change, Role, carillon_client::UserId) {
    let changed = &membership.changed;
    (changed.conversation, changed.change, changed.role, changed.by)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_an_event_of_the_personal_conversation() {
    let broker = Broker::start();
    let (owner, mut owner_events) = broker.client("owner").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&owner, &[]).await;
    let (owner_id, bob_id) = (owner.user(), bob.user());
    let one = [bob_id];
    patiently(owner.add_members(group, &one, Role::MEMBER)).await.unwrap();
    patiently(owner.add_members(group, &one, Role::MEMBER)).await.unwrap();
    patiently(owner.add_members(group, &one, Role::ADMIN)).await.unwrap();
    patiently(owner.remove_members(group, &one)).await.unwrap();
    patiently(owner.remove_members(group, &one)).await.unwrap();
    patiently(owner.add_members(group, &one, Role::OWNER)).await.unwrap();
    patiently(bob.leave(group)).await.unwrap();
    let expected = [
        (group, Change::ADDED, Role::MEMBER, owner_id),
        (group, Change::ROLE, Role::ADMIN, owner_id),
        (group, Change::REMOVED, Role::ADMIN, owner_id),
        (group, Change::ADDED, Role::OWNER, owner_id),
        (group, Change::LEFT, Role::OWNER, bob_id),
    ];
    let (_phone, mut phone_events) = broker.client("bob").await;
    for events in [&mut bob_events, &mut phone_events] {
        let mut last: Option<Membership> = None;
        for expected in expected {
            let heard = next_membership(events).await;
            assert_eq!(changed(&heard), expected);
            if let Some(last) = last {
                assert_eq!((heard.personal, heard.seq), (last.personal, last.seq.next()));
                assert!(heard.position > last.position);
            }
            last = Some(heard);
        }
    }
    // The others' conversations are their own: the owner hears of its own membership alone.
    let heard = next_membership(&mut owner_events).await;
    assert_eq!(changed(&heard), (group, Change::ADDED, Role::OWNER, owner_id));
    say(&bob, owner_id, "bye").await;
    let next = next_membership(&mut owner_events).await;
    assert_ne!(next.changed.conversation, group, "the next it hears is of the direct conversation");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_is_out_and_the_others_go_on() {
    let broker = Broker::start();
    let (owner, _owner_events) = broker.client("owner").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (carol, mut carol_events) = broker.client("carol").await;
    let group = group_of(&owner, &[bob.user(), carol.user()]).await;
    say(&bob, group, "hello").await;
    patiently(bob.leave(group)).await.unwrap();
    say(&owner, group, "is bob here?").await;
    say(&carol, group, "no").await;

    assert_eq!(refusal(patiently(bob.leave(group)).await), ErrorCode::NOT_FOUND);
    let refused = patiently(bob.publish(group, MessageKind::TEXT, "I am")).await;
    assert_eq!(publish_refusal(refused), ErrorCode::NOT_FOUND);
    assert_eq!(refusal(patiently(bob.members(group)).await), ErrorCode::NOT_FOUND);
    let listed = patiently(bob.conversations()).await.unwrap();
    assert!(listed.iter().all(|one| one.entry.conversation != group));
    let members: Vec<_> = patiently(carol.members(group)).await.unwrap().iter().map(|member| member.user).collect();
    assert_eq!(members, [owner.user(), carol.user()]);

    // The last owner stays while there are others, and may go when there is another owner.
    assert_eq!(refusal(patiently(owner.leave(group)).await), ErrorCode::FORBIDDEN);
    patiently(owner.add_members(group, &[carol.user()], Role::OWNER)).await.unwrap();
    patiently(owner.leave(group)).await.unwrap();
    say(&carol, group, "alone").await;
    assert_eq!(next_texts(&mut carol_events, 4).await, ["hello", "is bob here?", "no", "alone"]);
    say(&carol, bob.user(), "come back").await;
    assert_eq!(next_texts(&mut bob_events, 2).await, ["hello", "come back"]);
    // Alone, an owner may leave: nobody stays without one.
    patiently(carol.leave(group)).await.unwrap();
    assert_eq!(refusal(patiently(carol.members(group)).await), ErrorCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changes_nothing_about_what_one_gets() {
    let broker = Broker::start();
    let (owner, _owner_events) = broker.client("owner").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&owner, &[bob.user()]).await;
    for role in [Role::ADMIN, Role::MEMBER, Role::OWNER, Role::ADMIN] {
        say(&owner, group, format!("before {role:?}")).await;
        patiently(owner.add_members(group, &[bob.user()], role)).await.unwrap();
    }
    let (_phone, mut phone_events) = broker.client("bob").await;
    for events in [&mut bob_events, &mut phone_events] {
        for role in [Role::ADMIN, Role::MEMBER, Role::OWNER, Role::ADMIN] {
            assert_eq!(next_message(events).await.payload, format!("before {role:?}"));
            assert_eq!(next_membership(events).await.changed.role, role);
        }
    }
}
