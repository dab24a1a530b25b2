//! A report as a page of HTML that needs nothing else: figures, plots, and where they come from.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{numbers, readable};
use super::plot::{Line, Plot, Scale};
use super::{Comparison, Document, Limit, Point, Span};

const STYLE: &str = include_str!("page.css");

/// Figures worth a large print, where a report has them.
const HIGHLIGHTS: [(&str, &str); 22] = [
    ("delivered", "deliveries"),
    ("achieved_per_s", "achieved a second"),
    ("acknowledged_per_s", "durable a second"),
    ("connects_per_s", "sessions a second"),
    ("deliveries.p50_ms", "ms to delivery, half"),
    ("deliveries.p99_ms", "ms to delivery, 99 of 100"),
    ("last_delivery.p99_ms", "ms to the last delivery, 99 of 100"),
    ("latency.p50_ms", "ms, half"),
    ("latency.p99_ms", "ms, 99 of 100"),
    ("latency.p999_ms", "ms, 999 of 1,000"),
    ("published.p50_ms", "ms to durable, half"),
    ("published.p99_ms", "ms to durable, 99 of 100"),
    ("connected.p99_ms", "ms to connect, 99 of 100"),
    ("caught_up_factor", "times the bare handshakes"),
    ("broker.cpu_us_per_delivery", "µs of broker CPU a delivery"),
    ("broker.cpu_us_per_message", "µs of broker CPU a message"),
    ("broker.cpu_us_per_connect", "µs of broker CPU a session begun"),
    ("broker.cpu_ms_per_session_minute", "ms of broker CPU a session and minute"),
    ("broker.resident_kib_per_session", "KiB resident a session"),
    ("broker.resident_kib_per_session_settled", "KiB, settled"),
    ("broker.resident_kib_per_session_after", "KiB, after the messages"),
    ("broker.resident_mib_membership", "MiB for the membership"),
];

/// A line over time: its name, whether it is filled, and its value.
type Part = (&'static str, bool, fn(&Point) -> Option<f64>);

/// A plot over time.
struct OverTime {
    title: &'static str,
    up: &'static str,
    /// Whether it shows what the series is of, and not what that costs.
    is_of_series: bool,
    parts: &'static [Part],
}

/// The name of a line for which a report has a better one.
const STRAIN: &str = "strain";

/// How far the ends of phases may be off in reports that are drawn over each other with the phases of one.
const SPANS_OFF_S: f64 = 1.0;

const OVER_TIME: [OverTime; 5] = [
    OverTime {
        title: "Throughput",
        up: "a second",
        is_of_series: true,
        parts: &[
            ("achieved", true, |point| Some(point.achieved_per_s)),
            ("offered", false, |point| Some(point.offered_per_s)),
        ],
    },
    OverTime {
        title: "Latency over time",
        up: "ms",
        is_of_series: true,
        parts: &[
            ("p50", false, |point| (point.achieved_per_s > 0.0).then_some(point.p50_ms)),
            ("p99", false, |point| (point.achieved_per_s > 0.0).then_some(point.p99_ms)),
        ],
    },
    OverTime {
        title: "Meanwhile",
        up: "a second",
        is_of_series: false,
        parts: &[(STRAIN, true, |point| point.strain_per_s)],
    },
    OverTime {
        title: "CPU",
        up: "cores",
        is_of_series: false,
        parts: &[("broker", true, |point| point.broker_cores), ("generator", false, |point| Some(point.own_cores))],
    },
    OverTime {
        title: "Memory of the broker",
        up: "MiB resident",
        is_of_series: false,
        parts: &[("resident", true, |point| point.broker_resident_mib)],
    },
];

/// A page of one report, or of several over each other, each with a name.
pub fn page(documents: &[(String, Document)]) -> String {
    let mut html = String::new();
    let scenarios: Vec<_> = documents.iter().map(|(_, document)| document.head.scenario.as_str()).collect();
    let title = match scenarios.as_slice() {
        [one] => format!("Carillon load test: {one}"),
        _ => format!("Carillon load tests: {}", scenarios.join(" and ")),
    };
    let title = escaped(&title);
    // Writing into a text cannot fail.
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>"
    )
    .ok();
    for (name, document) in documents {
        head(&mut html, (documents.len() > 1).then_some(name.as_str()), document);
        tiles(&mut html, document);
    }
    plots(&mut html, documents);
    match documents {
        [(_, a), (_, b)] => comparison(&mut html, &Comparison::of(a, b)),
        _ => {
            for (_, document) in documents {
                table(&mut html, document);
            }
        }
    }
    html.push_str("</main></body></html>\n");
    html
}

