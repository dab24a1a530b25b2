//! `carillon restore`: a backup becomes a data directory, with a history of its own.

use std::path::PathBuf;

use carillon::backup;
use serde_json::json;

use super::backup::not_done;
use super::failure::Failure;
use super::out::Out;
use super::progress::{Progress, Unit};

/// Make a data directory of a backup
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  carillon restore --from /backup/2026-11-22 --data /var/lib/carillon

The journal gets a new incarnation, because what the old broker acknowledged after the backup is not in it: clients that come with
a cursor of the old one are told so (`Reset` in the SDK) and begin anew, with everything that the journal has. Nothing is
overwritten: a data directory with a journal is refused. Give the directory to the broker's user afterwards.

With --json: {\"data\":\"…\",\"head\":123,\"incarnation\":\"00c0ffee00c0ffee\",\"was\":\"0123456789abcdef\"}")]
pub(crate) struct Args {
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let bar = Progress::new("restore", Some(0), Unit::Bytes);
    let restored =
        backup::restore(&args.from, &args.data, &mut |progress| bar.at_of(progress.bytes, progress.bytes_all));
    drop(bar);
    let restored = restored.map_err(not_done)?;
    let (head, was) = (restored.manifest.head, restored.manifest.incarnation);
    let incarnation = format!("{:016x}", restored.incarnation.0);
    let data = args.data.display().to_string();
    let mut out = Out::new();
    if args.json {
        out.json(&json!({ "data": data, "head": head, "incarnation": incarnation, "was": was }))?;
    } else {
        out.line(format_args!("restored up to position {head} into {data}"))?;
        out.line(format_args!("its incarnation is {incarnation}, no longer {was}: clients begin anew"))?;
    }
    Ok(out.flush()?)
}
