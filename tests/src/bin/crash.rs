//! `crash`: kills the real broker under load, and sees that nothing which it acknowledged is missing.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use carillon_tests::crash::{Options, run};
use carillon_tests::harness::binary;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Kill the broker under load, start it again, and read back what it has acknowledged
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  cargo run --release -p carillon-tests --bin crash -- --cycles 200 --seed 1

Exit code 1: something that was acknowledged is lost, reordered, duplicated or changed. The data directory is kept then, with
the broker's log and the noted acknowledgements beside it.")]
struct Cli {
    /// Kills in all
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    cycles: u32,
    /// Which choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The broker's binary; built if it is not given
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Kills on one data directory
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=200))]
    chapter: u32,
    /// Everything is read back after so many kills, and at the end of each directory
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    audit_every: u32,
    /// Most lives under load end within so many milliseconds
    #[arg(long, default_value_t = 600)]
    window_ms: u64,
    /// Publishes of each producer without an answer
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// A directory on a disk of its own, of 128 MiB to 2 GiB: the data directories are made there, and the disk is filled up before each kill
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Print one object
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { cycles, seed, broker, chapter, audit_every, window_ms, in_flight, disk, json } = Cli::parse();
    let broker = broker.unwrap_or_else(binary);
    let window = Duration::from_millis(window_ms);
    let options = Options { broker, cycles, chapter, audit_every, seed, window, in_flight: in_flight.into(), disk };
    let bar = ProgressBar::new(cycles.into());
    let style = "kills [{bar:32}] {pos} of {len}, {msg} acknowledged, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is ours").progress_chars("=> "));
    let summary = run(&options, &mut |kills, acknowledged| {
        bar.set_message(acknowledged.to_string());
        bar.set_position(kills.into());
    })
    .await;
    bar.finish_and_clear();
    let told = match json {
        true => writeln!(io::stdout(), "{}", summary.as_json()),
        false => write!(io::stdout(), "{summary}"),
    };
    if told.is_ok() && summary.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
