//! The arguments of `fanout`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::fanout::{self, Plan};
use carillon_loadtest::limits::{ACK_MESSAGES, ACK_MS, CONNECTING_MAX, MESSAGES_MAX, SESSIONS_MAX, SOCKETS_MAX};
use carillon_loadtest::peers::{self, Answers};
use carillon_loadtest::target::TargetArgs;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::peers::PeerArgs;
use super::{ABOUT, RunArgs, payload_range, range};

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
    #[command(flatten)]
    peer: PeerArgs,
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
    /// Loopback addresses that the sessions come from: with Carillon, each with a UDP socket of its own
    #[arg(long, value_name = "N", default_value = "2", value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(SOCKETS_MAX)))]
    sockets: u16,
    /// Handshakes at once
    #[arg(long, value_name = "N", default_value = "256", value_parser = range(1, CONNECTING_MAX))]
    connecting: u32,
    /// Messages after which a session acknowledges
    #[arg(long, value_name = "N", default_value_t = ACK_MESSAGES, value_parser = range(1, MESSAGES_MAX))]
    ack_messages: u32,
    /// Milliseconds after which it acknowledges the next message at once. Raise this to measure deliveries alone
    #[arg(long, value_name = "MS", default_value_t = ACK_MS, value_parser = range(1, 3_600_000))]
    ack_ms: u32,
    #[command(flatten)]
    run: RunArgs,
}

impl FanoutArgs {
    /// Runs and prints; answers whether every delivery came.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = self.plan()?;
        let report = match self.peer.peer(Answers::None) {
            None => {
                let target = self.target.resolve()?;
                self.run.run(|note| fanout::run(&plan, &target, note))?
            }
            Some(peer) => {
                let target = self.target.resolve_peer(peer)?;
                self.run.run(|note| peers::fanout(&plan, &target, note))?
            }
        };
        Ok(report.is_complete())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        if self.rounds.checked_mul(self.batch).is_none_or(|messages| messages > MESSAGES_MAX) {
            let why = format!("--rounds times --batch is more than {MESSAGES_MAX} messages: make it fewer");
            return Err(Failure::Usage(why));
        }
        let schedule = Duration::from_millis(self.interval_ms.into()) * self.rounds;
        if schedule > self.run.time_limit() {
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
            prefix: self.run.prefix.clone(),
            patience: self.run.patience(),
            time_limit: self.run.time_limit(),
            broker_pid: self.run.broker_pid,
        })
    }
}
