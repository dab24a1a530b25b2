//! What a run is like: limits, windows and the likelihood of each action, so that some runs drown in one thing and others
//! never see it.

use std::time::Duration;

use carillon::edge::limits::{FENCES_QUEUED_MAX, Limits};
use carillon::keeper::{KeeperOptions, Retention};
use carillon::sequencer::{CONTROLS_QUEUED_MAX, PUBLISHES_QUEUED_MAX};

use super::rng::Rng;

/// What a run's machine is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// It never fails: what is tried is all that sessions do.
    Reliable,
    /// The process dies, the disk fails and loses what was not synced; there are snapshots, and old segments leave.
    Failing,
}

impl Machine {
    pub(super) fn fails(self) -> bool {
        match self {
            Self::Reliable => false,
            Self::Failing => true,
        }
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Turn,
    Step,
    Read,
    Uplink,
    Answer,
    Publish,
    Burst,
    Connect,
    Hop,
    Disconnect,
    Window,
    Tease,
    Deafen,
    Stall,
    Members,
    Flurry,
    Conversation,
    Ding,
    Confirm,
    Recall,
    Watch,
    Unwatch,
    Mark,
    Retire,
    Ack,
    Misbehave,
    Clock,
    SetBack,
    History,
    Truncate,
    Rest,
    Repeat,
    Remind,
    Call,
    Die,
    Keep,
    Prepare,
    Damage,
}

impl Action {
    /// Whether it happens on such a machine.
    fn is_of(self, machine: Machine) -> bool {
        match self {
            Self::Die | Self::Keep | Self::Prepare | Self::Damage => machine.fails(),
            // Where there is a keeper, it does this.
            Self::Truncate => !machine.fails(),
            _ => true,
        }
    }
}

/// Each action and how often it happens, at most, in a thousand.
const ACTIONS: [(Action, usize); 38] = [
    (Action::Turn, 220),
    (Action::Step, 130),
    (Action::Read, 200),
    (Action::Uplink, 40),
    (Action::Answer, 60),
    (Action::Publish, 110),
    (Action::Burst, 12),
    (Action::Connect, 35),
    (Action::Hop, 25),
    (Action::Disconnect, 12),
    (Action::Window, 14),
    (Action::Tease, 6),
    (Action::Deafen, 12),
    (Action::Stall, 10),
    (Action::Members, 60),
    (Action::Flurry, 10),
    (Action::Conversation, 4),
    (Action::Ding, 12),
    (Action::Confirm, 14),
    (Action::Recall, 3),
    (Action::Watch, 14),
    (Action::Unwatch, 3),
    (Action::Mark, 70),
    (Action::Retire, 3),
    (Action::Ack, 24),
    (Action::Misbehave, 1),
    (Action::Clock, 24),
    (Action::SetBack, 1),
    (Action::History, 20),
    (Action::Truncate, 3),
    (Action::Rest, 2),
    (Action::Repeat, 12),
    (Action::Remind, 4),
    (Action::Call, 40),
    (Action::Die, 2),
    (Action::Keep, 16),
    (Action::Prepare, 8),
    (Action::Damage, 4),
];

/// See the module.
pub(super) struct Shape {
    pub(super) limits: Limits,
    pub(super) ring_batches: usize,
    pub(super) ring_bytes: usize,
    pub(super) machine: Machine,
    pub(super) segment_bytes: u64,
    pub(super) reserve_bytes: u64,
    /// Of the disk, if it may fill up.
    pub(super) free_bytes_min: u64,
    pub(super) keeper: KeeperOptions,
    /// Within how many calls to the disk a process may die.
    pub(super) fates: Vec<usize>,
    /// How likely it dies while it starts, in percent.
    pub(super) dies_starting: usize,
    /// Starts, and cancels, that the gateway holds.
    pub(super) gateway_room: usize,
    /// Room in the sequencer's queues, and for news of fenced sessions.
    pub(super) publishes_queued: usize,
    pub(super) controls_queued: usize,
    pub(super) fences_queued: usize,
    /// Requests that the reader takes.
    pub(super) reader_room: usize,
    /// How many of a hundred turns the first edge gets: the other one lags behind, or runs ahead.
    pub(super) turns_of_first: usize,
    /// How likely a write is cut though there is room, in percent.
    pub(super) stingy: usize,
    pub(super) devices_a_person: usize,
    pub(super) steps: usize,
    weights: Vec<usize>,
    /// How likely each kind of window is: tiny, small, middling, wide.
    windows: [usize; 4],
}

impl Shape {
    pub(super) fn random(rng: &mut Rng, machine: Machine) -> Self {
        let mut weight = |(action, weight): &(Action, usize)| {
            let weight = weight * rng.pick(&[2, 5, 10, 10, 10, 20, 40]) / 10 + 1;
            if action.is_of(machine) { weight } else { 0 }
        };
        let weights = ACTIONS.iter().map(&mut weight).collect();
        let windows = rng.pick(&[[1, 1, 1, 1], [1, 1, 2, 8], [0, 0, 0, 1], [4, 2, 1, 1], [0, 1, 2, 1]]);
        let mut shape = Self {
            limits: limits(rng),
            ring_batches: rng.pick(&[1, 2, 4, 6, 8, 64, 64]),
            ring_bytes: rng.pick(&[usize::MAX, usize::MAX, usize::MAX, 3_000]),
            machine,
            segment_bytes: rng.pick(&[2 * 1024, 8 * 1024, 32 * 1024, 128 * 1024]),
            reserve_bytes: 0,
            free_bytes_min: 0,
            keeper: keeper(rng),
            fates: rng.pick(&[[5, 20, 80], [20, 80, 200], [200, 500, 2_000]]).to_vec(),
            dies_starting: rng.pick(&[0, 20, 50]),
            gateway_room: rng.pick(&[1, 2, 5, 64]),
            publishes_queued: rng.pick(&[1, 3, PUBLISHES_QUEUED_MAX]),
            controls_queued: rng.pick(&[1, 3, CONTROLS_QUEUED_MAX, CONTROLS_QUEUED_MAX]),
            fences_queued: rng.pick(&[1, FENCES_QUEUED_MAX]),
            reader_room: rng.between(1, 4),
            turns_of_first: rng.pick(&[50, 50, 5, 15, 85, 95]),
            stingy: rng.pick(&[0, 0, 5, 30]),
            devices_a_person: rng.between(1, 3),
            steps: if machine.fails() { rng.pick(&[200, 400, 800, 1_500]) } else { rng.pick(&[100, 300, 300, 700]) },
            weights,
            windows,
        };
        shape.reserve_bytes = shape.segment_bytes;
        shape
    }

