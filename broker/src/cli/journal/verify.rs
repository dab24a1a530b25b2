//! `carillon journal verify`.

use std::path::Path;

use carillon::journal::{self, ObservedStorage, Storage, VerifyReport};
use carillon::report::Causes;
use carillon::snapshot::{self, SnapshotError, Standing};
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

With --replay each snapshot is also held against the state that the records up to it lead to, from the journal's begin or from
the oldest snapshot that reaches it. That takes the time and the memory of a start without snapshots.

Exit code 1: something is damaged, or a file cannot be read.

With --json, one object: {\"first\":1,\"last\":9,\"records\":9,\"batches\":4,\"segments\":1,\"bytes\":67108864,
\"torn_tail_bytes\":0,\"snapshots\":[{\"name\":\"….snapshot\",\"position\":5}],\"damaged\":[{\"file\":\"….journal\",\"offset\":4096,
\"from\":1,\"to\":3,\"what\":\"…\"}],\"damaged_count\":1}")]
pub(super) struct Args {
    #[command(flatten)]
    data: Data,
    /// Replay the records, and hold each snapshot against the state that they lead to
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
    /// Of `--replay`.
    standing: Option<Standing>,
}

impl Judged {
    fn hold(&mut self, held: &[(Position, Standing)]) {
        self.standing = held.iter().find(|(position, _)| *position == self.position).map(|(_, standing)| *standing);
        if self.wrong.is_none() && self.standing == Some(Standing::Other) {
            self.wrong = Some("it is not the state that the records up to it lead to".into());
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let mut object = json!({ "name": snapshot::file_name(self.position), "position": self.position.0 });
        if let Some(standing) = self.standing {
            object["replayed"] = json!(standing == Standing::Same);
        }
        object
    }

    /// What is known of a good one.
    const fn praise(&self) -> &'static str {
        match self.standing {
            None => "good",
            Some(Standing::Same) => "good, and the state that the records lead to",
            Some(Standing::Base) => "good; the records before it are gone, and those after it were replayed on it",
            Some(Standing::Other | Standing::Unknown) => {
                "good, and not held against the records, which do not reach it"
            }
        }
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
    if args.replay {
        let bar = Progress::new("replay", Some(0), Unit::Bytes);
        let held = snapshot::hold(&storage, &mut |bytes, bytes_all| bar.at_of(bytes, bytes_all));
        drop(bar);
        let held = held.map_err(|error| cannot(format!("the records cannot be replayed: {}", Causes(&error))))?;
        for judged in &mut snapshots {
            judged.hold(&held);
        }
    }
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
        judged.push(Judged { position, wrong, standing: None });
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
        let Judged { position, wrong, .. } = judged;
        match wrong {
            None => out.line(format_args!("snapshot at position {position}: {}", judged.praise()))?,
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
    let good: Vec<_> = good.map(|judged| judged.as_json()).collect();
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
