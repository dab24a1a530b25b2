//! What sessions do not read may keep so much memory alive and no more: then those that owe for longest are closed, and resume.

use carillon::edge::limits::Limits;
use carillon_client::protocol::control::UserLookup;
use carillon_client::{ConversationId, ErrorCode, UserId};
use carillon_protocol::Frame;
use carillon_tests::harness::{Broker, group_of, next_message, say};
use carillon_tests::raw::{Dial, Session, hello};
use carillon_transport::TransportConfig;

const DEAF_SESSIONS: usize = 8;

/// So many go to each deaf session, each in a batch of its own: more than its window of 256 KiB takes.
const MESSAGES: u64 = 40;
const PAYLOAD_BYTES: usize = 8 * 1024;

/// On each of the two edges: two full windows, and what those who read have in flight.
const PINNED_BYTES_MAX: usize = 800 * 1024;

/// A session of a user that does nothing any more unless it is asked to.
fn deaf(broker: &Broker, nth: usize) -> Session {
    Dial::new(&broker.site, broker.address).attach(&hello(&broker.site, &format!("deaf-{nth}"), 1)).expect("a session")
}

fn talk(nth: u64) -> String {
    let mut text = nth.to_string();
    text.extend(std::iter::repeat_n('.', PAYLOAD_BYTES - text.len()));
    text
}

/// Whether the session lives; what lay in its inbox is read meanwhile.
fn is_alive(session: &mut Session) -> bool {
    match session.request(&UserLookup { request: 1, users: vec![UserId(0)] }) {
        Ok(Frame::UserHandles(_)) => true,
        Ok(other) => panic!("a lookup was answered by {other:?}"),
        Err(closed) => {
            closed.check(ErrorCode::SLOW, "a deaf session");
            false
        }
    }
}

fn read_all(session: &mut Session, group: ConversationId) {
    let mut next = 1;
    while next <= MESSAGES {
        if let Frame::Deliver(deliver) = session.next_of_inbox().expect("it reads")
            && deliver.conversation == group
        {
            assert_eq!(deliver.seq.0, next);
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_owe_acknowledgements_for_longest_are_closed_and_resume() {
    // The test is faster than anybody is patient.
    let limits = Limits { pinned_bytes_max: PINNED_BYTES_MAX, owes_ms_min: 0, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let (alice, alice_events) = broker.client("alice").await;
    drop(alice_events);
    let (reader, mut reader_events) = broker.client("reader").await;
    // It owes for longest, and so little that nobody is helped if it goes.
    let mut vanished = deaf(&broker, DEAF_SESSIONS);
    let aside = group_of(&alice, &[vanished.welcome.user]).await;
    say(&alice, aside, "are you there?").await;
    let (mut sessions, mut groups) = (vec![], vec![]);
    for nth in 0..DEAF_SESSIONS {
        // It owes an acknowledgement from now on: of the little that it gets at first.
        let session = deaf(&broker, nth);
        let group = group_of(&alice, &[session.welcome.user, reader.user()]).await;
        groups.push(group);
        for nth in 1..=MESSAGES {
            say(&alice, group, talk(nth)).await;
            // Who reads is never in the way.
            let message = next_message(&mut reader_events).await;
            assert_eq!((message.conversation, message.seq.0), (group, nth));
        }
        sessions.push(session);
    }
    assert!(is_alive(&mut vanished));
    // The last one had no time to become the worst: it goes on where it was.
    let mut last = sessions.pop().expect("there are some");
    assert!(is_alive(&mut last));
    read_all(&mut last, groups[DEAF_SESSIONS - 1]);
    last.raw.close();
    vanished.raw.close();
    // Of two edges one has four of the sessions at least, and room for three at most.
    let alive: Vec<bool> = sessions.iter_mut().map(is_alive).collect();
    assert!(alive.contains(&false), "none was closed");
    sessions.into_iter().for_each(|session| session.raw.close());
    // Closed or not, nothing is lost to any of them.
    for (nth, group) in groups.into_iter().enumerate() {
        read_all(&mut deaf(&broker, nth), group);
    }
    // The edges have taken turns since they closed them.
    let text = broker.metrics();
    let counts = text.lines().filter(|line| line.starts_with("carillon_closed_as_slow_total{"));
    let counted: f64 = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
    let closed = alive.iter().filter(|alive| !**alive).count();
    assert!(counted >= f64::from(u32::try_from(closed).expect("a few")), "{closed} were closed:\n{text}");
}
