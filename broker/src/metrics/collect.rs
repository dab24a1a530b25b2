//! The names under which everything is served. `docs/OPERATIONS.md` has the same table; a test compares them.

use std::fmt;

use carillon_protocol::error::ErrorCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::meter::{CodeCounts, Counter, EdgeMeter, Histogram, SequencerMeter};
use super::process::Process;
use super::{Metrics, Phase, Running, outlets};
use crate::journal::Room;

/// Labels of one value.
pub(super) type Labels<'a> = Vec<(&'a str, String)>;

/// A label's values, and where each is counted.
type Values = &'static [(&'static str, fn(&EdgeMeter) -> &Counter)];

/// A metric that each edge has, in one or more values that differ by a label.
struct OfEdge {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// The label, empty for a single value.
    label: &'static str,
    /// The label's values, and where each is counted.
    values: Values,
}

const fn counter(name: &'static str, help: &'static str, label: &'static str, values: Values) -> OfEdge {
    OfEdge { name, help, kind: MetricType::Counter, label, values }
}

const fn gauge(name: &'static str, help: &'static str, label: &'static str, values: Values) -> OfEdge {
    OfEdge { name, help, kind: MetricType::Gauge, label, values }
}

const OF_EDGES: &[OfEdge] = &[
    gauge(
        "carillon_sessions",
        "Sessions by state",
        "state",
        &[
            ("opening", |m| &m.sessions_opening),
            ("live", |m| &m.sessions_live),
            ("catching_up", |m| &m.sessions_catching_up),
        ],
    ),
    counter("carillon_sessions_opened", "Sessions that got their Welcome", "", &[("", |m| &m.sessions_opened)]),
    gauge("carillon_connections", "Open QUIC connections", "", &[("", |m| &m.connections)]),
    counter(
        "carillon_connections_ended",
        "Connections that ended without a close from the broker: closed by the peer, silent, or broken",
        "how",
        &[("peer", |m| &m.ended_by_peer), ("silent", |m| &m.ended_silent), ("broken", |m| &m.ended_broken)],
    ),
    counter(
        "carillon_handshakes",
        "Handshakes begun, those that failed, and attempts refused, dropped or asked to prove their address",
        "step",
        &[
            ("begun", |m| &m.handshakes),
            ("failed", |m| &m.handshakes_failed),
            ("refused", |m| &m.connections_refused),
            ("dropped", |m| &m.incoming_dropped),
            ("retried", |m| &m.retries),
        ],
    ),
    counter("carillon_publishes", "Publishes received", "", &[("", |m| &m.publishes)]),
    counter("carillon_published", "Publishes acknowledged as durable", "", &[("", |m| &m.publishes_done)]),
    counter("carillon_requests", "Requests received on control streams", "", &[("", |m| &m.requests)]),
    counter(
        "carillon_deliveries",
        "Frames offered to sessions, as they were committed or while they caught up",
        "feed",
        &[("live", |m| &m.delivered_live), ("catching_up", |m| &m.delivered_catching_up)],
    ),
    counter("carillon_fell_behind", "Times a live session turned to catching up", "", &[("", |m| &m.fell_behind)]),
    counter(
        "carillon_closed_as_slow",
        "Sessions closed because what they had not acknowledged kept too much in memory",
        "",
        &[("", |m| &m.closed_as_slow)],
    ),
    counter("carillon_fell_off_ring", "Times the edge fell off the ring", "", &[("", |m| &m.fell_off_ring)]),
    counter("carillon_rounds_cut", "Rounds cut into chunks", "", &[("", |m| &m.rounds_cut)]),
    counter(
        "carillon_unreadable",
        "Times that a message was left out because its bytes are damaged",
        "",
        &[("", |m| &m.unreadable)],
    ),
    counter("carillon_catch_up_reads", "Reads of frames that had left the ring", "", &[("", |m| &m.reads)]),
    counter(
        "carillon_receipts_let_go",
        "Read updates let go: a session did not read, or there were too many",
        "",
        &[("", |m| &m.receipts_let_go)],
    ),
    gauge("carillon_replies_owed", "Requests that wait for the sequencer", "", &[("", |m| &m.replies_owed)]),
    gauge(
        "carillon_pinned_bytes",
        "Bytes of batches kept alive by what sessions have not acknowledged",
        "",
        &[("", |m| &m.pinned_bytes)],
    ),
    counter(
        "carillon_packets",
        "UDP packets received, sent, and dropped because the send buffer stayed full",
        "direction",
        &[
            ("received", |m| &m.packets_received),
            ("sent", |m| &m.packets_sent),
            ("send_dropped", |m| &m.packets_dropped),
        ],
    ),
    counter(
        "carillon_handovers",
        "Packets handed to the edge that owns them, and those lost because its queue was full",
        "outcome",
        &[("handed_over", |m| &m.handovers), ("dropped", |m| &m.handovers_dropped)],
    ),
];