fn head(html: &mut String, name: Option<&str>, document: &Document) {
    let head = &document.head;
    if let Some(name) = name {
        write!(html, "<h2>{}</h2>", escaped(name)).ok();
    }
    let (class, verdict) = if document.is_complete {
        ("good", "Everything was as it must be.")
    } else {
        ("bad", "NOT everything was as it must be.")
    };
    write!(html, "<p class=\"{class}\">{verdict}</p>").ok();
    for complaint in complaints(document) {
        write!(html, "<p class=\"bad\">{}</p>", escaped(complaint)).ok();
    }
    let class = if head.generator.limit == Limit::None { "good" } else { "warn" };
    write!(html, "<p class=\"{class}\">{}.</p>", escaped(&capital(&head.generator.verdict))).ok();
    write!(
        html,
        "<p class=\"where\">{} {} · {} · {:.0} s in all<br>{}<br><code>{}</code></p>",
        escaped(&head.tool),
        escaped(&head.version),
        escaped(&head.at),
        head.took_s,
        escaped(&head.machine.to_string()),
        escaped(&head.arguments.join(" "))
    )
    .ok();
}

fn complaints(document: &Document) -> impl Iterator<Item = &str> {
    let list = document.figures.get("complaints").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn tiles(html: &mut String, document: &Document) {
    let found = numbers(&document.figures);
    let tiles = HIGHLIGHTS.iter().filter_map(|(path, label)| {
        let (_, value) = found.iter().find(|(name, _)| name == path)?;
        Some((readable(*value), label))
    });
    html.push_str("<div class=\"tiles\">");
    for (value, label) in tiles {
        write!(html, "<div><b>{value}</b><span>{label}</span></div>").ok();
    }
    html.push_str("</div>");
}

fn plots(html: &mut String, documents: &[(String, Document)]) {
    let several = documents.len() > 1;
    let name = |document: &str, line: &str| if several { format!("{document}: {line}") } else { line.to_owned() };
    let (of, spans) = (series_of(documents), spans(documents));
    let percentiles = percentiles(documents, &name);
    // One plot of all says most; where each measure has one, they are the details.
    let is_first = percentiles.len() <= 1;
    let draw_percentiles = |html: &mut String| {
        for (measure, lines) in &percentiles {
            let plot = Plot { across: "percentile", up: "ms", lines, spans: &[], scale: Scale::Percentiles };
            let title = if measure.is_some() { "Percentiles" } else { "Latency by percentile" };
            figure(html, title, measure.as_deref(), &plot);
        }
    };
    html.push_str("<div class=\"plots\">");
    if is_first {
        draw_percentiles(html);
    }
    for OverTime { title, up, is_of_series, parts } in &OVER_TIME {
        let lines = documents.iter().flat_map(|(of, document)| {
            parts.iter().map(move |(line, is_filled, value)| {
                let line = document.timeline.strain_of.as_deref().filter(|_| *line == STRAIN).unwrap_or(line);
                let points = document.timeline.series.iter().filter_map(|point| Some((point.at_s, value(point)?)));
                Line { name: name(of, line), points: points.collect(), is_filled: *is_filled }
            })
        });
        let lines: Vec<_> = lines.filter(|line| !line.points.is_empty()).collect();
        let plot = Plot { across: "seconds", up, lines: &lines, spans, scale: Scale::Seconds };
        figure(html, title, of.filter(|_| *is_of_series), &plot);
    }
    if !is_first {
        draw_percentiles(html);
    }
    html.push_str("</div>");
}

/// What is drawn over percentiles: all curves in one plot, and a plot with its phases for each measure that has phases.
fn percentiles(
    documents: &[(String, Document)],
    name: &dyn Fn(&str, &str) -> String,
) -> Vec<(Option<String>, Vec<Line>)> {
    let mut plots: Vec<(Option<String>, Vec<Line>)> = Vec::new();
    for (of, document) in documents {
        for (measure, line, points) in curves(document) {
            let place = plots.iter().position(|(other, _)| *other == measure).unwrap_or(plots.len());
            if place == plots.len() {
                plots.push((measure, Vec::new()));
            }
            plots[place].1.push(Line { name: name(of, &line), points, is_filled: false });
        }
    }
    plots
}

/// A plot with its legend, if it has anything to draw.
fn figure(html: &mut String, title: &str, of: Option<&str>, plot: &Plot<'_>) {
    let Some(svg) = plot.to_svg() else { return };
    write!(html, "<figure><figcaption><b>{title}</b>").ok();
    if let Some(of) = of {
        write!(html, "<span>{}</span>", escaped(of)).ok();
    }
    for (colour, line) in plot.legend() {
        write!(html, "<span><i style=\"background:{colour}\"></i>{}</span>", escaped(line)).ok();
    }
    write!(html, "</figcaption>{svg}</figure>").ok();
}

/// What the series of all reports are of, if that is the same.
fn series_of(documents: &[(String, Document)]) -> Option<&str> {
    let mut all = documents.iter().map(|(_, document)| document.timeline.series_of.as_deref());
    let first = all.next()??;
    all.all(|of| of == Some(first)).then_some(first)
}

/// The phases of all reports, if they are the same to the eye.
fn spans(documents: &[(String, Document)]) -> &[Span] {
    let Some((_, first)) = documents.first() else { return &[] };
    let spans = first.timeline.spans.as_slice();
    let is_like = |(one, other): (&Span, &Span)| {
        let off_s = (one.from_s - other.from_s).abs().max((one.to_s - other.to_s).abs());
        one.phase == other.phase && off_s < SPANS_OFF_S
    };
    let are_alike = documents.iter().all(|(_, document)| {
        let others = &document.timeline.spans;
        others.len() == spans.len() && spans.iter().zip(others).all(is_like)
    });
    if are_alike { spans } else { &[] }
}

/// A line of latencies by percentile: the measure that has a plot of its own, the name in the plot, and the points.
type Percentiles = (Option<String>, String, Vec<(f64, f64)>);

/// Latencies by percentile: the report's own, or what its rows say.
fn curves(document: &Document) -> Vec<Percentiles> {
    if !document.curves.is_empty() {
        return document.curves.iter().map(|curve| (None, curve.measure.clone(), curve.points.clone())).collect();
    }
    let rows = document.figures.get("rows").and_then(Value::as_array).into_iter().flatten();
    let lines = rows.filter_map(|row| {
        let latency = row.pointer("/figures/latency")?;
        let (measure, phase) = (row.get("measure")?.as_str()?, row.get("phase")?.as_str()?);
        let told = [("p50_ms", 50.0), ("p90_ms", 90.0), ("p99_ms", 99.0), ("p999_ms", 99.9)];
        let points = told.iter().filter_map(|(key, percent)| Some((*percent, latency.get(key)?.as_f64()?)));
        Some((Some(measure.to_owned()), phase.to_owned(), points.collect()))
    });
    lines.collect()
}

fn table(html: &mut String, document: &Document) {
    html.push_str("<details open><summary>All figures</summary><table><tr><th>figure</th><th>value</th></tr>");
    for (name, value) in numbers(&document.figures) {
        write!(html, "<tr><td>{}</td><td>{}</td></tr>", escaped(&name), readable(value)).ok();
    }
    html.push_str("</table></details>");
}

fn comparison(html: &mut String, comparison: &Comparison) {
    for doubt in &comparison.doubts {
        write!(html, "<p class=\"warn\">{}.</p>", escaped(&capital(doubt))).ok();
    }
    html.push_str("<table><tr><th>figure</th><th>A</th><th>B</th><th>B / A</th></tr>");
    for row in &comparison.rows {
        let ratio = row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.3}"));
        let (figure, a, b) = (escaped(&row.figure), readable(row.a), readable(row.b));
        write!(html, "<tr><td>{figure}</td><td>{a}</td><td>{b}</td><td>{ratio}</td></tr>").ok();
    }
    html.push_str("</table>");
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
