//! The command line, parsed into a plan.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::fanout::{self, Plan};
use carillon_loadtest::limits::{CONNECTING_MAX, MESSAGES_MAX, PAYLOAD_BYTES_MIN, SESSIONS_MAX, SOCKETS_MAX};
use carillon_loadtest::target::TargetArgs;
use carillon_protocol::limits::PAYLOAD_BYTES_MAX;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};

use crate::out;

const ABOUT: &str = "\
Start a broker in one terminal, then run against it; give its process id to learn what a delivery costs it:
  carillon dev
  carillon-loadtest fanout --sessions 5000 --rounds 10 --broker-pid \"$(pgrep -x carillon)\"

Exit codes:
  0  every delivery came, once and in order
  1  some did not, or the broker refused something
  2  wrong arguments, context or files
  3  no broker answers
  4  not allowed: the token, or the broker's certificate

Both sides of a run on one machine share its cores: the figures are lower bounds of what the broker can do. Compare only
what ran on the same machine, side by side.";

/// Load for a Carillon broker: many sessions, one schedule, every delivery counted.
#[derive(Debug, Parser)]
#[command(name = "carillon-loadtest", version, after_help = ABOUT, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    Fanout(FanoutArgs),
}

/// One group, all sessions its members: every message goes to each of them
///
/// The users load-0, load-1… and their group are made by a service session, which then publishes. Messages are due by a
/// schedule, whether or not the earlier ones have come; a latency counts from there. Each session must get each message
/// once, in order, with seqs without a gap.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Sessions that receive, one a user
    #[arg(long, value_name = "N", default_value = "1000", value_parser = range(1, SESSIONS_MAX))]
    sessions: u32,
    /// Times at which messages are due
    #[arg(long, value_name = "N", default_value = "10", value_parser = range(1, MESSAGES_MAX))]
    rounds: u32,
    /// Messages due at each of them
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1, MESSAGES_MAX))]
    batch: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    /// Milliseconds from round to round
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = range(1, 3_600_000))]
    interval_ms: u32,
    /// UDP sockets that the sessions are spread over. With more than one, a delivery on a quiet socket may be seen up to
    /// 1 ms late: use 1 to measure few sessions exactly
    #[arg(long, value_name = "N", default_value = "2", value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(SOCKETS_MAX)))]
    sockets: u16,
    /// Handshakes at once
    #[arg(long, value_name = "N", default_value = "256", value_parser = range(1, CONNECTING_MAX))]
    connecting: u32,
    /// Messages after which a session acknowledges
    #[arg(long, value_name = "N", default_value = "100", value_parser = range(1, MESSAGES_MAX))]
    ack_messages: u32,
    /// Milliseconds after which it acknowledges in any case. With a message a second each is acknowledged alone, by two
    /// packets more: raise this to measure deliveries alone
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = range(1, 3_600_000))]
    ack_ms: u32,
    /// What the handles begin with. Two runs at once need two
    #[arg(long, value_name = "NAME", default_value = "load", value_parser = parse_prefix)]
    prefix: String,
    /// The broker's process on this machine: adds what connections and deliveries cost it in CPU and memory
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Give up when nothing has happened for so long
    #[arg(long, value_name = "S", default_value = "30", value_parser = range(1, 3_600))]
    patience_s: u32,
    /// Give up after so long, whatever happens
    #[arg(long, value_name = "S", default_value = "600", value_parser = range(1, 86_400))]
    time_limit_s: u32,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Say nothing on the way
    #[arg(short, long)]
    quiet: bool,
}

impl FanoutArgs {
    /// Runs and prints; answers whether every delivery came.
    pub(crate) fn run(&self) -> Result<bool, Failure> {
        let plan = self.plan()?;
        let target = self.target.resolve()?;
        let report = fanout::run(&plan, &target, &mut |text| {
            if !self.quiet {
                out::note(text);
            }
        })?;
        let text = if self.json {
            serde_json::to_string(&report).expect("a report is numbers and texts")
        } else {
            report.to_string()
        };
        out::line(text)?;
        Ok(report.is_complete())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        if self.rounds.checked_mul(self.batch).is_none_or(|messages| messages > MESSAGES_MAX) {
            let why = format!("--rounds times --batch is more than {MESSAGES_MAX} messages: make it fewer");
            return Err(Failure::Usage(why));
        }
        let schedule = Duration::from_millis(self.interval_ms.into()) * self.rounds;
        let time_limit = Duration::from_secs(self.time_limit_s.into());
        if schedule > time_limit {
            let why = format!("the rounds alone take {} s: raise --time-limit-s", schedule.as_secs());
            return Err(Failure::Usage(why));
        }
        Ok(Plan {
            sessions: self.sessions,
            rounds: self.rounds,
            batch: self.batch,
            payload_bytes: self.payload_bytes as usize,
            interval: Duration::from_millis(self.interval_ms.into()),
            sockets: self.sockets,
            connecting_max: self.connecting,
            ack_messages: self.ack_messages,
            ack_every: Duration::from_millis(self.ack_ms.into()),
            prefix: self.prefix.clone(),
            patience: Duration::from_secs(self.patience_s.into()),
            time_limit,
            broker_pid: self.broker_pid,
        })
    }
}

fn range(min: u32, max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(u64::from(min)..=u64::from(max))
}

fn payload_range() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX as u64)
}

/// Handles have at most 64 bytes, and the longest suffix is `-publisher`.
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