/// Writes metrics one after the other.
pub(super) struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// A metric with its values.
    pub(super) fn write(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        values: impl IntoIterator<Item = (Labels<'static>, f64)>,
    ) -> fmt::Result {
        let is_counter = matches!(kind, MetricType::Counter);
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            let encode = |one: &mut MetricEncoder<'_>| match is_counter {
                true => one.encode_counter::<NoLabelSet, f64, f64>(&value, None),
                false => one.encode_gauge(&value),
            };
            // A family whose set of labels is empty would be written with empty braces.
            match labels.is_empty() {
                true => encode(&mut metric)?,
                false => encode(&mut metric.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.write((name, help, MetricType::Gauge), [(Vec::new(), value)])
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.write((name, help, MetricType::Counter), [(Vec::new(), value)])
    }

    /// A histogram whose values are counted in a unit of which `per` make the unit that is served.
    fn histogram<const N: usize>(&mut self, name: &str, help: &str, of: &Histogram<N>, per: f64) -> fmt::Result {
        let (sum, count, ranges) = in_unit(of, per);
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &ranges, None)
    }

    /// Histograms of one name that differ by their labels, as [`Writer::histogram`].
    pub(super) fn histograms<'h, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'static>, &'h Histogram<N>)>,
        per: f64,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, of) in all {
            let (sum, count, ranges) = in_unit(of, per);
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &ranges, None)?;
        }
        Ok(())
    }

    /// Counts by error code, summed over the edges; codes that never came are left out.
    fn codes(&mut self, name: &str, help: &str, edges: &[&CodeCounts]) -> fmt::Result {
        let named = ErrorCode::ALL.iter().map(|(code, name)| (*code, *name));
        let unnamed = (ErrorCode(u16::MAX), "UNNAMED");
        let counted = named.chain([unnamed]).map(|(code, name)| {
            let count: u64 = edges.iter().map(|edge| edge.get(code)).sum();
            (vec![("code", name.to_owned())], float(count))
        });
        self.write((name, help, MetricType::Counter), counted.filter(|(_, count)| *count > 0.0))
    }
}

/// Sum, count, and the counts by upper bound of a histogram whose values are counted in a unit of which `per` make one.
fn in_unit<const N: usize>(of: &Histogram<N>, per: f64) -> (f64, u64, Vec<(f64, u64)>) {
    let (sum, ranges) = of.read();
    let count = ranges.iter().map(|(_, count)| count).sum();
    let bounded = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| float(bound) / per);
    (float(sum) / per, count, ranges.into_iter().map(|(bound, count)| (bounded(bound), count)).collect())
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has floats alone; exact up to 2^53")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.broker(&mut writer)?;
        if let Some(running) = self.running.get() {
            edges(running, &mut writer)?;
            sequencer(&running.sequencer, &mut writer)?;
            queues(running, &mut writer)?;
            journal(running, &mut writer)?;
            index(running, &mut writer)?;
        }
        if let Some(meter) = self.notify.get() {
            outlets::encode(meter, &mut writer)?;
        }
        self.process(&mut writer)
    }
}

