//! `carillon journal verify`.

use std::path::Path;

use carillon::journal::{self, ObservedStorage, Storage, VerifyReport};
use carillon::report::Causes;
use carillon::snapshot::{self, CompareError, SnapshotError, Standing};
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
Examples:
  carillon journal verify --data /var/lib/carillon

  carillon journal verify --replay --data /var/lib/carillon

Each damaged place is named with file, byte and the positions that are lost there. Nothing is changed. A torn tail is no
damage: a crash, or a broker that writes, leaves one, and the next start cuts it.

With --replay each snapshot is then compared with the state that the records up to it lead to, from the journal's begin or, where
retention took that, from the older snapshot, which is believed. It replays the journal once more, in the memory of the broker's
state and of that state encoded.

Exit code 1: something is damaged, or a file cannot be read.

With --json, one object: {\"first\":1,\"last\":9,\"records\":9,\"batches\":4,\"segments\":1,\"bytes\":67108864,
\"torn_tail_bytes\":0,\"snapshots\":[{\"name\":\"….snapshot\",\"position\":5,\"standing\":\"same\"}],\"damaged\":[{\"file\":\"….journal\",\"offset\":4096,
\"from\":1,\"to\":3,\"what\":\"…\"}],\"damaged_count\":1}")]
pub(super) struct Args {
    #[command(flatten)]
    data: Data,
    /// Replay the records too, and compare each snapshot with the state that they lead to
    #[arg(long)]
    replay: bool,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// A snapshot, and what is wrong with it.
struct Judged {
    position: Position,
    wrong: Option<String>,
    /// By a replay, in a word; `None` without one, or where the file is gone by then.
    standing: Option<&'static str>,
    /// What a replay says of a good one.
    beside: &'static str,
}

impl Judged {
    fn compared(&mut self, standing: Standing) {
        let (word, found) = match standing {
            Standing::Same => ("same", Ok(", and the state that the records lead to")),
            Standing::Base => ("base", Ok("; the records before it are gone, and those after it were replayed on it")),
            Standing::Unreached => ("unreached", Ok("; the records up to it are gone")),
            Standing::Other => ("other", Err("it is not the state that the records up to it lead to".to_owned())),
            Standing::Beyond => ("beyond", Err("the journal ends before it: records are missing".to_owned())),
            Standing::Unreadable(error) => ("unreadable", Err(error.to_string())),
        };
        self.standing = Some(word);
        match found {
            Ok(beside) => self.beside = beside,
            Err(wrong) => _ = self.wrong.get_or_insert(wrong),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let mut object = json!({ "name": snapshot::file_name(self.position), "position": self.position.0 });
        if let Some(standing) = self.standing {
            object["standing"] = standing.into();
        }
        object
    }
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
    let mut snapshots = snapshots(&storage).map_err(|error| cannot(format!("{}: {error}", journal.display())))?;
    let failed = if args.replay { replay(&storage, &mut snapshots).err() } else { None };
    let mut out = Out::new();
    match args.json {
        true => out.json(&as_json(&report, &snapshots, failed.as_ref()))?,
        false => tell(&report, &snapshots, &journal, &mut out)?,
    }
    out.flush()?;
    if let Some(error) = failed {
        return Err(cannot(format!("the records cannot be replayed: {}", Causes(&error))));
    }
    let damaged = report.findings_count + snapshots.iter().filter(|judged| judged.wrong.is_some()).count() as u64;
    if damaged == 0 { Ok(()) } else { Err(cannot(format!("damaged places: {damaged}"))) }
}

/// Compares the snapshots with what the records lead to.
fn replay(storage: &dyn Storage, snapshots: &mut Vec<Judged>) -> Result<(), CompareError> {
    let bar = Progress::new("replay", Some(0), Unit::Bytes);
    let compared = snapshot::compare(storage, &mut |bytes, bytes_all| bar.at_of(bytes, bytes_all));
    drop(bar);
    for (position, standing) in compared? {
        let known = snapshots.iter().position(|judged| judged.position == position);
        let known = known.unwrap_or_else(|| {
            // A broker beside this took it meanwhile.
            snapshots.push(Judged { position, wrong: None, standing: None, beside: "" });
            snapshots.len() - 1
        });
        snapshots[known].compared(standing);
    }
    Ok(())
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
        judged.push(Judged { position, wrong, standing: None, beside: "" });
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
    for judged in snapshots {
        let Judged { position, wrong, beside, .. } = judged;
        match wrong {
            None => out.line(format_args!("snapshot at position {position}: good{beside}"))?,
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

fn as_json(report: &VerifyReport, snapshots: &[Judged], failed: Option<&CompareError>) -> serde_json::Value {
    let name = |position: &Position| snapshot::file_name(*position);
    let good = snapshots.iter().filter(|judged| judged.wrong.is_none());
    let good: Vec<_> = good.map(|judged| judged.as_json()).collect();
    let in_segments = report.findings.iter().map(|finding| {
        let to = finding.to.map(|to| to.0);
        json!({ "file": finding.segment, "offset": finding.offset, "from": finding.from.0, "to": to, "what": finding.what })
    });
    let in_snapshots = snapshots
        .iter()
        .filter_map(|judged| judged.wrong.as_ref().map(|why| json!({ "file": name(&judged.position), "what": why })));
    let in_records =
        failed.map(|error| json!({ "what": format!("the records cannot be replayed: {}", Causes(error)) }));
    let damaged: Vec<_> = in_segments.chain(in_snapshots).chain(in_records).collect();
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
