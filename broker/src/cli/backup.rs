//! `carillon backup`: a copy of a data directory while the broker serves from it.

use std::path::PathBuf;

use carillon::backup::{self, BackupError};
use serde_json::json;

use super::data::Data;
use super::failure::{Exit, Failure};
use super::out::Out;
use super::progress::{Progress, Unit};
use super::time::now;

/// Copy the journal and its snapshots, while the broker serves or not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  carillon backup --data /var/lib/carillon --to /backup/2026-11-22
  carillon restore --from /backup/2026-11-22 --data /var/lib/carillon

Everything that was acknowledged before it began is in the copy. All checksums of the journal are checked on the way, so a
damaged journal gives no backup: see `carillon journal verify`. Run it as the broker's user, or as root. A backup without
manifest.json was interrupted. Not in it: configuration, certificates, keys, and the index, which is built anew.

With --json: {\"to\":\"…\",\"head\":123,\"first\":1,\"incarnation\":\"00c0ffee00c0ffee\",\"files\":3,\"bytes\":4096}")]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
    /// A directory that is not there yet, or empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let data = args.data.directory()?;
    let bar = Progress::new("backup", Some(0), Unit::Bytes);
    let taken = backup::take(&data, &args.to, now(), &mut |progress| bar.at_of(progress.bytes, progress.bytes_all));
    drop(bar);
    let manifest = taken.map_err(not_done)?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let (to, files) = (args.to.display().to_string(), manifest.files.len());
    let mut out = Out::new();
    if args.json {
        let (head, first, incarnation) = (manifest.head, manifest.first, manifest.incarnation);
        out.json(&json!({
            "to": to, "head": head, "first": first, "incarnation": incarnation, "files": files, "bytes": bytes,
        }))?;
    } else {
        let (first, head) = (manifest.first, manifest.head);
        out.line(format_args!("backup of positions {first} to {head} in {to}: {files} files, {bytes} bytes"))?;
    }
    Ok(out.flush()?)
}

/// What keeps a backup from being taken or restored.
pub(super) fn not_done(error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Nothing(_) | BackupError::Taken(_) | BackupError::NoManifest(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::caused(exit, carillon::report::Causes(&error).to_string(), error)
}
