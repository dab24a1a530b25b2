//! What tenants allow of DINGs: plans, quiet hours, who may send them, to whom, and how many.
//!
//! All of it is configuration, so the shard knows nothing of it: an edge resolves a request to its terms, the sequencer keeps the
//! rates. What was accepted stays as it was accepted, whatever the configuration says later.

mod policy;
pub mod rates;

pub use policy::{Allowed, DingPolicies, DingPolicy, Quiet};
