//! The deterministic state machine of a Carillon shard.
#![no_std]

extern crate alloc;

pub mod effect;
pub mod input;
pub mod record;
