//! A shard's state from bytes: what is believed is written to the same bytes, and can be gone on with.
//!
//! Input: a state.

use carillon_core::Shard;
use carillon_core::effect::{Effects, Verb};
use carillon_core::input::{Attach, Authority, Input};
use carillon_protocol::ids::{DeviceId, Position, ProducerId, Timestamp};

use crate::life::{Life, SHARD, state_of};
use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "state",
    run,
    // What it is gone on with, and written, read and written again.
    budget: Budget { per_byte: IN_MEMORY.per_byte + 4, fixed_bytes: IN_MEMORY.fixed_bytes + 96 * 1024 },
    input_bytes_max: 16 * 1024,
    seeds,
    words: &[],
    short_inputs: 100_000,
};

/// What a state takes in memory. A user with a device and the personal conversation that each must have is some 140 bytes encoded, and 490 in
/// memory.
pub(super) const IN_MEMORY: Budget = Budget::fixed(32 * 1024);

/// A state that has come so far is not read back.
const HEAD_MAX: Position = Position(1 << 47);

fn run(input: &[u8]) {
    let decoded = IN_MEMORY.spend("a state", input.len(), || Shard::decode_state(SHARD, input));
    let Ok(mut shard) = decoded else { return };
    assert!(state_of(&shard) == input, "a state is written as it was read");
    go_on(&mut shard);
}

/// Time passes, calls are handed out, somebody comes.
pub(super) fn go_on(shard: &mut Shard) {
    shard.resume();
    let mut now = shard.last_time();
    for after_ms in [0, 1_000, 60_000, 86_400_000] {
        now = Timestamp(now.0.saturating_add(after_ms).max(shard.next_timer().unwrap_or_default().0));
        handle(shard, now, Input::Tick);
        for outlet in shard.outlets_waiting() {
            for verb in [Verb::Cancel, Verb::Start] {
                _ = shard.next_call(outlet, verb);
            }
            _ = (shard.next_moot(outlet), shard.next_called_off(outlet));
        }
    }
    let attach = Attach {
        tenant: "acme".into(),
        handle: "bob".into(),
        authority: Authority::User,
        device: DeviceId(5),
        producer: Some(ProducerId(9)),
    };
    handle(shard, now, Input::Attach(attach));
    if shard.head() >= HEAD_MAX {
        return;
    }
    let state = state_of(shard);
    let again = Shard::decode_state(SHARD, &state).expect("what came of a good state is one");
    assert!(state_of(&again) == state);
}

fn handle(shard: &mut Shard, now: Timestamp, input: Input) {
    shard.handle(now, input, &mut Effects::default());
}

fn seeds() -> Vec<Vec<u8>> {
    vec![Life::whole().state(), Life::young().state(), state_of(&Shard::new(SHARD))]
}
