//! The arguments that several scenarios have in common.

use carillon_loadtest::basis::Basis;
use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{CONNECTING_MAX, SOCKETS_MAX};
use carillon_loadtest::report::Findings;
use carillon_loadtest::summary::Summary;
use carillon_loadtest::target::{Target, TargetArgs};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{RunArgs, range};

/// Who takes part, and against what.
#[derive(Debug, Args)]
pub(super) struct BasisArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// UDP sockets that the sessions are spread over, each with a loopback address of its own: at most 100,000 on one
    #[arg(long, value_name = "N", default_value = "8", value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(SOCKETS_MAX)))]
    sockets: u16,
    /// Handshakes at once
    #[arg(long, value_name = "N", default_value = "256", value_parser = range(1, CONNECTING_MAX))]
    connecting: u32,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl BasisArgs {
    /// For a run of so many sessions that measures for so many seconds.
    pub(super) fn basis(&self, sessions: u32, measured_s: u32) -> Result<Basis, Failure> {
        let sockets = sessions.div_ceil(SESSIONS_A_SOCKET);
        if sockets > u32::from(self.sockets) {
            return Err(Failure::Usage(format!("{sessions} sessions need --sockets {sockets} at least")));
        }
        if measured_s > self.run.time_limit_s {
            let why = format!("the measuring alone takes {measured_s} s: raise --time-limit-s");
            return Err(Failure::Usage(why));
        }
        Ok(Basis {
            prefix: self.run.prefix.clone(),
            sockets: self.sockets,
            connecting_max: self.connecting,
            patience: self.run.patience(),
            time_limit: self.run.time_limit(),
            broker_pid: self.run.broker_pid,
        })
    }

    /// Runs and prints; answers whether everything was as it must be.
    pub(super) fn report(
        &self,
        run: impl FnOnce(&Target, &mut dyn FnMut(String)) -> Result<Summary, Failure>,
    ) -> Result<bool, Failure> {
        let target = self.target.resolve()?;
        self.run.run(|note| run(&target, note)).map(|summary| summary.is_complete())
    }
}

/// What the transport lets one endpoint have, with some room for the sessions that are about to go.
const SESSIONS_A_SOCKET: u32 = 95_000;
