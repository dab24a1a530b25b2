//! `carillon journal dump`.

use carillon::journal::{Batch, ObservedStorage, Walk, WalkError};
use carillon::report::Causes;
use carillon_core::record::Record;
use carillon_protocol::ids::Position;
use jiff::tz::TimeZone;
use serde_json::json;

use super::super::data::{Data, journal_of};
use super::super::failure::{Exit, Failure};
use super::super::out::{Look, Out};
use super::super::progress::{Progress, Unit};
use super::super::time::{local, rfc3339};
use super::record::describe;
use carillon::report::escape;

/// Show the journal's records, oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon journal dump --data /var/lib/carillon --from 1000 --limit 20
  carillon journal dump --json --payloads | jq 'select(.kind == \"Message\")'

Payloads are what people wrote: only their length is shown unless --payloads is given. With --json, one object a record:
{\"position\":7,\"time\":\"2026-11-22T05:25:00.000Z\",\"kind\":\"Message\",…}; identifiers of 64 bits are texts.")]
pub(super) struct Args {
    #[command(flatten)]
    data: Data,
    /// The first position
    #[arg(long, value_name = "POSITION", default_value_t = 1)]
    from: u64,
    /// The last position
    #[arg(long, value_name = "POSITION", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Records at most
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Show payloads too: as text, or in base64
    #[arg(long)]
    payloads: bool,
    /// One object a line
    #[arg(long)]
    json: bool,
}

/// Why a dump ends before the journal does.
enum Ended {
    /// All that was asked for was shown.
    Enough,
    Failed(Failure),
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let journal = journal_of(&args.data.directory()?)?;
    let storage = ObservedStorage::new(&journal);
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failed, Causes(error).to_string());
    let Some(walk) = Walk::of(&storage).map_err(|error| failed(&error))? else { return Ok(()) };
    let from = Position(args.from);
    let bytes_all = walk.bytes_from(from).map_err(|error| failed(&error))?;
    let bar = Progress::beside_output("dump", Some(bytes_all), Unit::Bytes);
    let mut dump = Dump { args: &args, out: Out::new(), zone: TimeZone::system(), shown: 0 };
    let mut bytes = 0;
    let done = walk.batches(from, |batch| {
        bytes += batch.bytes() as u64;
        bar.at(bytes);
        dump.batch(batch)
    });
    drop(bar);
    dump.out.flush()?;
    match done {
        Ok(_) | Err(WalkError::Sink(Ended::Enough)) => Ok(()),
        Err(WalkError::Sink(Ended::Failed(failure))) => Err(failure),
        Err(WalkError::Journal(error)) => Err(failed(&error)),
    }
}

struct Dump<'a> {
    args: &'a Args,
    out: Out,
    zone: TimeZone,
    shown: u64,
}

impl Dump<'_> {
    fn batch(&mut self, batch: &Batch) -> Result<(), Ended> {
        for entry in batch.entries() {
            if entry.position.0 < self.args.from {
                continue;
            }
            if entry.position.0 > self.args.to || self.shown == self.args.limit {
                return Err(Ended::Enough);
            }
            let record = Record::decode(entry.private, entry.frame).map_err(|error| {
                Ended::Failed(Failure::new(Exit::Failed, format!("position {}: {error}", entry.position)))
            })?;
            self.record(entry.position, &record).map_err(|error| Ended::Failed(error.into()))?;
            self.shown += 1;
        }
        Ok(())
    }

    fn record(&mut self, position: Position, record: &Record) -> std::io::Result<()> {
        let (kind, fields) = describe(record, self.args.payloads);
        if self.args.json {
            let mut object = json!({ "position": position.0, "time": rfc3339(record.time()), "kind": kind });
            let all = object.as_object_mut().expect("it is one");
            all.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            return self.out.json(&object);
        }
        let time = self.out.styled(Look::Faint, local(record.time(), &self.zone)).to_string();
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(text) => format!("{name}={}", escape(text)),
                other => format!("{name}={other}"),
            })
            .collect();
        self.out.line(format_args!("{:>12}  {time}  {kind:<18} {}", position.0, fields.join(" ")))
    }
}
