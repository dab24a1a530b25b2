//! The command line, parsed into plans: a file for each scenario.

mod basis;
mod channel;
mod compare;
mod connect;
mod ding;
mod fanout;
mod idle;
mod mixed;
mod others;
mod pairwise;
mod peers;
mod publish;
mod receipts;
mod reconnect;
mod strain;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use carillon_loadtest::clock::SystemClock;
use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::PAYLOAD_BYTES_MIN;
use carillon_loadtest::report::{self, Document, Findings, Head};
use carillon_protocol::limits::PAYLOAD_BYTES_MAX;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};

use crate::out;
use channel::ChannelArgs;
use compare::CompareArgs;
use connect::ConnectArgs;
use ding::DingArgs;
use fanout::FanoutArgs;
use idle::IdleArgs;
use mixed::MixedArgs;
use pairwise::PairwiseArgs;
use publish::PublishArgs;
use receipts::ReceiptsArgs;
use reconnect::ReconnectArgs;
use strain::{DeafArgs, FloodArgs, HoardArgs, OverloadArgs};
use table::TableArgs;

const ABOUT: &str = "\
Start a broker in one terminal, then run against it; give its process id to learn what a delivery costs it:
  carillon dev
  carillon-loadtest fanout --sessions 5000 --rounds 10 --broker-pid \"$(pgrep -x carillon)\"

Exit codes:
  0  everything came, once and in order, and every count is right
  1  something did not, or the broker refused something
  2  wrong arguments, context or files
  3  no broker answers
  4  not allowed: the token, or the broker's certificate

Both sides of a run on one machine share its cores: the figures are lower bounds of what the broker can do. Compare only
what ran on the same machine, side by side.";

/// Load for a Carillon broker: many sessions, one schedule, everything counted.
#[derive(Debug, Parser)]
#[command(name = "carillon-loadtest", version, after_help = ABOUT, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    Fanout(FanoutArgs),
    Publish(PublishArgs),
    Connect(ConnectArgs),
    Idle(IdleArgs),
    Reconnect(ReconnectArgs),
    Pairwise(PairwiseArgs),
    Channel(ChannelArgs),
    Mixed(MixedArgs),
    Receipts(ReceiptsArgs),
    Ding(DingArgs),
    Overload(OverloadArgs),
    Deaf(DeafArgs),
    Hoard(HoardArgs),
    Flood(FloodArgs),
    Compare(CompareArgs),
    Table(TableArgs),
}

impl Scenario {
    /// Runs and prints; answers whether everything was as it must be.
    pub(crate) fn run(&self) -> Result<bool, Failure> {
        match self {
            Self::Fanout(args) => args.run(),
            Self::Publish(args) => args.run(),
            Self::Connect(args) => args.run(),
            Self::Idle(args) => args.run(),
            Self::Reconnect(args) => args.run(),
            Self::Pairwise(args) => args.run(),
            Self::Channel(args) => args.run(),
            Self::Mixed(args) => args.run(),
            Self::Receipts(args) => args.run(),
            Self::Ding(args) => args.run(),
            Self::Overload(args) => args.run(),
            Self::Deaf(args) => args.run(),
            Self::Hoard(args) => args.run(),
            Self::Flood(args) => args.run(),
            Self::Compare(args) => args.run(),
            Self::Table(args) => args.run(),
        }
    }
}

/// What every scenario may be told.
#[derive(Debug, Args)]
struct RunArgs {
    /// What the handles begin with. Two runs at once need two
    #[arg(long, value_name = "NAME", default_value = "load", value_parser = parse_prefix)]
    prefix: String,
    /// The broker's process on this machine: adds what the run costs it in CPU and memory
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Give up when nothing has happened for so long
    #[arg(long, value_name = "S", default_value = "30", value_parser = range(1, 3_600))]
    patience_s: u32,
    /// Give up after so long, whatever happens
    #[arg(long, value_name = "S", default_value = "1800", value_parser = range(1, 86_400))]
    time_limit_s: u32,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Write the figures to a file as one JSON object, for `compare`
    #[arg(long, value_name = "FILE", value_parser = parse_new_file)]
    json_file: Option<PathBuf>,
    /// Write a page of HTML with plots, which needs nothing else
    #[arg(long, value_name = "FILE", value_parser = parse_new_file)]
    report: Option<PathBuf>,
    /// Say nothing on the way
    #[arg(short, long)]
    quiet: bool,
}

impl RunArgs {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s.into())
    }

    fn time_limit(&self) -> Duration {
        Duration::from_secs(self.time_limit_s.into())
    }

    /// Runs with the progress on standard error, and prints the figures.
    fn run<R: Findings>(&self, run: impl FnOnce(&mut dyn FnMut(String)) -> Result<R, Failure>) -> Result<R, Failure> {
        let clock = SystemClock;
        let (began, start) = (clock.wall(), clock.now());
        let mut notes = out::Notes::default();
        let report = run(&mut |text| {
            if !self.quiet {
                notes.show(&text);
            }
        })?;
        let took = clock.now().saturating_duration_since(start);
        let head = Head::new(report.scenario(), began, took, std::env::args().collect(), &report.load());
        let document = Document::of(head, &report);
        if self.json {
            out::line(document.to_json())?;
        } else {
            out::line(format_args!("{report}\nmeasured    {}", document.head.generator.verdict))?;
        }
        if let Some(path) = &self.json_file {
            report::write(path, &document.to_json())?;
        }
        if let Some(path) = &self.report {
            report::write(path, &report::page(&[(report.scenario().to_owned(), document)]))?;
        }
        Ok(report)
    }
}

fn range(min: u32, max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(u64::from(min)..=u64::from(max))
}

fn payload_range() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX as u64)
}

/// A file that is written in the end, after minutes: that its directory is there is looked at in the beginning.
fn parse_new_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !directory.is_dir() {
        return Err("a file in a directory that exists".to_owned());
    }
    Ok(path)
}

/// Handles have at most 64 bytes, and the longest suffix is `-listener-` with a number.
fn parse_prefix(text: &str) -> Result<String, String> {
    if (1..=40).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("1 to 40 bytes without control characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
