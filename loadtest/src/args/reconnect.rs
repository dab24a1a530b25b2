//! The arguments of `reconnect`.

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{MESSAGES_MAX, SESSIONS_MAX};
use carillon_loadtest::reconnect::{self, Plan};
use clap::Args;

use super::basis::BasisArgs;
use super::{ABOUT, payload_range, range};

/// Everybody drops, and comes back at once to what was missed
///
/// First they come back to nothing: those are the bare handshakes. Then, while they are away, messages are published to all of them, and
/// they come back with the cursor of before. Each must get each message, once and in order.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct ReconnectArgs {
    /// Sessions that come back, one a user
    #[arg(long, value_name = "N", default_value = "20000", value_parser = range(1, SESSIONS_MAX))]
    sessions: u32,
    /// Messages that each of them has missed
    #[arg(long, value_name = "N", default_value = "100", value_parser = range(1, MESSAGES_MAX))]
    missed: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    #[command(flatten)]
    basis: BasisArgs,
}

impl ReconnectArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = Plan {
            basis: self.basis.basis(self.sessions, 0)?,
            sessions: self.sessions,
            missed: self.missed,
            payload_bytes: self.payload_bytes as usize,
        };
        self.basis.report(|target, note| reconnect::run(&plan, target, note))
    }
}
