//! The side port: health, readiness and metrics, whatever others do there.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use carillon::clock::SystemClock;
use carillon::server::{Options, Server};
use carillon_tests::harness::{PATIENCE, Site, connect, group_of, next_texts, say};
use carillon_transport::Clock as _;

struct World {
    site: Site,
    server: Option<Server>,
    http: SocketAddr,
}

impl World {
    fn start() -> Self {
        let site = Site::new();
        let options = site.options();
        let server = Server::start(Options { http: Some(options.listen), ..options }).unwrap();
        let http = server.http_address().unwrap();
        Self { site, server: Some(server), http }
    }

    fn address(&self) -> SocketAddr {
        self.server.as_ref().unwrap().address()
    }

    /// Asks until a line of the metrics is there.
    fn until_metric(&self, line: &str) {
        let start = SystemClock.now();
        loop {
            let (_, page) = get(self.http, "/metrics");
            if page.lines().any(|found| found.strip_suffix(".0").unwrap_or(found) == line) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{line} never came:\n{page}");
        }
    }

    fn sum(&self, metric: &str) -> f64 {
        let (_, page) = get(self.http, "/metrics");
        let values = page.lines().filter(|line| line.starts_with(metric)).map(|line| line.rsplit_once(' ').unwrap().1);
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Asks until the sum of a metric over its labels is this.
    fn until_sum(&self, metric: &str, sum: f64) {
        let start = SystemClock.now();
        while (self.sum(metric) - sum).abs() > 0.1 {
            assert!(start.elapsed() < PATIENCE, "{metric} is {}, never {sum}", self.sum(metric));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.take().unwrap().stop().unwrap();
    }
}

fn open(http: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What is answered to these bytes, until the other side closes.
fn answer(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn ask(http: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: carillon\r\nConnection: close\r\n\r\n");
    let answer = answer(open(http), &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn get(http: SocketAddr, path: &str) -> (u16, String) {
    ask(http, "GET", path)
}

#[test]
fn a_broker_that_serves_is_alive_and_ready() {
    let world = World::start();
    assert_eq!(get(world.http, "/healthz"), (200, "alive, serving\n".to_owned()));
    assert_eq!(get(world.http, "/readyz"), (200, "serving\n".to_owned()));
    let (status, page) = get(world.http, "/metrics");
    assert_eq!(status, 200);
    assert!(page.ends_with("# EOF\n"), "{page}");
    assert_eq!(ask(world.http, "POST", "/metrics").0, 405);
    assert_eq!(get(world.http, "/").0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sessions_do_is_counted() {
    let world = World::start();
    let (alice, _alices) = connect(world.site.config(world.address(), "alice")).await;
    let (bob, mut bobs) = connect(world.site.config(world.address(), "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    for text in ["one", "two", "three"] {
        say(&alice, group, text).await;
    }
    assert_eq!(next_texts(&mut bobs, 3).await, ["one", "two", "three"]);
    world.until_sum("carillon_sessions_opened_total", 2.0);
    world.until_sum("carillon_sessions{", 2.0);
    world.until_sum("carillon_connections{", 2.0);
    world.until_sum("carillon_publishes_total", 3.0);
    world.until_sum("carillon_published_total", 3.0);
    assert!(world.sum("carillon_deliveries_total") >= 6.0, "both got three");
    assert!(world.sum("carillon_commit_seconds_count") >= 1.0);
    assert!(world.sum("carillon_commit_records_sum") >= 3.0);
    assert!(world.sum("carillon_journal_head") >= 3.0);
    assert!(world.sum("carillon_journal_segments") >= 1.0);
    assert!(world.sum("carillon_journal_uncovered_bytes") >= 100.0, "no snapshot was taken");
    assert!(alice.find_conversation("nowhere").await.is_err());
    world.until_metric("carillon_refusals_total{code=\"NOT_FOUND\"} 1");
    bob.close().await;
    world.until_sum("carillon_connections{", 1.0);
    world.until_sum("carillon_connections_ended_total", 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_or_rude_there_disturbs_nobody() {
    let world = World::start();
    // More than there is room for; half of them begin a request and never end it.
    let slow: Vec<_> = (0..80)
        .map(|nth| {
            let mut stream = open(world.http);
            if nth % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap();
            }
            stream
        })
        .collect();
    let (alice, mut alices) = connect(world.site.config(world.address(), "alice")).await;
    let notes = group_of(&alice, &[]).await;
    say(&alice, notes, "served").await;
    assert_eq!(next_texts(&mut alices, 1).await, ["served"]);
    // They are sent away in time, and others get their turn.
    assert_eq!(get(world.http, "/readyz").0, 200);
    drop(slow);
    let garbage = answer(open(world.http), "\u{1}\u{2} what?\r\n\r\n");
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let long = format!("GET /healthz HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = open(world.http);
    // It may be sent away before all of it is written.
    stream.write_all(long.as_bytes()).ok();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).ok();
    assert!(!told.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&told));
    assert_eq!(get(world.http, "/healthz").0, 200);
}
