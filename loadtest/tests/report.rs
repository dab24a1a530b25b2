//! What a run leaves behind: a file for programs, which can be read and compared, and a page for people.

mod broker;

use std::time::Duration;

use broker::Broker;
use carillon_loadtest::fanout::{self, Plan};
use carillon_loadtest::report::{Comparison, Document, Findings, Head, Span, page, write};

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
    let seen: f64 = document.timeline.series.iter().map(|point| point.achieved_per_s).sum();
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

#[test]
fn phases_are_marked_and_the_strain_is_drawn_where_a_report_has_them() {
    let broker = Broker::start();
    let plain = document(&broker, 5);
    let mut strained = plain.clone();
    let timeline = &mut strained.timeline;
    timeline.series_of = Some("a measure".into());
    timeline.strain_of = Some("things done".into());
    timeline.series.iter_mut().for_each(|point| point.strain_per_s = Some(7.0));
    let end_s = timeline.series.last().expect("points").at_s;
    let span = |phase: &str, from: f64, to: f64| Span { phase: phase.into(), from_s: from * end_s, to_s: to * end_s };
    timeline.spans = vec![span("calm-phase", 0.0, 0.5), span("wild-phase", 0.5, 1.0)];
    let again: Document = serde_json::from_str(&strained.to_json()).unwrap();
    let one = page(&[("one".into(), again.clone())]);
    assert_eq!(one.matches("<svg").count(), 6, "the strain has a plot");
    assert_eq!(one.matches("a measure").count(), 2, "throughput and latency say what they are of");
    assert!(one.contains("things done"));
    // In each plot over time, and in no other.
    assert_eq!((one.matches("calm-phase").count(), one.matches("wild-phase").count()), (5, 5));
    let both = page(&[("A".into(), again.clone()), ("B".into(), again.clone())]);
    assert!(both.contains("calm-phase") && both.contains("A: things done"), "they have the same phases");
    let mut other = again.clone();
    other.timeline.spans[1].to_s += 5.0;
    for other in [other, plain] {
        let both = page(&[("A".into(), again.clone()), ("B".into(), other)]);
        assert!(!both.contains("calm-phase"), "these are not the phases of both");
    }
}

#[test]
fn each_measure_with_phases_has_a_plot_of_its_own() {
    let broker = Broker::start();
    let mut document = document(&broker, 5);
    document.curves.clear();
    let row = |measure: &str, phase: &str| {
        let latency = serde_json::json!({ "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "p999_ms": 4.0 });
        serde_json::json!({ "measure": measure, "phase": phase, "figures": { "latency": latency } })
    };
    let rows = vec![row("one", "calm"), row("one", "wild"), row("two", "calm"), row("two", "wild")];
    document.figures.insert("rows".into(), rows.into());
    let page = page(&[("it".into(), document)]);
    assert_eq!(page.matches("Percentiles").count(), 2);
    let place = |text: &str| page.find(text).expect(text);
    assert!(place("Throughput") < place("Percentiles"), "they are the details");
}
