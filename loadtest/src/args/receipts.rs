//! The arguments of `receipts`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{AUTHORS_MAX, CONNECTING_MAX, MEMBERS_MAX, SESSIONS_MAX, SOCKETS_MAX};
use carillon_loadtest::receipts::{self, Plan};
use carillon_loadtest::target::TargetArgs;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::others::OthersArgs;
use super::{RunArgs, range};

const ABOUT: &str = "\
A storm of 100,000 members takes some minutes, most of them for the handshakes, and 5 GB for both sides; with --sessions 20000
the group is as large and a fifth of it marks:
  carillon-loadtest receipts --broker-pid \"$(pgrep -x carillon)\"
  carillon-loadtest receipts --sessions 20000 --seconds 2 --broker-pid \"$(pgrep -x carillon)\"

Exit codes: as `carillon-loadtest --help` has them. It is 1 when a mark was not answered, when the counts at the end are not
those of the marks, when an author got more updates than may be, or when a message or DING of the probe did not come.";

/// A storm: everybody in one large group marks everything read within seconds
///
/// The members load-0, load-1… and some authors, load-author-0…, are one group. Each author writes a message; when all
/// sessions have them, each marks them as read, once, by a schedule. Meanwhile, and for a while before and after it, a thread of
/// its own publishes into other groups and sends DINGs at a steady rate, and measures how long they take. At the end the
/// broker's counts must be those of the marks, exactly.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct ReceiptsArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Members of the group; the authors come on top
    #[arg(long, value_name = "N", default_value = "100000", value_parser = range(1, MEMBERS_MAX))]
    members: u32,
    /// How many of them connect, and mark; default: all, as far as a run may have sessions
    #[arg(long, value_name = "N", value_parser = range(1, SESSIONS_MAX))]
    sessions: Option<u32>,
    /// Seconds over which the marks are due
    #[arg(long, value_name = "S", default_value = "10", value_parser = range(1, 600))]
    seconds: u32,
    /// Authors who are online
    #[arg(long, value_name = "N", default_value = "5", value_parser = range(1, AUTHORS_MAX))]
    authors: u32,
    /// Seconds that are measured before the storm, and again after it
    #[arg(long, value_name = "S", default_value = "10", value_parser = range(1, 600))]
    around_s: u32,
    #[command(flatten)]
    others: OthersArgs,
    /// UDP sockets that the members are spread over, each with a loopback address of its own. A message to all of them, or the
    /// replies to their marks, must fit in the sockets' receive buffers: some thousand packets each
    #[arg(long, value_name = "N", default_value = "32", value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(SOCKETS_MAX)))]
    sockets: u16,
    /// Handshakes at once
    #[arg(long, value_name = "N", default_value = "256", value_parser = range(1, CONNECTING_MAX))]
    connecting: u32,
    #[command(flatten)]
    run: RunArgs,
}

impl ReceiptsArgs {
    /// Runs and prints; answers whether everything was as it must be.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = self.plan()?;
        let target = self.target.resolve()?;
        self.run.run(|note| receipts::run(&plan, &target, note)).map(|report| report.is_complete())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let sessions = self.sessions.unwrap_or(self.members.min(SESSIONS_MAX));
        if sessions > self.members {
            let why =
                format!("--sessions {sessions} is more than --members {}: each session is a member", self.members);
            return Err(Failure::Usage(why));
        }
        let measured_s = 2 * self.around_s + self.seconds;
        Ok(Plan {
            members: self.members,
            sessions,
            authors: self.authors,
            storm: Duration::from_secs(self.seconds.into()),
            around: Duration::from_secs(self.around_s.into()),
            others: self.others.plan(measured_s, &self.run)?,
            sockets: self.sockets,
            connecting_max: self.connecting,
            prefix: self.run.prefix.clone(),
            patience: self.run.patience(),
            time_limit: self.run.time_limit(),
            broker_pid: self.run.broker_pid,
        })
    }
}
