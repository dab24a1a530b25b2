//! The binary as a service: what its supervisor is told, and what stands in its log.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};

use carillon_protocol::error::ErrorCode;
use carillon_protocol::session::Hello;
use carillon_tests::harness::{PATIENCE, Process, binary};
use carillon_tests::raw::{Dial, hello};
use serde_json::Value;

/// A broker that was started by a supervisor, which listens.
struct Service {
    /// Where it lives; the process in it has ended.
    process: Process,
    child: Child,
    supervisor: UnixDatagram,
}

impl Service {
    fn start() -> Self {
        let mut process = Process::start_with("[log]\nlevel = \"trace\"\nformat = \"json\"\n");
        process.kill();
        let data = process.site.data();
        let supervisor = UnixDatagram::bind(data.join("notify")).unwrap();
        supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(data.join("carillon.toml"))
            .env("NOTIFY_SOCKET", data.join("notify"))
            .env("WATCHDOG_USEC", "200000")
            .env_remove("CARILLON_LOG")
            .stdout(File::create(data.join("out")).unwrap())
            .stderr(File::create(data.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, child, supervisor }
    }

    /// Listens until the supervisor is told this.
    fn until_told(&self, what: &str) {
        let mut told = [0; 4_096];
        loop {
            let bytes = self.supervisor.recv(&mut told).unwrap_or_else(|error| panic!("{what} was not told: {error}"));
            if String::from_utf8_lossy(&told[..bytes]).lines().any(|line| line == what) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success()
        );
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_supervisor_is_told_and_the_log_keeps_secrets() {
    let mut service = Service::start();
    service.until_told("READY=1");
    let site = &service.process.site;
    let dial = Dial::new(site, service.process.address);
    let good = hello(site, "alice", 1);
    dial.attach(&good).unwrap().raw.close();
    let bad = Hello { token: "forged\n\u{1b}[2J".into(), ..good.clone() };
    dial.refused(&bad).check(ErrorCode::UNAUTHENTICATED, "a forged token");
    service.until_told("WATCHDOG=1");
    service.signal("HUP");
    service.until_told("RELOADING=1");
    service.until_told("READY=1");
    service.signal("TERM");
    service.until_told("STOPPING=1");
    assert!(service.child.wait().unwrap().success());

    let log = fs::read_to_string(service.process.site.data().join("log")).unwrap();
    let (_, signature) = good.token.as_str().rsplit_once('.').unwrap();
    assert!(!log.contains(signature) && !log.contains("forged"), "a token stands in the log");
    let mut messages = Vec::new();
    for line in log.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        messages.push(line["message"].as_str().unwrap_or_default().to_owned());
    }
    for message in ["journal opened", "session closed", "token keys read anew", "draining", "stopped"] {
        assert!(messages.iter().any(|found| found.starts_with(message)), "{message:?} is not in {messages:#?}");
    }
}