impl Metrics {
    fn broker(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        writer.write(("carillon_build", "1, with the version as a label", MetricType::Gauge), [(version, 1.0)])?;
        let now = self.phase();
        let phases = [Phase::Recovering, Phase::Serving, Phase::Draining];
        let phases = phases.map(|phase| (vec![("phase", phase.name().to_owned())], f64::from(u8::from(phase == now))));
        writer.write(("carillon_phase", "1 for the phase the broker is in", MetricType::Gauge), phases)?;
        if let Some(ends_s) = self.certificate.get().and_then(|presented| presented.ends_at_s()) {
            #[allow(clippy::cast_precision_loss, reason = "seconds of some thousand years")]
            let left_s = ends_s as f64 - float(self.clock.wall().0) / 1_000.0;
            writer.gauge("carillon_certificate_expires_seconds", "Seconds until the certificate ends", left_s)?;
        }
        Ok(())
    }

    fn process(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let process = Process::read();
        writer.counter("process_cpu_seconds", "CPU time used", process.cpu.as_secs_f64())?;
        writer.gauge("process_resident_memory_bytes", "Resident memory", float(process.resident_bytes))?;
        writer.gauge("process_virtual_memory_bytes", "Virtual memory", float(process.virtual_bytes))?;
        writer.gauge("process_threads", "Threads", float(process.threads))?;
        writer.gauge("process_open_fds", "Open file descriptors", float(process.open_files))?;
        writer.gauge("process_max_fds", "Limit of open file descriptors", float(process.open_files_max))?;
        let started_s = float(self.started_at_ms) / 1_000.0;
        writer.gauge("process_start_time_seconds", "Start, in seconds since the Unix epoch", started_s)
    }
}

fn edges(running: &Running, writer: &mut Writer<'_>) -> fmt::Result {
    for OfEdge { name, help, kind, label, values } in OF_EDGES {
        let of_edge = |(nth, edge): (usize, &std::sync::Arc<EdgeMeter>)| {
            let one = |(value, counter): &(&str, fn(&EdgeMeter) -> &Counter)| {
                let mut labels = vec![("edge", nth.to_string())];
                labels.extend((!label.is_empty()).then(|| (*label, (*value).to_owned())));
                (labels, float(counter(edge).get()))
            };
            values.iter().map(one).collect::<Vec<_>>()
        };
        writer.write((name, help, *kind), running.edges.iter().enumerate().flat_map(of_edge))?;
    }
    let head = running.ring.head();
    let lag = running
        .edges
        .iter()
        .enumerate()
        .map(|(nth, edge)| (vec![("edge", nth.to_string())], float(head.saturating_sub(edge.ring_next.get()))));
    let about = ("carillon_ring_lag_batches", "Committed batches that the edge has not processed", MetricType::Gauge);
    writer.write(about, lag)?;
    let closes: Vec<_> = running.edges.iter().map(|edge| &edge.closes).collect();
    writer.codes("carillon_closes", "Connections closed by the broker, by error code", &closes)?;
    let refusals: Vec<_> = running.edges.iter().map(|edge| &edge.refusals).collect();
    writer.codes("carillon_refusals", "Requests and publishes refused, by error code", &refusals)
}

fn sequencer(meter: &SequencerMeter, writer: &mut Writer<'_>) -> fmt::Result {
    writer.histogram("carillon_commit_records", "Records of a batch", &meter.batch_records, 1.0)?;
    writer.histogram("carillon_commit_bytes", "Bytes of a batch", &meter.batch_bytes, 1.0)?;
    let help = "Time of a commit: one write and one fdatasync";
    writer.histogram("carillon_commit_seconds", help, &meter.commit_us, 1_000_000.0)?;
    writer.gauge("carillon_journal_head", "The last durable position", float(meter.head.get()))?;
    let states = [
        ("open", &meter.dings_open),
        ("confirmed", &meter.dings_confirmed),
        ("expired", &meter.dings_expired),
        ("recalled", &meter.dings_recalled),
    ];
    let states = states.map(|(state, count)| (vec![("state", state.to_owned())], float(count.get())));
    writer.write(("carillon_dings", "DINGs that are kept, by state", MetricType::Gauge), states)?;
    let help = "Calls of DINGs that wait until their outlet has room";
    writer.gauge("carillon_ding_calls_waiting", help, float(meter.ding_calls_waiting.get()))
}

