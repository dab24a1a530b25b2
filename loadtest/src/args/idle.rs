//! The arguments of `idle`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::idle::{self, Dings, Plan};
use carillon_loadtest::limits::{DEVICES_MAX, MESSAGES_MAX, RATE_MAX, SESSIONS_MAX};
use clap::Args;

use super::basis::BasisArgs;
use super::{ABOUT, payload_range, range};

/// Many sessions that do nothing but stay
///
/// What the broker has resident for each of them, right after they have come, after --seconds, after a burst of messages to all of them,
/// and --after-s later; and what staying costs it in CPU. With --dings some of them get a DING at last, and confirm it.
/// Start the broker anew before: memory that an earlier run has left is used again.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct IdleArgs {
    /// Sessions that are held, one a user
    #[arg(long, value_name = "N", default_value = "20000", value_parser = range(1, SESSIONS_MAX))]
    sessions: u32,
    /// Seconds before they come: within 30 the broker brings to disk what making the users has left it, and takes memory for it
    #[arg(long, value_name = "S", default_value = "35", value_parser = range(0, 86_400))]
    settle_s: u32,
    /// Seconds before the burst
    #[arg(long, value_name = "S", default_value = "60", value_parser = range(1, 86_400))]
    seconds: u32,
    /// Messages that each of them gets then
    #[arg(long, value_name = "N", default_value = "20", value_parser = range(1, MESSAGES_MAX))]
    burst: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    /// Seconds after it
    #[arg(long, value_name = "S", default_value = "60", value_parser = range(1, 86_400))]
    after_s: u32,
    /// DINGs at last, each to another of the sessions
    #[arg(long, value_name = "N", default_value = "0", value_parser = range(0, 100_000))]
    dings: u32,
    /// DINGs a second
    #[arg(long, value_name = "N", default_value = "50", value_parser = range(1, RATE_MAX))]
    ding_rate: u32,
    /// Services that send them, in turn: a broker may limit how many one sends a minute
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1, DEVICES_MAX))]
    ding_senders: u32,
    #[command(flatten)]
    basis: BasisArgs,
}

impl IdleArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        if self.dings > self.sessions {
            let (dings, sessions) = (self.dings, self.sessions);
            return Err(Failure::Usage(format!(
                "--dings {dings}: each goes to a session of its own, and there are {sessions}"
            )));
        }
        let measured_s = self.settle_s + self.seconds + self.after_s + self.dings / self.ding_rate;
        let plan = Plan {
            basis: self.basis.basis(self.sessions, measured_s)?,
            sessions: self.sessions,
            settle: Duration::from_secs(self.settle_s.into()),
            hold: Duration::from_secs(self.seconds.into()),
            burst: self.burst,
            payload_bytes: self.payload_bytes as usize,
            after: Duration::from_secs(self.after_s.into()),
            dings: Dings { count: self.dings, rate: self.ding_rate, senders: self.ding_senders },
        };
        self.basis.report(|target, note| idle::run(&plan, target, note))
    }
}
