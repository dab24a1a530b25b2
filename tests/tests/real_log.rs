//! Real input: the lines of a log of this machine, through the command, into a group of 1,000.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use carillon_client::protocol::ids::{ConversationId, UserId};
use carillon_client::{Client, Events, MessageKind, NewConversation};
use carillon_tests::harness::{Process, TENANT, binary, connect, next_message, patiently};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The group: one of them comes when all is over.
const MEMBERS: usize = 1_000;

/// A few thousand lines.
const LINES_MAX: usize = 3_000;

/// Handshakes under way at once.
const CONNECTING_MAX: usize = 32;

/// What comes last, so that "exactly those lines" can be told.
const END: &str = "that was all";

/// Lines of the package manager's log, or else of its database, which every Debian has.
fn real_lines() -> Vec<String> {
    let files = ["/var/log/dpkg.log", "/var/lib/dpkg/status", "/proc/kallsyms"];
    let readable = files.iter().filter_map(|file| std::fs::read(Path::new(file)).ok());
    let long_enough = readable.map(|bytes| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().take(LINES_MAX).map(str::to_owned).collect::<Vec<_>>()
    });
    let lines = long_enough.into_iter().find(|lines| lines.len() >= 1_000);
    lines.expect("this machine has a log of a thousand lines")
}

/// Each session has a socket.
fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    #[allow(unsafe_code, reason = "the standard library cannot raise the limit of open files")]
    // SAFETY: both calls get a pointer to a live rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

fn handle(nth: usize) -> String {
    format!("member-{nth}")
}

async fn make_group(broker: &Process) -> (Client, ConversationId) {
    let config = broker.site.config_with(broker.address, broker.site.token("directory", "service"));
    let (service, events) = connect(config).await;
    drop(events);
    let mut users: Vec<UserId> = Vec::new();
    for nth in 0..MEMBERS {
        users.push(patiently(service.create_user(&handle(nth))).await.expect("a user is made"));
    }
    // The service owns the group, and stands in it beside the members.
    let (first, rest) = users.split_at(1);
    let group = patiently(service.create_conversation(NewConversation::group(first).named("log")))
        .await
        .expect("a group is made");
    patiently(service.add_members(group.conversation, rest, carillon_client::protocol::kinds::Role::MEMBER))
        .await
        .expect("members are added");
    (service, group.conversation)
}

async fn connect_all(broker: &Arc<Process>) -> Vec<(Client, Events)> {
    let room = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut connecting = JoinSet::new();
    for nth in 0..MEMBERS - 1 {
        let (broker, room) = (broker.clone(), room.clone());
        connecting.spawn(async move {
            let _turn = room.acquire().await.expect("it is not closed");
            connect(broker.site.config(broker.address, &handle(nth))).await
        });
    }
    connecting.join_all().await
}

/// Reads what a member gets, to the end.
async fn read(mut events: Events, lines: Arc<Vec<String>>) {
    for (nth, line) in lines.iter().enumerate() {
        let message = next_message(&mut events).await;
        assert_eq!(message.payload, line.as_bytes(), "line {nth}");
        assert_eq!(message.seq.0, nth as u64 + 1);
    }
    assert_eq!(next_message(&mut events).await.payload, END);
}

fn publish_through_the_command(broker: &Process, lines: &[String]) {
    let context = broker.site.data().join("context.toml");
    let text = format!(
        "address = \"{}\"\nserver_name = \"localhost\"\nca = \"ca.pem\"\ntenant = \"{TENANT}\"\n\
         token_key = \"token.key\"\nstate = \"state\"\n",
        broker.address
    );
    std::fs::write(&context, text).expect("a context");
    let mut command = Command::new(binary());
    command.args(["pub", "--user", &handle(0), "--conversation", "log", "--lines", "--context"]).arg(&context);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all((lines.join("\n") + "\n").as_bytes()).expect("it reads all");
    drop(input);
    assert!(child.wait().expect("it ends").success(), "carillon pub --lines failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_log_reaches_a_thousand_members_in_order() {
    raise_open_files();
    let lines = Arc::new(real_lines());
    let broker = Arc::new(Process::start());
    let (_service, group) = make_group(&broker).await;
    let sessions = connect_all(&broker).await;

    let mut clients = Vec::new();
    let mut reading = JoinSet::new();
    for (client, events) in sessions {
        clients.push(client);
        reading.spawn(read(events, lines.clone()));
    }
    let publishing = {
        let (broker, lines) = (broker.clone(), lines.clone());
        tokio::task::spawn_blocking(move || publish_through_the_command(&broker, &lines))
    };
    publishing.await.unwrap();
    let (publisher, _events) = connect(broker.site.config(broker.address, &handle(0))).await;
    patiently(publisher.publish(group, MessageKind::TEXT, END)).await.unwrap();
    let mut done = 0;
    while let Some(read) = reading.join_next().await {
        read.unwrap();
        done += 1;
    }
    assert_eq!(done, MEMBERS - 1);

    let (late, events) = connect(broker.site.config(broker.address, &handle(MEMBERS - 1))).await;
    read(events, lines.clone()).await;
    drop((late, clients));
    println!("{} lines to {MEMBERS} members, one of them late: all there, in order", lines.len());
}
