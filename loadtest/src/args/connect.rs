//! The arguments of `connect`.

use carillon_loadtest::connect::{self, Plan};
use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::SESSIONS_MAX;
use clap::Args;

use super::basis::BasisArgs;
use super::{ABOUT, range};

/// Sessions that come in as fast as the broker lets them
///
/// Each makes a handshake, shows its token and is attached; --connecting of them are under way at once. With --resumed everybody comes once
/// before, gets a ticket and goes; then the handshakes that are measured take one each.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct ConnectArgs {
    /// Sessions that come, one a user
    #[arg(long, value_name = "N", default_value = "10000", value_parser = range(1, SESSIONS_MAX))]
    sessions: u32,
    /// Come with a session ticket
    #[arg(long)]
    resumed: bool,
    #[command(flatten)]
    basis: BasisArgs,
}

impl ConnectArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = Plan { basis: self.basis.basis(self.sessions, 0)?, sessions: self.sessions, resumed: self.resumed };
        self.basis.report(|target, note| connect::run(&plan, target, note))
    }
}
