//! The arguments of `mixed`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{GROUP_MAX, RATE_MAX, SESSIONS_MAX};
use carillon_loadtest::mixed::{self, Plan};
use clap::Args;

use super::basis::BasisArgs;
use super::{ABOUT, payload_range, range};

/// A day at an office: small groups, direct messages, read marks, DINGs, reconnects
///
/// Everything is due by the clock. Whoever gets a message marks it as read at once; whoever gets a DING confirms it; whoever drops comes back
/// at once, sends again what has no answer, and reads what was missed. Each message must reach everybody whom it is for, once and under
/// gap-free seqs.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct MixedArgs {
    /// Users, with a session each
    #[arg(long, value_name = "N", default_value = "1000", value_parser = range(2, SESSIONS_MAX))]
    users: u32,
    /// Members of each group
    #[arg(long, value_name = "N", default_value = "8", value_parser = range(2, GROUP_MAX))]
    group_size: u32,
    /// Messages a second, of all together
    #[arg(long, value_name = "N", default_value = "200", value_parser = range(1, RATE_MAX))]
    rate: u32,
    /// How many of a hundred messages are direct
    #[arg(long, value_name = "N", default_value = "40", value_parser = range(0, 100))]
    direct_percent: u32,
    /// DINGs a second
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1, RATE_MAX))]
    ding_rate: u32,
    /// Sessions a second that drop and come back
    #[arg(long, value_name = "N", default_value = "2", value_parser = range(0, RATE_MAX))]
    reconnect_rate: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "256", value_parser = payload_range())]
    payload_bytes: u32,
    /// Seconds
    #[arg(long, value_name = "S", default_value = "60", value_parser = range(1, 86_400))]
    seconds: u32,
    #[command(flatten)]
    basis: BasisArgs,
}

impl MixedArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = Plan {
            basis: self.basis.basis(self.users, self.seconds)?,
            users: self.users,
            group_size: self.group_size,
            rate: self.rate,
            direct_percent: self.direct_percent,
            ding_rate: self.ding_rate,
            reconnect_rate: self.reconnect_rate,
            payload_bytes: self.payload_bytes as usize,
            measured: Duration::from_secs(self.seconds.into()),
        };
        self.basis.report(|target, note| mixed::run(&plan, target, note))
    }
}
