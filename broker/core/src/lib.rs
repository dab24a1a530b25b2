//! The deterministic state machine of a Carillon shard.
//!
//! [`Shard::handle`] turns one [`input::Input`] into [`record::Record`]s and applies them; [`Shard::apply`] is the only place
//! where state changes and is what recovery replays. State and `apply` of a domain lie in the file of its name, validation of
//! inputs in `handle/`. Nothing here can name a clock, a thread, a file, a socket or a random number: time is an argument.
//!
//! No hashed map is ever iterated, and none is keyed by what a peer chooses: such keys lie in ordered maps and lists, which
//! cannot be flooded with collisions.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod conversation;
mod delivery;
mod ding;
mod directory;
pub mod effect;
mod error;
mod handle;
mod handles;
pub mod input;
pub mod limits;
mod members;
mod membership;
pub mod moved;
mod own;
mod producer;
mod ranks;
mod receipt;
pub mod record;
mod segments;
mod shard;
mod state;
#[cfg(test)]
mod tests;
mod timers;
pub mod turns;
mod user;

pub use ding::DingCounts;
pub use error::{ApplyError, Contradiction};
pub use shard::Shard;
pub use state::StateError;
