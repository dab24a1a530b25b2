//! `carillon journal`: look at a journal's files, while the broker serves or not.

mod dump;
mod record;
mod verify;

use super::failure::Failure;

/// Verify the journal and its snapshots, or show its records. Reads only, also while the broker serves
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Verify(verify::Args),
    Dump(dump::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.what {
        What::Verify(args) => verify::run(args),
        What::Dump(args) => dump::run(args),
    }
}
