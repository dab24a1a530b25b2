//! What the end-to-end, simulation and conformance tests of Carillon stand on.

pub mod ahead;
pub mod corrupt;
pub mod crash;
pub mod gateway;
pub mod harness;
pub mod outlets;
pub mod power;
pub mod proxy;
pub mod raw;
pub mod rig;
pub mod sim;
