//! What the small runs of the tests have in common.

use std::time::Duration;

use carillon_loadtest::basis::Basis;

/// Small, patient, and with the broker in this process.
pub(crate) fn basis() -> Basis {
    Basis {
        prefix: "load".into(),
        sockets: 2,
        connecting_max: 8,
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        broker_pid: Some(std::process::id()),
    }
}
