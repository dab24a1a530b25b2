//! The Carillon broker: what its command, benches and tests are made of.
//!
//! `docs/ARCHITECTURE.md` is the map. The way of a message: [`edge`] → [`sequencer`] → [`journal`] → ring → [`edge`].

mod background;
pub mod backup;
pub mod clock;
pub mod config;
pub mod dings;
pub mod edge;
pub mod http;
pub mod index;
pub mod journal;
pub mod keeper;
pub mod material;
pub mod metrics;
pub mod notify;
pub mod renewal;
pub mod report;
pub mod sequencer;
pub mod server;
pub mod snapshot;
mod startup;
pub mod store;
pub mod tls;

/// The UDP port of a broker, unless told otherwise.
pub const DEFAULT_PORT: u16 = 4455;

/// The TCP port of health, readiness and metrics, unless told otherwise.
pub const DEFAULT_HTTP_PORT: u16 = 4456;
