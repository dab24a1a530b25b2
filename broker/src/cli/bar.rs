//! Progress of what takes long: a bar on a terminal, nothing elsewhere.

use std::path::{Path, PathBuf};

use carillon::config::PATH_DEFAULT;
use indicatif::{ProgressBar, ProgressStyle};

use super::config::load;
use super::failure::Failure;

/// A bar that counts bytes.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for what is being done, on standard error.
    pub(super) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(what);
        let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        Self(bar)
    }

    /// Shows how far it is.
    pub(super) fn show(&self, bytes: u64, bytes_all: u64) {
        self.0.set_length(bytes_all.max(bytes));
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Which data directory a command looks at.
#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// The data directory; without it, the configuration's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The configuration, TOML
    #[arg(long, value_name = "FILE", env = super::CONFIG_VARIABLE, default_value = PATH_DEFAULT)]
    config: PathBuf,
}

impl Data {
    /// The directory.
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => load(&self.config).map(|config| config.data).map_err(|failure| failure.about("no --data given")),
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