    pub(super) fn action(&self, rng: &mut Rng) -> Action {
        ACTIONS[rng.weighted(&self.weights)].0
    }

    /// A window for a client's streams.
    pub(super) fn window(&self, rng: &mut Rng) -> usize {
        match rng.weighted(&self.windows) {
            0 => rng.between(1, 64),
            1 => rng.between(64, 500),
            2 => rng.between(500, 5_000),
            _ => 1 << 20,
        }
    }
}

/// Snapshots and retention, so that much of it happens within a run.
fn keeper(rng: &mut Rng) -> KeeperOptions {
    let age = rng.pick(&[None, None, Some(Duration::from_secs(5)), Some(Duration::from_secs(60))]);
    let bytes_max = rng.pick(&[None, None, Some(1), Some(16 * 1024), Some(64 * 1024)]);
    KeeperOptions {
        snapshot_journal_bytes: rng.pick(&[1, 2 * 1024, 16 * 1024, 128 * 1024]),
        snapshot_interval: rng.pick(&[Duration::from_secs(3), Duration::from_secs(86_400)]),
        // It sleeps for none of what it reads.
        snapshot_bytes_a_second: u64::MAX,
        retention: Retention { age, bytes_max },
    }
}

fn limits(rng: &mut Rng) -> Limits {
    let real = Limits::default();
    if rng.percent(10) {
        return real;
    }
    Limits {
        publishes_in_flight_max: rng.pick(&[1, 3, real.publishes_in_flight_max]),
        replies_reserved_max: rng.pick(&[2, 8, real.replies_reserved_max, real.replies_reserved_max]),
        reads_in_flight_max: rng.pick(&[1, 2, real.reads_in_flight_max]),
        reply_bytes_pause: rng.pick(&[1, 60, real.reply_bytes_pause]),
        marks_under_way_max: rng.pick(&[1, 3, real.marks_under_way_max]),
        marks_a_turn: rng.pick(&[1, 2, real.marks_a_turn]),
        receipts_waiting_max: rng.pick(&[2, 3, real.receipts_waiting_max]),
        receipts_live_members_max: rng.pick(&[0, 1, 3, real.receipts_live_members_max]),
        counts_every_ms: rng.pick(&[1, 50, real.counts_every_ms]),
        counts_due_max: rng.pick(&[1, real.counts_due_max]),
        dings_received_max: rng.pick(&[1, 2, real.dings_received_max]),
        read_bytes_a_turn: rng.pick(&[30, 400, real.read_bytes_a_turn]),
        batches_a_turn: rng.pick(&[1, 2, real.batches_a_turn]),
        round_chunk_sessions: rng.pick(&[1, 2, 2, 3, real.round_chunk_sessions]),
        pinned_bytes_max: real.pinned_bytes_max,
        owes_ms_min: real.owes_ms_min,
        rounds_unfinished_max: rng.pick(&[1, 2, 5, real.rounds_unfinished_max]),
        slices_a_turn: rng.pick(&[1, 2, real.slices_a_turn]),
        slice_bytes_max: rng.pick(&[1, 150, 600, real.slice_bytes_max]),
        plan_positions_max: rng.pick(&[1, 2, 3, 8, real.plan_positions_max]),
        plan_positions_wide_max: rng.pick(&[1, 20, real.plan_positions_wide_max]),
        replies_a_turn: rng.pick(&[1, 3, real.replies_a_turn, real.replies_a_turn]),
        progress_positions: rng.pick(&[1, 5, 40, real.progress_positions]),
        progress_a_turn: rng.pick(&[1, 2, real.progress_a_turn]),
        progress_a_tick_max: real.progress_a_tick_max,
    }
}
