//! The Carillon broker: what its command, benches and tests are made of.

pub mod journal;
