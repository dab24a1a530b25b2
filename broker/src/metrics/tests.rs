use super::*;
use crate::clock::SystemClock;
use crate::journal::{JournalOptions, MemoryStorage, open};
use crate::material::Material;
use crate::sequencer::ring::ring;
use crate::sequencer::submissions;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{Position, ShardId};
use outlets::OutletMeter;
use std::collections::BTreeMap;

/// Metrics of a broker with two edges on which nothing happens, and what it would hold.
fn metrics() -> (Arc<Metrics>, Held) {
    let storage = Arc::new(MemoryStorage::new());
    storage.set_capacity(Some(1 << 30));
    let opened = open(storage.clone(), JournalOptions::new(ShardId(0)), Position(0), &mut |_| Ok(())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let material = Material::ensure(directory.path()).unwrap();
    let metrics = Metrics::new(Arc::new(SystemClock));
    metrics.watch_certificate(Presented::load(&material.certificate, &material.key).unwrap());
    let edge = || Arc::new(EdgeMeter { heartbeat: metrics.heartbeat(), ..EdgeMeter::default() });
    let bodies = Arc::new(ReaderPool::start(&opened.reader, 1, 1).unwrap());
    metrics.serve(Running {
        edges: vec![edge(), edge()],
        sequencer: Arc::new(SequencerMeter::new(metrics.heartbeat())),
        submit: submissions().0,
        mailboxes: Vec::new(),
        ring: ring(4, 1_024).1,
        watched: Watched {
            bodies: Arc::downgrade(&bodies),
            storage: Arc::downgrade(&storage) as Weak<dyn Storage>,
            uncovered: Weak::new(),
            index: Weak::new(),
        },
    });
    let heartbeat = metrics.heartbeat();
    let outlets = vec![OutletMeter::new("sms"), OutletMeter::new("unknown")];
    metrics.watch_outlets(Arc::new(NotifyMeter { heartbeat, outlets, ..NotifyMeter::default() }));
    (metrics, (bodies, storage))
}

type Held = (Arc<ReaderPool>, Arc<MemoryStorage>);

/// Name → type, as Prometheus shows it.
fn served(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect()
}

#[test]
fn the_reference_has_every_metric() {
    let (metrics, _held) = metrics();
    let running = metrics.running.get().unwrap();
    running.edges[0].closes.count(ErrorCode::SLOW);
    running.edges[1].refusals.count(ErrorCode::FORBIDDEN);
    let page = include_str!("../../../docs/OPERATIONS.md");
    let table = page.split("\n| metric | type | labels | meaning |\n").nth(1).expect("the table of metrics");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let mut labels = BTreeMap::new();
    let documented: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
            assert!(cells[4].len() > 5, "{row} explains nothing");
            labels.insert(cells[1].clone(), cells[3].replace('`', ""));
            (cells[1].clone(), cells[2].clone())
        })
        .collect();
    let text = metrics.to_text();
    assert_eq!(documented, served(&text));
    for (name, labels) in labels {
        // Of a histogram its sum: the other samples have the label of their bounds.
        let begins = ["{", " ", "_sum ", "_sum{"].map(|end| format!("{name}{end}"));
        let of_it = |line: &&str| begins.iter().any(|begin| line.starts_with(begin));
        let sample = text.lines().find(of_it).expect("a sample of every metric");
        let shown: Vec<_> = sample.split(['{', ',', '}']).filter_map(|part| part.split_once("=\"")).collect();
        let shown: Vec<_> = shown.into_iter().map(|(label, _)| label).collect();
        assert_eq!(shown.join(", "), labels, "labels of {name}");
    }
}

#[test]
fn a_metric_without_labels_has_no_braces() {
    let (metrics, _held) = metrics();
    let text = metrics.to_text();
    assert!(!text.contains("{}"), "{text}");
    for name in ["process_cpu_seconds_total", "process_open_fds", "carillon_journal_head"] {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        assert!(value.is_some_and(|value| value.parse::<f64>().is_ok()), "no {name} in\n{text}");
    }
}