fn queues(running: &Running, writer: &mut Writer<'_>) -> fmt::Result {
    let replies: usize = running.mailboxes.iter().map(|mailbox| mailbox.replies.len() + mailbox.marked.len()).sum();
    let reads = running.watched.bodies.upgrade().map_or(0, |bodies| bodies.queued());
    let queues = running.submit.queued().into_iter().chain([("reply", replies), ("reader", reads)]);
    let depths = queues.map(|(queue, depth)| (vec![("queue", queue.to_owned())], float(depth as u64)));
    writer.write(("carillon_queue_depth", "What waits in a queue between threads", MetricType::Gauge), depths)
}

fn journal(running: &Running, writer: &mut Writer<'_>) -> fmt::Result {
    room(running, writer)?;
    // A directory that cannot be listed now is for the log of who writes there.
    let usage = running.watched.storage.upgrade().and_then(|storage| crate::journal::usage(&*storage).ok());
    let usage = usage.unwrap_or_default();
    writer.gauge("carillon_journal_segments", "Segment files", float(usage.segments))?;
    writer.gauge(
        "carillon_journal_bytes",
        "Bytes of the segment files, zero-filled ends included",
        float(usage.bytes),
    )?;
    let help = "Bytes of the journal that no snapshot covers: a start replays them, and retention leaves them";
    let uncovered = running.watched.uncovered.upgrade().map_or(0, |uncovered| uncovered.bytes());
    writer.gauge("carillon_journal_uncovered_bytes", help, float(uncovered))
}

fn room(running: &Running, writer: &mut Writer<'_>) -> fmt::Result {
    let now = running.sequencer.room();
    let rooms = [Room::Enough, Room::Reserve, Room::Last];
    let rooms = rooms.map(|room| (vec![("room", room.name().to_owned())], f64::from(u8::from(room == now))));
    let help = "1 for how much room the journal has; publishes are refused unless it is enough";
    writer.write(("carillon_journal_room", help, MetricType::Gauge), rooms)?;
    let help = "Bytes that can be committed without asking the disk for room, the reserve included";
    writer.gauge("carillon_journal_prepared_bytes", help, float(running.sequencer.prepared_bytes.get()))?;
    // Not told where the system does not tell.
    let free = running.watched.storage.upgrade().and_then(|storage| storage.free_bytes().ok().flatten());
    let help = "Free room of the file system of the journal";
    free.map_or(Ok(()), |bytes| writer.gauge("carillon_disk_free_bytes", help, float(bytes)))
}

fn index(running: &Running, writer: &mut Writer<'_>) -> fmt::Result {
    let stats = running.watched.index.upgrade().map(|index| index.stats()).unwrap_or_default();
    let bytes = [
        ("messages", stats.messages_bytes as u64),
        ("marks", stats.marks_bytes as u64),
        ("conversations", stats.conversations_bytes as u64),
        ("disk", stats.disk_bytes),
    ];
    let bytes = bytes.map(|(part, bytes)| (vec![("part", part.to_owned())], float(bytes)));
    let help = "Bytes of the index: messages, marks and conversations in memory, and its files on disk";
    writer.write(("carillon_index_bytes", help, MetricType::Gauge), bytes)?;
    writer.counter(
        "carillon_index_flushes",
        "Times that recent messages were brought to disk",
        float(stats.flushes),
    )?;
    let help = "Times that the disk did not keep up and memory went over its budget";
    writer.counter("carillon_index_over_budget", help, float(stats.over_budget))?;
    let help = "Times that the index was found damaged and built anew while serving";
    writer.counter("carillon_index_rebuilds", help, float(stats.rebuilds))?;
    let rebuilding = f64::from(u8::from(stats.rebuilding));
    writer.gauge("carillon_index_rebuilding", "1 while the index is being built anew", rebuilding)?;
    let help = "Damaged records of the journal that the index was built without, and readers are refused";
    writer.gauge("carillon_index_lost_records", help, float(stats.lost))
}
