//! The arguments of `channel`.

use std::time::Duration;

use carillon_loadtest::broadcast::{self, Kind, Plan};
use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{MEMBERS_MAX, MESSAGES_MAX, RATE_MAX, SESSIONS_MAX};
use clap::Args;

use super::basis::BasisArgs;
use super::{ABOUT, payload_range, range};

/// A channel with very many members of whom few are online
///
/// The members are made by a service, which takes a minute for a million, and found again by later runs. Then it publishes by the clock; a
/// latency counts from when a message is due to each delivery, and to the last one. Run it with --members 1000 as well: the last delivery
/// should not know the difference.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct ChannelArgs {
    /// Members
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = range(1, MEMBERS_MAX))]
    members: u32,
    /// How many of them are connected, spread over all
    #[arg(long, value_name = "N", default_value = "1000", value_parser = range(1, SESSIONS_MAX))]
    online: u32,
    /// A group instead of a channel
    #[arg(long)]
    group: bool,
    /// Messages a second
    #[arg(long, value_name = "N", default_value = "5", value_parser = range(1, RATE_MAX))]
    rate: u32,
    /// Seconds of them
    #[arg(long, value_name = "S", default_value = "20", value_parser = range(1, 3_600))]
    seconds: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    #[command(flatten)]
    basis: BasisArgs,
}

impl ChannelArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        if self.online > self.members {
            let why = format!("--online {} is more than --members {}: make it fewer", self.online, self.members);
            return Err(Failure::Usage(why));
        }
        if self.rate.saturating_mul(self.seconds) > MESSAGES_MAX {
            return Err(Failure::Usage(format!("--rate times --seconds is more than {MESSAGES_MAX} messages")));
        }
        let plan = Plan {
            basis: self.basis.basis(self.online, self.seconds)?,
            kind: if self.group { Kind::Group } else { Kind::Channel },
            members: self.members,
            online: self.online,
            rate: self.rate,
            measured: Duration::from_secs(self.seconds.into()),
            payload_bytes: self.payload_bytes as usize,
        };
        self.basis.report(|target, note| broadcast::run(&plan, target, note))
    }
}
