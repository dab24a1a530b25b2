//! The arguments of `overload`, `deaf`, `hoard` and `flood`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{CONNECTING_MAX, DEVICES_MAX, LISTENERS_MAX, RATE_MAX, SESSIONS_MAX, SOCKETS_MAX};
use carillon_loadtest::strain::{self, Plan, Strain};
use carillon_loadtest::target::TargetArgs;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::others::OthersArgs;
use super::{RunArgs, range};

const EXIT_CODES: &str = "\
Exit codes: as `carillon-loadtest --help` has them. It is 1 when what was acknowledged was not delivered once and in order, when
somebody who behaves lost a session, or when a message or DING of the probe did not come. Whether a goal was met is printed; it is no
error, as it depends on the machine.";

/// What all of them may be told.
#[derive(Debug, Args)]
struct StrainArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Seconds that the strain lasts
    #[arg(long, value_name = "S", default_value = "60", value_parser = range(1, 3_600))]
    seconds: u32,
    /// Seconds that are measured before it
    #[arg(long, value_name = "S", default_value = "10", value_parser = range(1, 600))]
    before_s: u32,
    /// Seconds that are measured after it
    #[arg(long, value_name = "S", default_value = "40", value_parser = range(1, 600))]
    after_s: u32,
    #[command(flatten)]
    others: OthersArgs,
    /// UDP sockets that the sessions of the strain are spread over, each with a loopback address of its own
    #[arg(long, value_name = "N", default_value = "8", value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(SOCKETS_MAX)))]
    sockets: u16,
    /// Handshakes at once
    #[arg(long, value_name = "N", default_value = "256", value_parser = range(1, CONNECTING_MAX))]
    connecting: u32,
    #[command(flatten)]
    run: RunArgs,
}

impl StrainArgs {
    /// Runs and prints; answers whether everything was as it must be.
    fn run(&self, strain: Strain) -> Result<bool, Failure> {
        let plan = self.plan(strain)?;
        let target = self.target.resolve()?;
        self.run.run(|note| strain::run(&plan, &target, note)).map(|report| report.is_complete())
    }

    fn plan(&self, strain: Strain) -> Result<Plan, Failure> {
        let measured_s = self.before_s + self.seconds + self.after_s;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Ok(Plan {
            strain,
            during: seconds(self.seconds),
            before: seconds(self.before_s),
            after: seconds(self.after_s),
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

/// Publishers that want several times what the broker can take
///
/// First all publish as fast as they are let, to learn what the broker takes on this machine. Then so many times that are due by the
/// clock: what the broker does not take is held back at the publishers. Each publishes into a group with one listener, where everything
/// that was acknowledged must arrive, once and in order. A probe in a thread of its own measures what others notice, before,
/// while and after it.
///
/// Ten minutes at 50,000 messages a second are some 8 GB of journal.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct OverloadArgs {
    /// Sessions that publish, each with a listener
    #[arg(long, value_name = "N", default_value = "64", value_parser = range(1, LISTENERS_MAX))]
    producers: u32,
    /// How many times what the broker takes is due
    #[arg(long, value_name = "F", default_value = "3", value_parser = parse_factor)]
    factor: f64,
    /// Seconds of publishing as fast as the broker takes it
    #[arg(long, value_name = "S", default_value = "10", value_parser = range(1, 600))]
    flat_out_s: u32,
    /// Fail when the broker has more than this resident
    #[arg(long, value_name = "MIB", requires = "broker_pid", value_parser = range(1, u32::MAX))]
    memory_max_mib: Option<u32>,
    #[command(flatten)]
    strain: StrainArgs,
}

impl OverloadArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        self.strain.run(Strain::Overload {
            producers: self.producers,
            flat_out: Duration::from_secs(self.flat_out_s.into()),
            factor: self.factor,
            memory_max_mib: self.memory_max_mib,
        })
    }
}

/// Listeners of which some stop reading for a while
///
/// All are in one group that gets messages at a steady rate. Some stop reading while it lasts; their connections stay. What the others
/// get must not change: they are measured, and a probe measures what everybody else notices. Then all read on, and must get
/// everything.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DeafArgs {
    /// Sessions that listen
    #[arg(long, value_name = "N", default_value = "2000", value_parser = range(1, SESSIONS_MAX))]
    sessions: u32,
    /// How many of a hundred stop reading
    #[arg(long, value_name = "N", default_value = "10", value_parser = range(1, 100))]
    percent: u32,
    /// Messages a second to all of them
    #[arg(long, value_name = "N", default_value = "10", value_parser = range(1, RATE_MAX))]
    rate: u32,
    #[command(flatten)]
    strain: StrainArgs,
}

impl DeafArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        self.strain.run(Strain::Deaf { sessions: self.sessions, percent: self.percent, rate: self.rate })
    }
}

/// Sessions that hold as much of the broker as they can
///
/// Each asks for as many pages of history as may be asked for at once, reads none of them, and leaves a frame of about the largest size
/// unfinished on its control and its publish stream. With --broker-pid the run fails if that takes more memory than is documented.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct HoardArgs {
    /// How many
    #[arg(long, value_name = "N", default_value = "200", value_parser = range(1, DEVICES_MAX))]
    sessions: u32,
    #[command(flatten)]
    strain: StrainArgs,
}

impl HoardArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        self.strain.run(Strain::Hoard { sessions: self.sessions })
    }
}

/// First packets of connections that go no further
///
/// A thread of its own sends first packets of real handshakes and never answers. A probe measures what sessions that are there
/// notice.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct FloodArgs {
    /// First packets a second: ten times what this machine can do of whole handshakes, or more
    #[arg(long, value_name = "N", default_value = "20000", value_parser = range(1, 10_000_000))]
    rate: u32,
    #[command(flatten)]
    strain: StrainArgs,
}

impl FloodArgs {
    pub(super) fn run(&self) -> Result<bool, Failure> {
        self.strain.run(Strain::Flood { rate: self.rate })
    }
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "a number such as 3".to_owned())?;
    if (0.1..=100.0).contains(&factor) { Ok(factor) } else { Err("0.1 to 100".to_owned()) }
}
