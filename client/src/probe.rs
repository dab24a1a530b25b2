//! Doors for fuzzing, behind a feature of the same name: what a broker sends and what a store holds, handed straight to what judges
//! it. No part of the SDK; it may change at any time.

pub use crate::driver::probe::{Device, Unexpected};
pub use crate::store::probe::replay_log;
