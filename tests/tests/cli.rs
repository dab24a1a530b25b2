//! The command for programs and at scale: streams of messages, lists, statuses, exit codes; each against a broker in this process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use carillon::material::SERVER_NAME;
use carillon_client::{Client, ConversationId, SignalKind};
use carillon_tests::harness::{Broker, TENANT, binary, patiently};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A broker, and a terminal that has its context.
struct Desk {
    broker: Broker,
    directory: TempDir,
}

impl Desk {
    fn new(users: &[&str]) -> Self {
        let broker = Broker::start();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (ca, key) = (broker.site.material.ca.display(), broker.site.material.token_key.display());
        let context = format!(
            "address = \"{}\"\nserver_name = \"{SERVER_NAME}\"\nca = \"{ca}\"\ntenant = \"{TENANT}\"\n\
             token_key = \"{key}\"\nstate = \"state\"\n",
            broker.address
        );
        std::fs::write(directory.path().join("context.toml"), context).expect("a context");
        let desk = Self { broker, directory };
        if !users.is_empty() {
            desk.good(&[&["user", "add"], users].concat());
        }
        desk
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(&self.directory).args(arguments).env("CARILLON_CONTEXT", "context.toml");
        command.env_remove("CARILLON_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }

    /// Runs it with this on standard input.
    fn feed(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("the command starts");
        // A command that ended early does not read all of it.
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).ok();
        child.wait_with_output().expect("it ends")
    }

    /// Runs what must go well.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Runs what must go well and prints objects.
    fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        objects(&self.good(&[arguments, &["--json"]].concat()))
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("it is text")
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn check(output: &Output, code: i32, says: &str) {
    let err = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(says), "{says:?} is not in: {err}");
}

fn field<'a>(objects: &'a [Value], name: &str) -> Vec<&'a Value> {
    objects.iter().map(|object| &object[name]).collect()
}

#[test]
fn objects_are_published_each_where_it_says_and_results_come_in_order() {
    let desk = Desk::new(&["bob", "carol"]);
    desk.good(&["conversation", "create", "--user", "alice", "--members", "bob", "--name", "crew"]);
    let input = "{\"text\":\"to the default\"}\n\
                 \n\
                 {\"id\":17,\"conversation\":\"crew\",\"text\":\"to the crew\"}\n\
                 {\"id\":\"x\",\"to\":\"carol\",\"kind\":\"picture\",\"payload_base64\":\"AP8=\"}\n";
    let output = desk.feed(&["pub", "--user", "alice", "--to", "bob", "--ndjson", "--json"], input);
    check(&output, 0, "");
    let results = objects(&stdout(&output));
    assert_eq!(field(&results, "line"), [1, 3, 4]);
    assert_eq!(field(&results, "id"), [&Value::Null, &json!(17), &json!("x")]);
    assert!(results.iter().all(|result| result["seq"] == 1), "three conversations: {results:?}");
    let bob = desk.objects(&["sub", "--user", "bob", "--count", "2"]);
    let texts: Vec<_> = bob.iter().filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(texts, ["to the default", "to the crew"]);
    let carol = desk.objects(&["sub", "--user", "carol", "--count", "1"]);
    let picture = carol.last().unwrap();
    assert_eq!((&picture["kind"], &picture["payload_base64"]), (&json!("picture"), &json!("AP8=")));
}

#[test]
fn a_bad_line_is_named_and_ends_the_stream() {
    let desk = Desk::new(&["bob"]);
    let publish = ["pub", "--user", "alice", "--to", "bob", "--ndjson"];
    let output = desk.feed(&publish, "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n{\"text\":\"c\"}\n");
    check(&output, 2, "line 2: unknown field `txt`");
    assert_eq!(stdout(&output), "1 line published, all durable\n");
    check(&desk.feed(&publish, "{\"to\":\"nobody\",\"text\":\"a\"}\n"), 1, "line 1: there is no user \"nobody\"");
    let homeless = desk.feed(&["pub", "--user", "alice", "--ndjson"], "{\"text\":\"a\"}\n");
    check(&homeless, 2, "`to` or `conversation` is missing");
    let bob = desk.objects(&["sub", "--user", "bob", "--count", "1"]);
    assert_eq!(bob.last().unwrap()["text"], "a");
}

