//! The arguments of `table`.

use std::path::PathBuf;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::table;
use clap::Args;

use crate::out;

/// No load: prints the page that compares the reports of a directory, in Markdown
///
/// The files are KIND.CONTENDER.ROUND.json, as `--json` prints them, with connect, thin, thick, pipelined or single as KIND and
/// carillon as one of the contenders; facts.txt and commands.txt say what ran.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// Where the reports are
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl TableArgs {
    /// Prints the page.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        out::line(table::page(&self.directory)?.trim_end())?;
        Ok(true)
    }
}
