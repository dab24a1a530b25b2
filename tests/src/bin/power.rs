//! `power`: power fails at random calls under the real journal, and nothing that was acknowledged may be missing.

use std::io::{self, Write};
use std::process::ExitCode;

use carillon_tests::power::run;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Let power fail at random calls under the real journal, and read back what was acknowledged
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  cargo run --release -p carillon-tests --bin power -- --crashes 100000 --seed 1

Exit code 1: something that was acknowledged is missing or changed, or the state is another. The seed of the world is told;
--seed with --crashes 1 runs that world alone.")]
struct Cli {
    /// Crashes in all
    #[arg(long, default_value_t = 10_000)]
    crashes: u64,
    /// The first world's; the next ones count up
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one object
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Cli { crashes, seed, json } = Cli::parse();
    let bar = ProgressBar::new(crashes);
    let style = "crashes [{bar:32}] {pos} of {len}, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is ours").progress_chars("=> "));
    let summary = run(seed, crashes, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    let told = match json {
        true => writeln!(io::stdout(), "{}", summary.as_json()),
        false => write!(io::stdout(), "{summary}"),
    };
    if told.is_ok() && summary.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
