//! A door for fuzzing: the log of publishes without a directory. See [`crate::probe`].

use bytes::Bytes;

use super::log::Publishes;
use super::{Saved, Unsettled};

/// What a log says, without cursors, and a log that says the same.
pub fn replay_log(log: Bytes) -> (Saved, Bytes) {
    let publishes = Publishes::replay(log);
    let again = publishes.records().freeze();
    let Publishes { next, unsettled, reset_due } = publishes;
    let unsettled: Vec<Unsettled> = unsettled.into_values().collect();
    let reset_due = reset_due.map(|void| void.into_iter().collect());
    (Saved { cursors: Vec::new(), next, unsettled, reset_due }, again)
}
