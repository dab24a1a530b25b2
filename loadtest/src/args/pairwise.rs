//! The arguments of `pairwise`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{PAIRS_MAX, RATE_MAX};
use carillon_loadtest::pairwise::{self, Plan};
use clap::Args;

use super::basis::BasisArgs;
use super::{ABOUT, payload_range, range};

/// Direct messages between the two of each pair, at an offered rate
///
/// Messages are due by the clock, of all authors in turn, whatever has become of the earlier ones; a latency counts from there. With half of
/// what `publish` finds as --rate, it is the latency at half of capacity.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct PairwiseArgs {
    /// Pairs, of two users each
    #[arg(long, value_name = "N", default_value = "500", value_parser = range(1, PAIRS_MAX))]
    pairs: u32,
    /// Messages a second, of all together
    #[arg(long, value_name = "N", default_value = "1000", value_parser = range(1, RATE_MAX))]
    rate: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    /// Seconds before the measuring
    #[arg(long, value_name = "S", default_value = "2", value_parser = range(0, 3_600))]
    warm_up_s: u32,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value = "20", value_parser = range(1, 3_600))]
    seconds: u32,
    #[command(flatten)]
    basis: BasisArgs,
}

impl PairwiseArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = Plan {
            basis: self.basis.basis(self.pairs * 2, self.warm_up_s + self.seconds)?,
            pairs: self.pairs,
            rate: self.rate,
            payload_bytes: self.payload_bytes as usize,
            warm_up: Duration::from_secs(self.warm_up_s.into()),
            measured: Duration::from_secs(self.seconds.into()),
        };
        self.basis.report(|target, note| pairwise::run(&plan, target, note))
    }
}
