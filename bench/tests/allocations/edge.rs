//! A message from the stream of its publisher to those of the live sessions, through edge and sequencer in one thread.
//!
//! The connections are not QUIC's and the journal is in memory: what is counted is ours, apart from the transport.

use carillon_bench::stage::Stage;

use crate::budgets;
use crate::counting::{Asked, asked_by, traced};
use crate::{WARM_UP, check, hold};

/// Below and above what a round visits at once.
const SESSIONS: [u32; 2] = [500, 1_000];

#[test]
fn a_round() {
    let publishes = |stage: &mut Stage| stage.publishes(1);
    check(&budgets::EDGE_PUBLISH, &mut Stage::of(SESSIONS[0]), publishes, Stage::deliver);
}

/// What twice the sessions take more than one of each: what a round takes falls out.
#[test]
fn a_delivery() {
    let mut stages = SESSIONS.map(Stage::of);
    let counts = stages.each_mut().map(|stage| {
        for _ in 0..WARM_UP {
            stage.round(1);
        }
        let mut asked = Asked::default();
        for _ in 0..budgets::EDGE_DELIVERY.operations {
            let publishes = stage.publishes(1);
            asked += asked_by(|| stage.deliver(publishes)).1;
        }
        asked
    });
    let [few, many] = counts;
    let sessions = u64::from(SESSIONS[1] - SESSIONS[0]);
    // What grows by doubling does so in other rounds of the one stage than of the other: less than one a session is none.
    let more = Asked {
        allocations: many.allocations.saturating_sub(few.allocations) / sessions,
        reallocations: many.reallocations.saturating_sub(few.reallocations) / sessions,
    };
    hold(&budgets::EDGE_DELIVERY, more, || {
        let publishes = stages[1].publishes(1);
        traced(|| stages[1].deliver(publishes)).1
    });
}
