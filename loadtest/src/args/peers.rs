//! The arguments that say against what a scenario runs.

use carillon_loadtest::peers::{Answers, Peer, Quality};
use clap::{Args, ValueEnum};

use super::range;

/// What runs at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// A Carillon broker
    Carillon,
    /// nats-server with TLS, by --address, --server-name and --ca
    Nats,
    /// An MQTT 3.1.1 server with TLS, such as mosquitto, likewise
    Mqtt,
}

/// Which server the scenario is for.
#[derive(Debug, Args)]
pub(super) struct PeerArgs {
    /// What runs at the address: the same load against a peer, to compare with
    #[arg(long = "target", value_name = "WHAT", value_enum, default_value = "carillon")]
    against: Against,
    /// MQTT's quality of service
    #[arg(long, value_name = "0|1", default_value = "0", value_parser = range(0, 1))]
    qos: u32,
}

impl PeerArgs {
    /// The peer that was meant; `None` is Carillon. `answers` is what NATS is asked for.
    pub(super) fn peer(&self, answers: Answers) -> Option<Peer> {
        match self.against {
            Against::Carillon => None,
            Against::Nats => Some(Peer::Nats(answers)),
            Against::Mqtt if self.qos == 0 => Some(Peer::Mqtt(Quality::AtMostOnce)),
            Against::Mqtt => Some(Peer::Mqtt(Quality::AtLeastOnce)),
        }
    }
}
