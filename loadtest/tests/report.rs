//! What a run leaves behind: a file for programs, which can be read and compared, and a page for people.

mod broker;

use std::time::Duration;

use broker::Broker;
use carillon_loadtest::fanout::{self, Plan};
use carillon_loadtest::report::{Comparison, Document, Findings, Head, page, write};

fn plan(batch: u32) -> Plan {
    Plan {
        sessions: 10,
        rounds: 4,
        batch,
        payload_bytes: 128,
        interval: Duration::from_millis(20),
        sockets: 2,
        connecting_max: 8,
        ack_messages: 10,
        ack_every: Duration::from_millis(100),
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        broker_pid: Some(std::process::id()),
    }
}

fn document(broker: &Broker, batch: u32) -> Document {
    let report = fanout::run(&plan(batch), &broker.target(), &mut |_| {}).expect("figures");
    let (began, took) = (Duration::from_secs(1_700_000_000), Duration::from_secs(2));
    Document::of(
        Head::new(report.scenario(), began, took, vec!["fanout".into(), "<&>".into()], &report.load()),
        &report,
    )
}

#[test]
fn a_report_can_be_read_again_and_compared() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let documents = [5, 10].map(|batch| {
        let path = directory.path().join(format!("{batch}.json"));
        let document = document(&broker, batch);
        assert!(document.is_complete && document.head.at == "2023-11-14T22:13:20Z", "{document:?}");
        write(&path, &document.to_json()).unwrap();
        Document::read(&path).unwrap()
    });
    let comparison = Comparison::of(&documents[0], &documents[1]);
    let messages = comparison.rows.iter().find(|row| row.figure == "messages").expect("it is in both");
    assert_eq!((messages.a, messages.b, messages.ratio), (20.0, 40.0, Some(2.0)), "{comparison}");
    for figure in ["latency.p99_ms", "broker.cpu_us_per_delivery", "own_cpu_s"] {
        assert!(comparison.rows.iter().any(|row| row.figure == figure), "{figure} is missing: {comparison}");
    }
    let no_report = Document::read(directory.path()).unwrap_err();
    assert_eq!(no_report.exit_code(), 2, "{no_report}");
}

#[test]
fn a_page_has_the_plots_and_stands_alone() {
    let broker = Broker::start();
    let document = document(&broker, 5);
    let seen: f64 = document.series.iter().map(|point| point.achieved_per_s).sum();
    assert!(seen > 0.0 && !document.curves.is_empty(), "{document:?}");
    let one = page(&[("fanout".into(), document.clone())]);
    for part in ["Latency by percentile", "Throughput", "Memory of the broker", "due to delivered", "&lt;&amp;&gt;"] {
        assert!(one.contains(part), "{part} is missing");
    }
    assert_eq!(one.matches("<svg").count(), 5, "all plots are there");
    let is_alone = |page: &str| !page.contains("<script") && !page.contains("<link") && !page.contains(" src=");
    let both = page(&[("A".into(), document.clone()), ("B".into(), document)]);
    assert!(is_alone(&one) && is_alone(&both));
    assert!(both.contains("A: due to delivered") && both.contains("B: due to delivered") && both.contains("B / A"));
}
