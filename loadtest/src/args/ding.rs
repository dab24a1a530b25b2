//! The arguments of `ding`.

use carillon_loadtest::ding::{self, Plan};
use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{DEVICES_MAX, MESSAGES_MAX, RATE_MAX};
use carillon_loadtest::target::TargetArgs;
use clap::Args;

use super::{RunArgs, payload_range, range};

const ABOUT: &str = "\
  carillon-loadtest ding --broker-pid \"$(pgrep -x carillon)\"
  carillon-loadtest ding --devices 10 --dings 2000 --broker-pid \"$(pgrep -x carillon)\"

Exit codes: as `carillon-loadtest --help` has them. It is 1 when a DING did not come or its sender did not learn that it was
confirmed. Whether the goal was met is printed; it is no error, as it depends on the machine.";

/// DINGs to devices that are idle, get live load, or read a long backlog: how long each takes
///
/// The users load-device-0… are one group. DINGs go to them in turn at a steady rate, each is confirmed at once, and a latency
/// counts from when the DING was due. First the devices have nothing else to do; then messages are published to all of them; then
/// each connects with an old cursor and reads the backlog, again and again, until enough DINGs were due meanwhile.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct DingArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Devices, one a user
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1, DEVICES_MAX))]
    devices: u32,
    /// Messages that a device has missed
    #[arg(long, value_name = "N", default_value = "100000", value_parser = range(1, MESSAGES_MAX))]
    backlog: u32,
    /// DINGs of each phase
    #[arg(long, value_name = "N", default_value = "1000", value_parser = range(1, 100_000))]
    dings: u32,
    /// DINGs a second
    #[arg(long, value_name = "N", default_value = "50", value_parser = range(1, RATE_MAX))]
    ding_rate: u32,
    /// Services that send them, in turn: a broker may limit how many one sends a minute
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1, DEVICES_MAX))]
    ding_senders: u32,
    /// Messages a second to every device, in the phase with live load
    #[arg(long, value_name = "N", default_value = "2000", value_parser = range(1, RATE_MAX))]
    load_rate: u32,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    #[command(flatten)]
    run: RunArgs,
}

impl DingArgs {
    /// Runs and prints; answers whether everything was as it must be.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = self.plan()?;
        let target = self.target.resolve()?;
        self.run.run(|note| ding::run(&plan, &target, note)).map(|report| report.is_complete())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let phase_s = self.dings.div_ceil(self.ding_rate);
        if phase_s.saturating_mul(3) > self.run.time_limit_s {
            let why = format!("three phases of {phase_s} s are more than --time-limit-s: raise it, or --ding-rate");
            return Err(Failure::Usage(why));
        }
        if self.load_rate.saturating_mul(phase_s) > MESSAGES_MAX {
            let why = format!("{phase_s} s of --load-rate are more than {MESSAGES_MAX} messages: lower it");
            return Err(Failure::Usage(why));
        }
        Ok(Plan {
            devices: self.devices,
            backlog: self.backlog,
            dings: self.dings,
            ding_rate: self.ding_rate,
            senders: self.ding_senders,
            load_rate: self.load_rate,
            payload_bytes: self.payload_bytes as usize,
            prefix: self.run.prefix.clone(),
            patience: self.run.patience(),
            time_limit: self.run.time_limit(),
            broker_pid: self.run.broker_pid,
        })
    }
}