#[test]
fn with_keep_going_bad_lines_are_reported_and_the_others_published() {
    let desk = Desk::new(&["bob"]);
    let input =
        "{\"id\":1,\"text\":\"a\"}\n{\"id\":2,\"to\":\"nobody\",\"text\":\"b\"}\nnonsense\n{\"id\":4,\"text\":\"d\"}\n";
    let publish = ["pub", "--user", "alice", "--to", "bob", "--ndjson", "--keep-going"];
    let output = desk.feed(&[&publish[..], &["--json"]].concat(), input);
    check(&output, 1, "2 of 4 lines were not published");
    let results = objects(&stdout(&output));
    assert_eq!(field(&results, "line"), [1, 2, 3, 4]);
    assert_eq!(field(&results, "seq"), [&json!(1), &Value::Null, &Value::Null, &json!(2)]);
    assert_eq!((&results[1]["id"], &results[1]["code"]), (&json!(2), &json!("UNKNOWN_USER")));
    assert!(results[2]["error"].as_str().unwrap().starts_with("line 3: it is no JSON"), "{results:?}");
    let output = desk.feed(&publish, input);
    check(&output, 1, "carillon: line 3: it is no JSON");
    assert_eq!(stdout(&output), "2 lines published, all durable\n");
    let output = desk.feed(&["pub", "--user", "alice", "--to", "bob", "--lines", "--keep-going"], "x\n");
    check(&output, 0, "");
}

