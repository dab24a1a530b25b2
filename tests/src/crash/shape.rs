//! How a broker is configured, and when it is killed: drawn from the seed, so that rolls, snapshots and retention come often
//! and each in company of the others.

use std::net::SocketAddr;
use std::time::Duration;

use super::tide::JOURNAL_FREE_BYTES_MIN;
use crate::harness::EDGES;
use crate::sim::rng::Rng;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The configuration of one data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Size of its segments.
    pub segment_bytes: u64,
    /// A snapshot, read and written at so many bytes a second.
    pub snapshot_bytes_a_second: u64,
    /// What the journal may have; 0: it grows.
    pub retention_bytes: u64,
}

impl Shape {
    /// One of the shapes; every other directory has retention.
    pub(crate) fn draw(rng: &mut Rng, chapter: u32) -> Self {
        Self {
            segment_bytes: rng.pick(&[64 * KIB, 256 * KIB, 4 * MIB]),
            snapshot_bytes_a_second: rng.pick(&[4 * MIB, 16 * MIB, 64 * MIB]),
            retention_bytes: if chapter % 2 == 1 { 6 * MIB } else { 0 },
        }
    }

    /// The configuration file of a broker at this address.
    pub fn configuration(&self, address: SocketAddr) -> String {
        let Self { segment_bytes, snapshot_bytes_a_second, retention_bytes } = self;
        format!(
            "data = \".\"\nlisten = \"{address}\"\nedges = {EDGES}\n\
             [tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n[tokens]\nkeys = [\"token.pub\"]\n\
             [http]\nlisten = \"\"\n\
             [journal]\nsegment_bytes = {segment_bytes}\nfree_bytes_min = {JOURNAL_FREE_BYTES_MIN}\n\
             [snapshots]\njournal_bytes = {MIB}\nbytes_a_second = {snapshot_bytes_a_second}\n\
             [retention]\nbytes_max = {retention_bytes}\n\
             [index]\nmemory_bytes_max = {MIB}\n\
             [ding]\nper_sender_a_minute = 60000\nper_tenant_a_minute = 60000\n"
        )
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Under full load, so long after everybody was connected and publishing again.
    UnderLoad(Duration),
    /// So long after it began to serve, while the clients are coming back.
    WhileTheyReturn(Duration),
    /// So long after the process began, which may be before it serves.
    InRecovery(Duration),
}

impl Death {
    /// How the next life ends. `start` is how long a start took, `window` how long most lives
    /// under load may be.
    pub(crate) fn draw(rng: &mut Rng, start: Duration, window: Duration) -> Self {
        let within = |rng: &mut Rng, time: Duration| {
            let us = usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
            Duration::from_micros(rng.below(us.max(1)) as u64)
        };
        match rng.weighted(&[62, 10, 10, 18]) {
            0 => Self::UnderLoad(within(rng, window)),
            // Long enough for the keeper to come to an end.
            1 => Self::UnderLoad(window + within(rng, window * 3)),
            2 => Self::WhileTheyReturn(within(rng, Duration::from_millis(150))),
            _ => Self::InRecovery(within(rng, start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_configuration_that_the_broker_takes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("carillon.toml");
        for seed in 0..40 {
            let shape = Shape::draw(&mut Rng::new(seed), u32::try_from(seed).unwrap());
            std::fs::write(&path, shape.configuration(([127, 0, 0, 1], 4455).into())).unwrap();
            let config = carillon::config::Config::load(&path).unwrap();
            assert_eq!(config.journal.segment_bytes, shape.segment_bytes);
        }
    }

    #[test]
    fn deaths_of_all_kinds_are_drawn() {
        let mut rng = Rng::new(1);
        let (start, window) = (Duration::from_millis(80), Duration::from_millis(700));
        let deaths: Vec<_> = (0..200).map(|_| Death::draw(&mut rng, start, window)).collect();
        let recovery = deaths.iter().filter(|death| matches!(death, Death::InRecovery(_))).count();
        let load = deaths.iter().filter(|death| matches!(death, Death::UnderLoad(_))).count();
        assert!(recovery > 10 && load > 100 && recovery + load < 200, "{recovery} {load}");
    }
}
