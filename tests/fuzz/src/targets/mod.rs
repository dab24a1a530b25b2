//! The targets: one file for each thing that reads.

use crate::Target;

mod client;
mod config;
mod decoder;
mod frames;
mod http;
mod index;
mod journal;
mod packets;
mod records;
mod session;
mod snapshot;
mod state;
mod token;

/// Every target.
pub const TARGETS: &[Target] = &[
    decoder::TARGET,
    frames::TARGET,
    records::TARGET,
    journal::TARGET,
    snapshot::TARGET,
    state::TARGET,
    index::TARGET,
    token::TARGET,
    http::SIDE,
    http::CALLBACKS,
    http::ANSWER,
    config::TARGET,
    packets::TARGET,
    client::BROKER,
    client::LOG,
    session::TARGET,
];
