//! `corrupt`: damages copies of a real data directory, and sees that nothing wrong is served and nothing bad deleted.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use carillon_tests::corrupt::run;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Damage copies of a real data directory in one place each, and open them
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  cargo run --release -p carillon-tests --bin corrupt -- --cases 10000

Exit code 1: something damaged was served, or not named, or reached further than its batch, or a file was deleted. Each such
case is told with its number; --first with --cases 1 runs it alone.")]
struct Cli {
    /// Cases in all
    #[arg(long, default_value_t = 10_000)]
    cases: u64,
    /// The number of the first case
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Which directory, and which damage
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where copies are made: some megabytes, written again and again
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Print one object
    #[arg(long)]
    json: bool,
}

fn main() -> io::Result<ExitCode> {
    let Cli { cases, first, seed, directory, json } = Cli::parse();
    let directory = directory.unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new().prefix("corrupt-").tempdir_in(directory)?;
    let bar = ProgressBar::new(cases);
    let style = "cases [{bar:32}] {pos} of {len}, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is ours").progress_chars("=> "));
    let summary = run(directory.path(), (seed, first, cases), &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    match json {
        true => writeln!(io::stdout(), "{}", summary.as_json())?,
        false => write!(io::stdout(), "{summary}")?,
    }
    Ok(if summary.wrong_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
