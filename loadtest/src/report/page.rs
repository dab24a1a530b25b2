//! A report as a page of HTML that needs nothing else: figures, plots, and where they come from.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{numbers, readable};
use super::plot::{Line, Plot, Scale};
use super::{Comparison, Document, Limit, Point};

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
    let curves = documents.iter().flat_map(|(of, document)| {
        let lines = curves(document).into_iter();
        lines.map(move |(measure, points)| Line { name: name(of, &measure), points, is_filled: false })
    });
    let over_time = |parts: &[Part]| -> Vec<Line> {
        let lines = documents.iter().flat_map(|(of, document)| {
            parts.iter().map(move |(line, is_filled, value)| {
                let points = document.series.iter().filter_map(|point| Some((point.at_s, value(point)?)));
                Line { name: name(of, line), points: points.collect(), is_filled: *is_filled }
            })
        });
        lines.filter(|line| !line.points.is_empty()).collect()
    };
    let seconds = |title, up, lines| (title, Plot { across: "seconds", up, lines, scale: Scale::Seconds });
    let by_percentile = Plot { across: "percentile", up: "ms", lines: curves.collect(), scale: Scale::Percentiles };
    let plots = [
        ("Latency by percentile", by_percentile),
        seconds(
            "Throughput",
            "a second",
            over_time(&[
                ("achieved", true, |point| Some(point.achieved_per_s)),
                ("offered", false, |point| Some(point.offered_per_s)),
            ]),
        ),
        seconds(
            "Latency over time",
            "ms",
            over_time(&[
                ("p50", false, |point| (point.achieved_per_s > 0.0).then_some(point.p50_ms)),
                ("p99", false, |point| (point.achieved_per_s > 0.0).then_some(point.p99_ms)),
            ]),
        ),
        seconds(
            "CPU",
            "cores",
            over_time(&[
                ("broker", true, |point| point.broker_cores),
                ("generator", false, |point| Some(point.own_cores)),
            ]),
        ),
        seconds(
            "Memory of the broker",
            "MiB resident",
            over_time(&[("resident", true, |point| point.broker_resident_mib)]),
        ),
    ];
    html.push_str("<div class=\"plots\">");
    for (title, plot) in plots {
        if let Some(svg) = plot.to_svg() {
            write!(html, "<figure><figcaption><b>{title}</b>").ok();
            for (colour, line) in plot.legend() {
                write!(html, "<span><i style=\"background:{colour}\"></i>{}</span>", escaped(line)).ok();
            }
            write!(html, "</figcaption>{svg}</figure>").ok();
        }
    }
    html.push_str("</div>");
}

/// Latencies by percentile: the report's own, or what its rows say.
fn curves(document: &Document) -> Vec<(String, Vec<(f64, f64)>)> {
    if !document.curves.is_empty() {
        return document.curves.iter().map(|curve| (curve.measure.clone(), curve.points.clone())).collect();
    }
    let rows = document.figures.get("rows").and_then(Value::as_array).into_iter().flatten();
    let lines = rows.filter_map(|row| {
        let latency = row.pointer("/figures/latency")?;
        let name = format!("{}, {}", row.get("measure")?.as_str()?, row.get("phase")?.as_str()?);
        let told = [("p50_ms", 50.0), ("p90_ms", 90.0), ("p99_ms", 99.0), ("p999_ms", 99.9)];
        let points = told.iter().filter_map(|(key, percent)| Some((*percent, latency.get(key)?.as_f64()?)));
        Some((name, points.collect()))
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
