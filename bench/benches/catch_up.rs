//! Catching up: what it costs to find out what a user missed. It must follow what they missed, and not what the shard carried
//! meanwhile.

use carillon::edge::catchup::{PlanBounds, plan};
use carillon::edge::limits::{PLAN_POSITIONS_MAX, PLAN_POSITIONS_WIDE_MAX};
use carillon::index::Index;
use carillon_core::effect::{Moment, StintView};
use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};
use carillon_protocol::kinds::HistoryPolicy;
use criterion::{BenchmarkId, Criterion, Throughput};

/// Conversations of the user.
const OWN: u64 = 1_000;

/// Conversations of others, which carry the rest.
const OTHERS: u64 = 100_000;

const BOUNDS: PlanBounds =
    PlanBounds { positions_max: PLAN_POSITIONS_MAX, wide_positions_max: PLAN_POSITIONS_WIDE_MAX };

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for missed in [1_000, 100_000] {
        let mut benches = criterion.benchmark_group(format!("plan_all_of_{missed}_missed_in_1000_conversations_of"));
        benches.throughput(Throughput::Elements(missed));
        for carried in [200_000, 2_000_000] {
            let index = index(missed, carried);
            let stints = stints();
            benches.bench_function(BenchmarkId::from_parameter(carried), |bencher| {
                bencher.iter(|| assert_eq!(plan_all(&index, &stints, carried), missed));
            });
        }
        benches.finish();
    }
    criterion.final_summary();
}

/// `carried` messages, of which every so many is of one of the user's conversations, in turn.
fn index(missed: u64, carried: u64) -> Index {
    let index = Index::new();
    let every = carried / missed;
    let (mut own, mut others) = (0u64, 0u64);
    for position in 1..=carried {
        let (first, many, nth) = if position % every == 0 { (0, OWN, &mut own) } else { (OWN, OTHERS, &mut others) };
        let (conversation, seq) = (ConversationId(first + *nth % many), Seq(*nth / many + 1));
        *nth += 1;
        index.append(conversation, seq, Position(position), UserId(0));
    }
    index
}

fn stints() -> Vec<StintView> {
    let stint = |conversation| StintView {
        conversation: ConversationId(conversation),
        joined: Moment::default(),
        left: None,
        history: HistoryPolicy::JOINED,
    };
    (0..OWN).map(stint).collect()
}

/// One plan after the other, as a session makes them, to the end.
fn plan_all(index: &Index, stints: &[StintView], carried: u64) -> u64 {
    let (mut next, mut found) = (Position(1), 0);
    while next <= Position(carried) {
        let range = (next, Position(carried));
        let plan = plan(index, &index.recent(), (stints, &[]), range, BOUNDS).expect("in memory");
        found += plan.positions.len() as u64;
        next = plan.horizon.next();
    }
    found
}
