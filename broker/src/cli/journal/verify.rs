//! `carillon journal verify`.

use std::path::Path;

use carillon::journal::{self, ObservedStorage, Storage, VerifyReport};
use carillon::report::Causes;
use carillon::snapshot::{self, SnapshotError};
use carillon_core::Shard;
use carillon_protocol::ids::Position;
use serde_json::json;

use super::super::data::{Data, journal_of};
use super::super::failure::{Exit, Failure};
use super::super::out::{Look, Out};
use super::super::progress::{Progress, Unit};

/// Check every checksum of the journal and its snapshots
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  carillon journal verify --data /var/lib/carillon

Each damaged place is named with file, byte and the positions that are lost there. Nothing is changed. A torn tail is no
damage: a crash, or a broker that writes, leaves one, and the next start cuts it.

Exit code 1: something is damaged, or a file cannot be read.

With --json, one object: {\"first\":1,\"last\":9,\"records\":9,\"batches\":4,\"segments\":1,\"bytes\":67108864,
\"torn_tail_bytes\":0,\"snapshots\":[{\"name\":\"….snapshot\",\"position\":5}],\"damaged\":[{\"file\":\"….journal\",\"offset\":4096,
\"from\":1,\"to\":3,\"what\":\"…\"}],\"damaged_count\":1}")]
pub(super) struct Args {
    #[command(flatten)]
    data: Data,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// A snapshot, and what is wrong with it.
struct Judged {
    position: Position,
    wrong: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let journal = journal_of(&args.data.directory()?)?;
    let storage = ObservedStorage::new(&journal);
    let cannot = |text: String| Failure::new(Exit::Failed, text);
    let bar = Progress::new("verify", Some(0), Unit::Bytes);
    let report = journal::verify(&storage, &mut |progress| bar.at_of(progress.bytes, progress.bytes_all));
    drop(bar);
    let report = report.map_err(|error| cannot(Causes(&error).to_string()))?;
    let snapshots = snapshots(&storage).map_err(|error| cannot(format!("{}: {error}", journal.display())))?;
    let mut out = Out::new();
    match args.json {
        true => out.json(&as_json(&report, &snapshots))?,
        false => tell(&report, &snapshots, &journal, &mut out)?,
    }
    out.flush()?;
    let damaged = report.findings_count + snapshots.iter().filter(|judged| judged.wrong.is_some()).count() as u64;
    if damaged == 0 { Ok(()) } else { Err(cannot(format!("damaged places: {damaged}"))) }
}

fn snapshots(storage: &dyn Storage) -> std::io::Result<Vec<Judged>> {
    let mut judged = Vec::new();
    for position in snapshot::list(storage)? {
        let wrong = match snapshot::read_whole(storage, position) {
            Ok((meta, state)) => Shard::decode_state(meta.shard, &state).err().map(|error| error.to_string()),
            // A broker beside this has removed it.
            Err(SnapshotError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => Some(error.to_string()),
        };
        judged.push(Judged { position, wrong });
    }
    Ok(judged)
}

fn tell(report: &VerifyReport, snapshots: &[Judged], journal: &Path, out: &mut Out) -> std::io::Result<()> {
    let VerifyReport { segments, batches, records, bytes, torn_tail_bytes, findings_count, .. } = report;
    let range = match (report.first, report.last) {
        (Some(first), Some(last)) => format!("positions {first} to {last}"),
        _ => "no positions".into(),
    };
    out.line(format_args!("{}: {range}", journal.display()))?;
    out.line(format_args!("{records} records, {batches} batches, {segments} segments, {bytes} bytes"))?;
    if *torn_tail_bytes > 0 {
        out.line(format_args!("a torn tail of {torn_tail_bytes} bytes, which is no damage"))?;
    }
    for Judged { position, wrong } in snapshots {
        match wrong {
            None => out.line(format_args!("snapshot at position {position}: good"))?,
            Some(why) => {
                let line = out.styled(Look::Bad, format_args!("snapshot at position {position}: {why}")).to_string();
                out.line(line)?;
            }
        }
    }
    for finding in &report.findings {
        let line = out.styled(Look::Bad, finding).to_string();
        out.line(line)?;
    }
    let more = findings_count - report.findings.len() as u64;
    if more > 0 {
        out.line(format_args!("and {more} more damaged places"))?;
    }
    Ok(())
}

fn as_json(report: &VerifyReport, snapshots: &[Judged]) -> serde_json::Value {
    let name = |position: &Position| snapshot::file_name(*position);
    let good = snapshots.iter().filter(|judged| judged.wrong.is_none());
    let good: Vec<_> =
        good.map(|judged| json!({ "name": name(&judged.position), "position": judged.position.0 })).collect();
    let in_segments = report.findings.iter().map(|finding| {
        let to = finding.to.map(|to| to.0);
        json!({ "file": finding.segment, "offset": finding.offset, "from": finding.from.0, "to": to, "what": finding.what })
    });
    let in_snapshots = snapshots
        .iter()
        .filter_map(|judged| judged.wrong.as_ref().map(|why| json!({ "file": name(&judged.position), "what": why })));
    let damaged: Vec<_> = in_segments.chain(in_snapshots).collect();
    let unlisted = report.findings_count - report.findings.len() as u64;
    json!({
        "first": report.first.map(|first| first.0),
        "last": report.last.map(|last| last.0),
        "records": report.records,
        "batches": report.batches,
        "segments": report.segments,
        "bytes": report.bytes,
        "torn_tail_bytes": report.torn_tail_bytes,
        "snapshots": good,
        "damaged_count": damaged.len() as u64 + unlisted,
        "damaged": damaged,
    })
}
