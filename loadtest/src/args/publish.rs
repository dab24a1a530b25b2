//! The arguments of `publish`.

use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::limits::{OFFERED_MAX, PRODUCERS_MAX, SOCKETS_MAX};
use carillon_loadtest::peers::{self, Answers};
use carillon_loadtest::publish::{self, Plan};
use carillon_loadtest::target::TargetArgs;
use carillon_protocol::limits::PRODUCER_WINDOW;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::peers::PeerArgs;
use super::{ABOUT, RunArgs, payload_range, range};

/// Producers that publish as fast as they are let, and are told that it is safe
///
/// Each producer is a session with --window messages on their way; the next one is sent when one is acknowledged. Nobody gets the
/// messages: it is the way into the journal that is measured. With NATS it is JetStream that acknowledges, one replica on file storage; with MQTT say --qos 1.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    peer: PeerArgs,
    /// Sessions that publish
    #[arg(long, value_name = "N", default_value = "256", value_parser = range(1, PRODUCERS_MAX))]
    producers: u32,
    /// Messages of each without an answer
    #[arg(long, value_name = "N", default_value = "4", value_parser = RangedU64ValueParser::<u32>::new().range(1..=PRODUCER_WINDOW))]
    window: u32,
    /// Messages a second that are due, by the clock, of all together; without it, as many as the windows let out
    #[arg(long, value_name = "N", value_parser = range(1, OFFERED_MAX))]
    rate: Option<u32>,
    /// Bytes of each payload
    #[arg(long, value_name = "N", default_value = "128", value_parser = payload_range())]
    payload_bytes: u32,
    /// Seconds before the measuring
    #[arg(long, value_name = "S", default_value = "2", value_parser = range(0, 3_600))]
    warm_up_s: u32,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value = "8", value_parser = range(1, 3_600))]
    seconds: u32,
    /// Loopback addresses that the producers come from. With Carillon, more than one may see an acknowledgement on a quiet socket up to 1 ms
    /// late: use 1 to measure one producer
    #[arg(long, value_name = "N", default_value = "2", value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(SOCKETS_MAX)))]
    sockets: u16,
    #[command(flatten)]
    run: RunArgs,
}

impl PublishArgs {
    /// Runs and prints; answers whether everything was acknowledged.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let plan = self.plan()?;
        let report = match self.peer.peer(Answers::JetStream) {
            None => {
                let target = self.target.resolve()?;
                self.run.run(|note| publish::run(&plan, &target, note))?
            }
            Some(_) if self.rate.is_some() => {
                let why = "--rate is for Carillon alone: without it, peers too publish as fast as the windows let them";
                return Err(Failure::Usage(why.to_owned()));
            }
            Some(peer) => {
                let target = self.target.resolve_peer(peer)?;
                self.run.run(|note| peers::publish::run(&plan, &target, note))?
            }
        };
        Ok(report.is_complete())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let seconds = self.warm_up_s + self.seconds;
        if Duration::from_secs(seconds.into()) > self.run.time_limit() {
            return Err(Failure::Usage(format!("it takes {seconds} s alone: raise --time-limit-s")));
        }
        Ok(Plan {
            producers: self.producers,
            window: self.window,
            rate: self.rate,
            payload_bytes: self.payload_bytes as usize,
            warm_up: Duration::from_secs(self.warm_up_s.into()),
            measured: Duration::from_secs(self.seconds.into()),
            sources: self.sockets,
            prefix: self.run.prefix.clone(),
            patience: self.run.patience(),
            time_limit: self.run.time_limit(),
            server_pid: self.run.broker_pid,
        })
    }
}