#[test]
fn a_stream_of_lines_tells_each_result_as_soon_as_it_is_there() {
    let desk = Desk::new(&["bob"]);
    let publish = ["pub", "--user", "alice", "--to", "bob", "--ndjson", "--json"];
    let mut child = desk.command(&publish).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut results = BufReader::new(child.stdout.take().unwrap()).lines();
    for seq in 1..=3 {
        // The next line is written when the result of this one was read: nothing waits for more.
        input.write_all(b"{\"text\":\"tick\"}\n").unwrap();
        let result: Value = serde_json::from_str(&results.next().unwrap().unwrap()).unwrap();
        assert_eq!((&result["line"], &result["seq"]), (&json!(seq), &json!(seq)));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn members_are_listed_over_pages_and_counted() {
    let desk = Desk::new(&[]);
    let crowd: Vec<String> = (0..1_005).map(|number| format!("user-{number:04}")).collect();
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    desk.good(&[&["user", "add"], &crowd[..]].concat());
    let create = ["conversation", "create", "--user", "alice", "--name", "crowd", "--history", "full", "--members"];
    desk.good(&[&create[..], &[&crowd.join(",")]].concat());
    let members = desk.objects(&["conversation", "members", "--user", "alice", "crowd"]);
    let mut handles: Vec<_> = members.iter().map(|member| member["user"].as_str().unwrap()).collect();
    handles.sort_unstable();
    assert_eq!(handles, [&["alice"], &crowd[..]].concat());
    let count = ["conversation", "members", "--user", "alice", "crowd", "--count"];
    assert_eq!(desk.good(&count), "crowd: 1006 members\n");
    assert_eq!(desk.objects(&count)[0]["members"], 1_006);
    let table = desk.good(&["conversation", "members", "--user", "alice", "crowd"]);
    assert!(table.starts_with("USER       ROLE    JOINED AFTER  READ UP TO\n"), "{table}");
    assert_eq!(table.lines().count(), 1_007);
    desk.good(&["conversation", "leave", "--user", "user-0000", "crowd"]);
    assert_eq!(desk.good(&count), "crowd: 1005 members\n");
    let own = desk.objects(&["conversation", "list", "--user", "alice"]);
    let crowd = own.iter().find(|own| own["name"] == "crowd").unwrap();
    assert_eq!((&crowd["history"], &crowd["kind"]), (&json!("full"), &json!("group")));
}

#[test]
fn a_ding_is_sent_shown_confirmed_and_recalled() {
    let desk = Desk::new(&["bob", "carol"]);
    let sent = desk.objects(&["ding", "send", "--user", "alice", "--to", "bob,carol", "fire drill"]);
    assert_eq!((&sent[0]["event"], &sent[0]["recipients"]), (&json!("ding_created"), &json!(2)));
    let ding = sent[0]["ding"].as_str().unwrap();
    desk.good(&["ding", "confirm", "--user", "bob", ding]);
    let status = desk.objects(&["ding", "status", "--user", "alice", ding]).remove(0);
    let found = (&status["state"], &status["sender"], &status["confirmed"], &status["recipients"]);
    assert_eq!(found, (&json!("sent"), &json!("alice"), &json!(1), &json!(2)));
    assert_eq!((&status["plan"][0]["step"], &status["plan"][0]["outlet"]), (&json!(1), &json!("app")));
    assert_eq!(status["plan"][0]["began_at"][0], status["sent_at"], "the first step began with it");
    let users: Vec<_> =
        status["users"].as_array().unwrap().iter().map(|user| (&user["user"], &user["state"])).collect();
    assert_eq!(users, [(&json!("bob"), &json!("confirmed")), (&json!("carol"), &json!("sent"))]);
    let table = desk.good(&["ding", "status", "--user", "alice", ding]);
    assert!(table.contains("alice: sent, 1 of 2 have confirmed\n"), "{table}");
    assert!(
        table.contains("\nUSER   STATE      HAS IT SINCE  CONFIRMED AT  VIA  OTHER ATTEMPTS\nbob    confirmed  -"),
        "{table}"
    );
    let counts = desk.objects(&["ding", "status", "--user", "alice", ding, "--count"]).remove(0);
    assert_eq!((&counts["confirmed"], counts.get("users")), (&json!(1), None));
    check(&desk.run(&["ding", "status", "--user", "carol", ding]), 1, "asking about DING");
    let open = desk.objects(&["ding", "status", "--user", "alice", ding, "--state", "sent,delivered"]).remove(0);
    let open: Vec<_> = open["users"].as_array().unwrap().iter().map(|user| &user["user"]).collect();
    assert_eq!(open, [&json!("carol")]);
    let reminded = desk.objects(&["ding", "remind", "--user", "alice", ding]).remove(0);
    assert_eq!((&reminded["recipients"], &reminded["by"]), (&json!(1), &json!("app")));
    let tried = desk.objects(&["ding", "status", "--user", "alice", ding, "--attempts", "carol"]).remove(0);
    let steps: Vec<_> = tried["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["step"]).collect();
    assert_eq!(steps, [&json!(1), &Value::Null], "the plan's first step, and the reminder");
    desk.good(&["ding", "recall", "--user", "alice", ding]);
    let over = desk.run(&["ding", "status", "--user", "alice", ding, "--wait"]);
    check(&over, 1, "the DING is recalled: 1 of 2 had confirmed");
    check(&desk.run(&["ding", "remind", "--user", "alice", ding]), 1, "reminding of DING");
    let listed = desk.objects(&["ding", "status", "--user", "alice"]);
    assert_eq!((&listed[0]["ding"], &listed[0]["state"]), (&json!(ding), &json!("recalled")));
}

#[test]
fn a_ding_is_scheduled_with_a_plan_and_refused_without_the_app() {
    let desk = Desk::new(&["bob"]);
    let later = ["ding", "send", "--user", "alice", "--to", "bob", "drill", "--in", "1h", "--step", "app:0:1mx3"];
    let sent = desk.objects(&later).remove(0);
    let ding = sent["ding"].as_str().unwrap();
    let status = desk.objects(&["ding", "status", "--user", "alice", ding]).remove(0);
    let found = (&status["state"], &status["sent_at"], &status["starts_at"], &status["next_step_at"]);
    assert_eq!(found, (&json!("scheduled"), &Value::Null, &sent["starts_at"], &sent["starts_at"]));
    let table = desk.good(&["ding", "status", "--user", "alice", ding]);
    assert!(table.contains("at once, 3 times, every 1m  -\n"), "{table}");
    check(&desk.run(&["ding", "confirm", "--user", "bob", ding]), 1, "confirming DING");
    let wrong = ["ding", "send", "--user", "alice", "--to", "bob", "drill", "--step", "sms:1m"];
    check(&desk.run(&wrong), 2, "add --step app:0");
}

#[test]
fn who_waits_for_a_ding_is_told_each_confirmation() {
    let desk = Desk::new(&["bob"]);
    let send = ["ding", "send", "--user", "alice", "--to", "bob", "fire drill", "--wait", "--json"];
    let mut child = desk.command(&send).spawn().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = || serde_json::from_str::<Value>(&told.next().unwrap().unwrap()).unwrap();
    let created = told();
    desk.good(&["ding", "confirm", "--user", "bob", created["ding"].as_str().unwrap()]);
    // How it stands is told as well: at once, and when it has moved.
    let update = std::iter::repeat_with(&mut told).find(|object| object["event"] != "ding_progress").unwrap();
    let found = (&update["event"], &update["user"], &update["confirmed"]);
    assert_eq!(found, (&json!("ding_update"), &json!("bob"), &json!(1)));
    assert!(child.wait().unwrap().success());
}

#[test]
fn who_has_read_is_listed_and_counted() {
    let desk = Desk::new(&["bob", "carol"]);
    desk.good(&["conversation", "create", "--user", "alice", "--members", "bob,carol", "--name", "crew"]);
    desk.good(&["pub", "--user", "alice", "--conversation", "crew", "ahoy"]);
    desk.good(&["read", "--user", "bob", "crew"]);
    let status = ["status", "--user", "alice", "crew", "1"];
    let object = desk.objects(&status).remove(0);
    let bob = &object["read"][0];
    let read_at = bob["read_at"].as_str().expect("it is known when");
    assert!(read_at.starts_with("20") && read_at.ends_with('Z'), "{read_at}");
    assert_eq!(object["read"], json!([{ "user": "bob", "state": "read", "read_at": read_at, "read_up_to": 1 }]));
    let carol = json!({ "user": "carol", "state": "not delivered", "read_at": null, "read_up_to": 0 });
    assert_eq!(object["unread"], json!([carol]));
    let table = desk.good(&status);
    let rows: Vec<Vec<_>> =
        table.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["message crew#1: read by 1 of 2"]);
    let headings: Vec<_> = rows[1].iter().map(|cell| cell.trim()).collect();
    assert_eq!(headings, ["USER", "STATE", "READ AT", "READ UP TO"]);
    assert_eq!((rows[2][0].trim(), rows[2][1].trim(), rows[2][3].trim()), ("bob", "read", "1"));
    assert_eq!(rows[3].iter().map(|cell| cell.trim()).collect::<Vec<_>>(), ["carol", "not delivered", "-", "0"]);
    assert_eq!(desk.good(&[&status[..], &["--count"]].concat()), "message crew#1: read by 1 of 2\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let desk = Desk::new(&["bob"]);
    let lines = "a line\n".repeat(3_000);
    check(&desk.feed(&["pub", "--user", "alice", "--to", "bob", "--lines"], &lines), 0, "");
    for arguments in [&["sub", "--user", "bob"][..], &["completions", "bash"], &["--help"]] {
        let mut child = desk.command(arguments).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        check(&output, 0, "");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_log_level_that_is_none_is_refused_and_not_taken_for_silence() {
    let desk = Desk::new(&[]);
    for (name, value) in [("CARILLON_LOG", "debugg"), ("CARILLON_LOG_FORMAT", "xml")] {
        let output = desk.command(&["sub", "--user", "alice"]).env(name, value).output().unwrap();
        check(&output, 2, name);
    }
}

#[test]
fn each_shell_gets_completions_that_know_the_subcommands() {
    let desk = Desk::new(&[]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = desk.good(&["completions", shell]);
        assert!(script.contains("keep-going") && script.contains("conversation"), "{shell}");
    }
    assert!(desk.broker.site.data().exists());
}

#[test]
fn sessions_are_listed_and_ended() {
    let desk = Desk::new(&["bob"]);
    let absent = desk.objects(&["user", "show", "bob"]).remove(0);
    assert_eq!((&absent["online_since"], &absent["sessions"]), (&Value::Null, &json!([])));
    desk.good(&["pub", "--user", "alice", "--to", "bob", "hello"]);
    let mut sub = desk.command(&["sub", "--user", "bob", "--json"]).spawn().unwrap();
    let mut events = BufReader::new(sub.stdout.take().unwrap()).lines();
    assert!(events.any(|event| event.unwrap().contains("hello")), "bob is there");
    let shown = desk.objects(&["user", "show", "bob"]).remove(0);
    assert!(shown["online_since"].is_string(), "{shown}");
    let live = desk.objects(&["user", "sessions", "bob"]);
    assert_eq!(json!(live), shown["sessions"]);
    assert!(live[0]["client"].as_str().unwrap().starts_with("carillon-cli"), "{live:?}");
    let device = live[0]["device"].as_str().unwrap();
    let other = desk.objects(&["user", "kick", "bob", "--device", "1"]).remove(0);
    assert_eq!(other["sessions"], 0);
    assert_eq!(desk.good(&["user", "kick", "bob", "--device", device]), "1 session of bob ended\n");
    assert!(!sub.wait_with_output().unwrap().status.success(), "it does not come back by itself");
    check(&desk.run(&["user", "sessions", "bob", "--user", "bob", "--role", "user"]), 0, "");
    check(&desk.run(&["user", "kick", "bob", "--user", "alice", "--role", "user"]), 4, "");
}

#[test]
fn history_is_printed_backward_forward_and_whole() {
    let desk = Desk::new(&["bob"]);
    desk.good(&["conversation", "create", "--user", "alice", "--members", "bob", "--name", "crew"]);
    let lines: String = (1..=1_030).map(|number| format!("line {number}\n")).collect();
    check(&desk.feed(&["pub", "--user", "alice", "--conversation", "crew", "--lines"], &lines), 0, "");
    let seqs = |arguments: &[&str]| -> Vec<u64> {
        let history = desk.objects(&[&["history", "--user", "bob", "crew"], arguments].concat());
        assert!(history.iter().all(|message| message["text"] == format!("line {}", message["seq"])));
        history.iter().map(|message| message["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs(&[]), (1_011..=1_030).collect::<Vec<_>>());
    assert_eq!(seqs(&["--from", "40", "--limit", "3"]), [38, 39, 40]);
    assert_eq!(seqs(&["--from", "40", "--limit", "3", "--forward"]), [40, 41, 42]);
    assert_eq!(seqs(&["--limit", "1020"]), (11..=1_030).collect::<Vec<_>>(), "more than a page");
    assert_eq!(seqs(&["--all"]), (1..=1_030).collect::<Vec<_>>());
    assert_eq!(seqs(&["--all", "--from", "1000"]), (1_000..=1_030).collect::<Vec<_>>());
    let people = desk.good(&["history", "--user", "bob", "crew", "--limit", "1"]);
    assert!(people.ends_with("crew#1030 alice: line 1030\n"), "{people}");
    check(&desk.run(&["history", "--user", "bob", "4711"]), 1, "reading the history of 4711");
}

#[test]
fn a_bounded_catch_up_names_what_it_leaves_out() {
    let desk = Desk::new(&["bob"]);
    let conversation =
        desk.objects(&["pub", "--user", "alice", "--to", "bob", "line 1"]).remove(0)["conversation"].take();
    let lines = "a line\n".repeat(9);
    check(&desk.feed(&["pub", "--user", "alice", "--to", "bob", "--lines"], &lines), 0, "");
    let sub = ["sub", "--user", "bob", "--newest", "2", "--count", "2"];
    let people = desk.good(&sub);
    let conversation = conversation.as_str().unwrap();
    assert!(people.contains(&format!("! {conversation}#1 to #8 were left out of the catch-up")), "{people}");
    let events = desk.objects(&[&sub[..], &["--from-start"]].concat());
    let gap = events.iter().find(|event| event["event"] == "gap").unwrap();
    let expected = json!({ "event": "gap", "conversation": conversation, "first": 1, "last": 8, "reason": "skipped" });
    assert_eq!(gap, &expected);
    let seqs: Vec<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, [9, 10]);
}

/// What a `sub` that is started with these arguments prints when the client signals this.
async fn told(desk: &Desk, arguments: &[&str], (client, to): (&Client, ConversationId), kind: SignalKind) -> String {
    let mut sub = desk.command(arguments).spawn().expect("it starts");
    let mut lines = BufReader::new(sub.stdout.take().expect("it is piped")).lines();
    let of_signal = |line: &String| line.starts_with("* alice ") || line.contains("\"event\":\"signal\"");
    let found = move || lines.by_ref().map(|line| line.expect("text")).find(of_signal);
    let mut heard = tokio::task::spawn_blocking(found);
    let line = patiently(async {
        loop {
            // It may not be there yet, and a datagram may be lost.
            client.signal(to, kind);
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), &mut heard).await {
                return heard.expect("it reads").expect("it goes on until then");
            }
        }
    });
    let line = line.await;
    sub.kill().and_then(|()| sub.wait()).expect("it ends");
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_writing_is_told_while_it_is_so() {
    let desk = Desk::new(&["bob"]);
    let (alice, events) = desk.broker.client("alice").await;
    drop(events);
    let create = ["conversation", "create", "--user", "alice", "--members", "bob", "--name", "crew"];
    let crew = desk.objects(&create).remove(0)["conversation"].as_str().unwrap().to_owned();
    let to = (&alice, ConversationId(crew.parse().unwrap()));
    let people = told(&desk, &["sub", "--user", "bob"], to, SignalKind::TYPING).await;
    assert_eq!(people, "* alice is writing in crew");
    let signals = [("typing_stopped", SignalKind::TYPING_STOPPED), ("present", SignalKind::PRESENT)];
    for (name, kind) in signals {
        let object = told(&desk, &["sub", "--user", "bob", "--json"], to, kind).await;
        let expected =
            json!({ "event": "signal", "conversation": crew, "name": "crew", "user": "alice", "signal": name });
        assert_eq!(serde_json::from_str::<Value>(&object).unwrap(), expected);
    }
}
