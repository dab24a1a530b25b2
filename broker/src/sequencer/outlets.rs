//! Calls are handed to outlets, as far as they have room, after what they rest on is durable.

use carillon_core::Shard;
use carillon_core::effect::{Call, CallKey, Verb};
use carillon_core::input::{CallResult, OutletResult};
use carillon_protocol::kinds::{CancelState, Outlet};

/// Cancels of what was never handed out, settled in one go.
const MOOT_A_STEP_MAX: usize = 1_000;

/// Where calls go. The sequencer is the only one that hands them out.
pub trait Outlets: Send {
    /// Whether the outlet takes one more such call now.
    fn has_room(&self, outlet: Outlet, verb: Verb) -> bool;

    /// Hands over a call to an outlet that has room. What becomes of it comes back as [`super::Submission::OutletResults`].
    fn hand_out(&self, call: Call);

    /// Whether the outlet can be told of one more start to be called off.
    fn has_room_to_call_off(&self, outlet: Outlet) -> bool;

    /// A start that the outlet was handed is moot: it must not be tried again. Its cancel comes when there is room for it.
    fn call_off(&self, outlet: Outlet, key: CallKey);
}

/// Takes no call: they wait in the shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOutlets;

impl Outlets for NoOutlets {
    fn has_room(&self, _: Outlet, _: Verb) -> bool {
        false
    }

    fn hand_out(&self, _: Call) {}

    fn has_room_to_call_off(&self, _: Outlet) -> bool {
        false
    }

    fn call_off(&self, _: Outlet, _: CallKey) {}
}

/// Hands out what there is room for, cancels before starts, and neither waits for room of the other. Starts whose cancels find no
/// room are called off. Returns what needs no call.
pub(super) fn hand_out(shard: &mut Shard, outlets: &dyn Outlets) -> Vec<OutletResult> {
    let mut moot = Vec::new();
    for outlet in shard.outlets_waiting() {
        while moot.len() < MOOT_A_STEP_MAX
            && let Some(key) = shard.next_moot(outlet)
        {
            moot.push(OutletResult { key, result: CallResult::Cancel(CancelState::DONE), detail: 0 });
        }
        for verb in [Verb::Cancel, Verb::Start] {
            while outlets.has_room(outlet, verb)
                && let Some(call) = shard.next_call(outlet, verb)
            {
                outlets.hand_out(call);
            }
        }
        while outlets.has_room_to_call_off(outlet)
            && let Some(key) = shard.next_called_off(outlet)
        {
            outlets.call_off(outlet, key);
        }
    }
    moot
}
