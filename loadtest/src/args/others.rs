//! The arguments for everybody else, whom a probe plays beside a scenario.

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{DEVICES_MAX, LISTENERS_MAX, MESSAGES_MAX, RATE_MAX};
use carillon_loadtest::others::Others;
use clap::Args;

use super::{RunArgs, payload_range, range};

/// What a probe keeps up.
#[derive(Debug, Args)]
pub(super) struct OthersArgs {
    /// Messages a second that a probe publishes into groups of its own
    #[arg(long, value_name = "N", default_value = "100", value_parser = range(1, RATE_MAX))]
    publish_rate: u32,
    /// Those groups, with one listener each
    #[arg(long, value_name = "N", default_value = "10", value_parser = range(1, LISTENERS_MAX))]
    listeners: u32,
    /// DINGs a second to the listeners
    #[arg(long, value_name = "N", default_value = "20", value_parser = range(1, RATE_MAX))]
    ding_rate: u32,
    /// Services that send them, in turn: a broker may limit how many one sends a minute
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1, DEVICES_MAX))]
    ding_senders: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
}

impl OthersArgs {
    /// For a run that measures for so long.
    pub(super) fn plan(&self, measured_s: u32, run: &RunArgs) -> Result<Others, Failure> {
        if self.publish_rate.max(self.ding_rate).saturating_mul(measured_s) > MESSAGES_MAX {
            let why = format!("the probe would send more than {MESSAGES_MAX} in {measured_s} s: lower its rates");
            return Err(Failure::Usage(why));
        }
        if measured_s > run.time_limit_s {
            let why = format!("the measuring alone takes {measured_s} s: raise --time-limit-s");
            return Err(Failure::Usage(why));
        }
        Ok(Others {
            publish_rate: self.publish_rate,
            listeners: self.listeners,
            ding_rate: self.ding_rate,
            senders: self.ding_senders,
            payload_bytes: self.payload_bytes as usize,
        })
    }
}
