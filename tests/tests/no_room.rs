//! The command against a broker whose disk has no room: it says so, waits, and goes on when there is room again.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use carillon::material::SERVER_NAME;
use carillon_tests::harness::{Process, TENANT, binary};

/// More free room than any disk has.
const NO_DISK_HAS: &str = "[journal]\nfree_bytes_min = 1000000000000000\n";

fn carillon(desk: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(desk).args(arguments).env("CARILLON_CONTEXT", "context.toml").env_remove("CARILLON_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_pub_says_that_there_is_no_room_and_goes_on_when_there_is() {
    let mut broker = Process::start();
    let desk = tempfile::tempdir().unwrap();
    let (ca, key) = (broker.site.material.ca.display(), broker.site.material.token_key.display());
    let context = format!(
        "address = \"{}\"\nserver_name = \"{SERVER_NAME}\"\nca = \"{ca}\"\ntenant = \"{TENANT}\"\n\
         token_key = \"{key}\"\nuser = \"alice\"\nstate = \"state\"\n",
        broker.address
    );
    std::fs::write(desk.path().join("context.toml"), context).unwrap();
    let added = carillon(desk.path(), &["user", "add", "bob", "--timeout", "60s"]).output().unwrap();
    assert!(added.status.success(), "{added:?}");

    broker.kill();
    let config = broker.site.data().join("carillon.toml");
    let roomy = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{roomy}{NO_DISK_HAS}")).unwrap();
    broker.start_again();
    let mut publishing = carillon(desk.path(), &["pub", "--to", "bob", "--lines", "--timeout", "60s"]).spawn().unwrap();
    publishing.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut told = BufReader::new(publishing.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("(NO_ROOM)") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "it ended without a word");
    }

    broker.kill();
    std::fs::write(&config, roomy).unwrap();
    broker.start_again();
    let (mut out, mut rest) = (String::new(), String::new());
    publishing.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    told.read_to_string(&mut rest).unwrap();
    assert!(publishing.wait().unwrap().success(), "{rest}");
    assert!(out.contains("1 line published, all durable"), "{out}");
    broker.terminate();
}
