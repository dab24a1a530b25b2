//! The SDK against a broker that does what a test says, over real QUIC.

mod broker;
mod dings;
mod handshake;
mod publishing;
mod reading;
mod requests;
mod restored;
mod untold;
