//! The `carillon` command as a person meets it: the tour, two terminals, errors with a remedy, stable exit codes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use carillon_tests::harness::binary;

/// Runs the command in a directory to its end, without a context from the environment.
fn carillon(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().expect("the command runs")
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(directory).args(arguments).env_remove("CARILLON_CONTEXT").stdin(Stdio::null());
    command
}

fn check(output: &Output, code: i32, says: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    for word in says {
        assert!(out.contains(word) || err.contains(word), "{word:?} is not in:\n{out}\n{err}");
    }
}

/// `carillon dev`, past its tour.
struct Dev(Child);

impl Dev {
    fn start(directory: &Path) -> Self {
        let mut command = command(directory, &["dev", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut lines = lines.map(|line| line.expect("text"));
        assert!(lines.any(|line| line.contains("carillon sub")), "it shows what to try, and serves");
        // It may go on printing without anybody reading along.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().expect("it is killed");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_tour_can_be_taken_again_on_its_directory_also_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let once = ["dev", "--once", "--listen", "127.0.0.1:0"];
    check(&carillon(directory.path(), &once), 0, &["journal     new", "DING         confirmed by 2 of 2"]);
    Dev::start(directory.path()).kill();
    check(&carillon(directory.path(), &once), 0, &["DING         confirmed by 2 of 2"]);
}

#[test]
fn two_terminals_and_nothing_more_to_type() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let dev = Dev::start(at);
    check(&carillon(at, &["pub", "--user", "alice", "--to", "bob", "hello"]), 0, &[]);
    let sub = |count: &str| carillon(at, &["sub", "--user", "bob", "--json", "--count", count]);
    // bob stands in the tour's group too, with six messages of its first time.
    check(&sub("7"), 0, &["\"text\":\"hello\"", "\"author\":\"alice\""]);
    check(&carillon(at, &["pub", "--user", "alice", "--to", "bob", "once more"]), 0, &[]);
    check(&sub("1"), 0, &["\"text\":\"once more\""]);
    check(&carillon(at, &["user", "add", "erin"]), 0, &["erin"]);
    let create = ["conversation", "create", "--user", "alice", "--members", "bob,erin", "--name", "crew"];
    check(&carillon(at, &create), 0, &["conversation"]);
    check(&carillon(at, &["pub", "--user", "bob", "--conversation", "crew", "ahoy"]), 0, &[]);
    check(&carillon(at, &["read", "--user", "alice", "crew"]), 0, &[]);
    check(&carillon(at, &["status", "--user", "bob", "crew", "1"]), 0, &["alice", "erin"]);
    check(&carillon(at, &["conversation", "list", "--user", "erin"]), 0, &["crew"]);
    dev.kill();
}

#[test]
fn errors_say_what_was_wrong_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    check(&carillon(at, &["sub", "--user", "bob"]), 2, &["carillon dev", "--context"]);
    check(&carillon(at, &["pub"]), 2, &["Usage"]);
    check(&carillon(at, &["serve", "--config", "nowhere.toml"]), 2, &["nowhere.toml"]);
    let dev = Dev::start(at);
    check(&carillon(at, &["pub", "--user", "alice", "--to", "nobody", "hello"]), 1, &["nobody", "user add"]);
    check(&carillon(at, &["dev", "--once"]), 1, &["in use by another broker", "--data"]);
    dev.kill();
    let away = carillon(at, &["pub", "--user", "alice", "--to", "bob", "hello", "--timeout", "1s"]);
    check(&away, 3, &["127.0.0.1"]);
    check(&carillon(at, &["--help"]), 0, &["Exit codes"]);
}

#[test]
fn every_command_that_reads_a_configuration_is_told_alike_which() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let commands: [&[&str]; 6] = [
        &["config", "check"],
        &["config", "show"],
        &["serve"],
        &["backup", "--to", "copy"],
        &["journal", "verify"],
        &["journal", "dump"],
    ];
    for arguments in commands {
        check(&carillon(at, &[arguments, &["--config", "nowhere.toml"]].concat()), 2, &["nowhere.toml"]);
        let mut told = command(at, arguments);
        check(&told.env("CARILLON_CONFIG", "elsewhere.toml").output().unwrap(), 2, &["elsewhere.toml"]);
        told.args(["--config", "nowhere.toml"]);
        check(&told.output().unwrap(), 2, &["nowhere.toml"]);
    }
    let good = "data = \"d\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n[tokens]\nkeys = [\"t\"]\n";
    std::fs::write(at.join("carillon.toml"), good).unwrap();
    check(&carillon(at, &["config", "show", "--config", "carillon.toml"]), 0, &["drain_ms = 5000"]);
}
