//! The data directory that a command looks at.

use std::path::{Path, PathBuf};

use super::config::{File, load};
use super::failure::Failure;

/// Which data directory a command looks at.
#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// The data directory; without it, the configuration's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    config: File,
}

impl Data {
    /// The directory.
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => {
                load(&self.config.path).map(|config| config.data).map_err(|failure| failure.about("no --data given"))
            }
        }
    }
}

/// Where the journal lies in a data directory.
pub(super) fn journal_of(data: &Path) -> Result<PathBuf, Failure> {
    let journal = data.join("journal");
    if journal.is_dir() {
        return Ok(journal);
    }
    Err(Failure::usage(format!("{} holds no journal: give a broker's data directory with --data", data.display())))
}
