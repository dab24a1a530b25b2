//! Tests on real loopback sockets: one file for each behaviour.

mod closing;
mod group;
mod keys;
mod streams;
pub(crate) mod support;