#[test]
fn what_threads_count_is_served() {
    let (metrics, _held) = metrics();
    let running = metrics.running.get().unwrap();
    running.edges[1].delivered_live.set(7);
    running.edges[0].closed_as_slow.set(3);
    running.edges[0].closes.count(ErrorCode::SLOW);
    running.edges[1].closes.count(ErrorCode::SLOW);
    running.sequencer.commit_us.observe(80);
    running.sequencer.commit_us.observe(20_000_000);
    let notify = metrics.notify.get().unwrap();
    notify.outlets[0].delivered.set(5);
    notify.outlets[0].tries_failed.set(6);
    notify.outlets[0].in_flight.set(2);
    notify.outlets[0].try_ms.observe(70);
    notify.callbacks.unsigned.set(9);
    let text = metrics.to_text();
    for line in [
        "carillon_outlet_calls_total{outlet=\"sms\",outcome=\"delivered\"} 5",
        "carillon_outlet_calls_total{outlet=\"unknown\",outcome=\"failed\"} 0",
        "carillon_outlet_tries_total{outlet=\"sms\",end=\"failed\"} 6",
        "carillon_outlet_in_flight{outlet=\"sms\"} 2",
        "carillon_outlet_try_seconds_bucket{le=\"0.05\",outlet=\"sms\"} 0",
        "carillon_outlet_try_seconds_bucket{le=\"0.1\",outlet=\"sms\"} 1",
        "carillon_callbacks_total{answer=\"unsigned\"} 9",
        "carillon_deliveries_total{edge=\"0\",feed=\"live\"} 0",
        "carillon_deliveries_total{edge=\"1\",feed=\"live\"} 7",
        "carillon_closes_total{code=\"SLOW\"} 2",
        "carillon_closed_as_slow_total{edge=\"0\"} 3",
        "carillon_commit_seconds_bucket{le=\"0.00005\"} 0",
        "carillon_commit_seconds_bucket{le=\"0.0001\"} 1",
        "carillon_commit_seconds_bucket{le=\"10.0\"} 1",
        "carillon_commit_seconds_bucket{le=\"+Inf\"} 2",
        "carillon_commit_seconds_count 2",
        "carillon_phase{phase=\"serving\"} 1",
    ] {
        let line = |found: &&str| found.strip_suffix(".0").unwrap_or(found) == line;
        assert!(text.lines().any(|found| line(&found)), "no such line in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_thread_that_takes_no_turn_is_named_until_the_broker_drains() {
    let clock = Arc::new(tests_clock::Hand::default());
    let metrics = Metrics::new(clock.clone());
    let edge = Arc::new(EdgeMeter { heartbeat: metrics.heartbeat(), ..EdgeMeter::default() });
    let (other, _held) = self::metrics();
    let running = other.running.get().unwrap();
    metrics.serve(Running {
        edges: vec![edge.clone()],
        sequencer: Arc::new(SequencerMeter::new(metrics.heartbeat())),
        submit: running.submit.clone(),
        mailboxes: Vec::new(),
        ring: running.ring.clone(),
        watched: running.watched.clone(),
    });
    clock.advance(STUCK_AFTER_MS);
    assert_eq!(metrics.stuck(), Vec::<String>::new());
    clock.advance(1_000);
    edge.heartbeat.beat(clock.now());
    assert_eq!(metrics.stuck(), ["sequencer: no turn for 16 s"]);
    metrics.drain();
    assert_eq!(metrics.stuck(), Vec::<String>::new());
}

mod tests_clock {
    use super::*;
    use carillon_protocol::ids::Timestamp;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    /// A clock moved by hand.
    pub(super) struct Hand {
        start: Instant,
        passed_ms: AtomicU64,
    }

    impl Default for Hand {
        fn default() -> Self {
            Self { start: carillon_transport::Clock::now(&SystemClock), passed_ms: AtomicU64::new(0) }
        }
    }

    impl Hand {
        pub(super) fn advance(&self, ms: u64) {
            self.passed_ms.fetch_add(ms, Ordering::Relaxed);
        }

        pub(super) fn now(&self) -> Instant {
            carillon_transport::Clock::now(self)
        }
    }

    impl carillon_transport::Clock for Hand {
        fn now(&self) -> Instant {
            self.start + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
        }
    }

    impl Clock for Hand {
        fn wall(&self) -> Timestamp {
            Timestamp(self.passed_ms.load(Ordering::Relaxed))
        }
    }
}
