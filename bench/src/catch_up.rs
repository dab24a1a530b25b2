//! A user with conversations in an index that carries those of others too, and the plans by which a session catches up.

use carillon::edge::catchup::{PlanBounds, plan};
use carillon::edge::limits::{PLAN_POSITIONS_MAX, PLAN_POSITIONS_WIDE_MAX};
use carillon::index::Index;
use carillon_core::effect::{Moment, StintView};
use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};
use carillon_protocol::kinds::HistoryPolicy;

/// Conversations of others, which carry what is not of the user's.
const OTHERS: u64 = 100_000;

const BOUNDS: PlanBounds =
    PlanBounds { positions_max: PLAN_POSITIONS_MAX, wide_positions_max: PLAN_POSITIONS_WIDE_MAX };

/// What a user has missed.
pub struct Missed {
    index: Index,
    stints: Vec<StintView>,
    carried: u64,
}

impl Missed {
    /// `carried` messages, of which `missed` are of the user's `conversations`, in turn and evenly between the others.
    ///
    /// # Panics
    /// If more were missed than carried.
    pub fn of(missed: u64, conversations: u64, carried: u64) -> Self {
        assert!(missed <= carried, "what was missed was carried");
        let index = Index::new();
        let every = carried / missed;
        let (mut own, mut others) = (0u64, 0u64);
        for position in 1..=carried {
            let is_own = position % every == 0;
            let (first, many, nth) =
                if is_own { (0, conversations, &mut own) } else { (conversations, OTHERS, &mut others) };
            let (conversation, seq) = (ConversationId(first + *nth % many), Seq(*nth / many + 1));
            *nth += 1;
            index.append(conversation, seq, Position(position), UserId(0));
        }
        let stint = |conversation| StintView {
            conversation: ConversationId(conversation),
            joined: Moment::default(),
            left: None,
            history: HistoryPolicy::JOINED,
        };
        Self { index, stints: (0..conversations).map(stint).collect(), carried }
    }

    /// One plan after the other, as a session makes them, to the end; how many messages they found.
    ///
    /// # Panics
    /// If the index does not have everything in memory.
    pub fn plan_all(&self) -> u64 {
        let (mut next, mut found) = (Position(1), 0);
        while next <= Position(self.carried) {
            let range = (next, Position(self.carried));
            let plan = plan(&self.index, &self.index.recent(), (&self.stints, &[]), range, BOUNDS).expect("in memory");
            found += plan.positions.len() as u64;
            next = plan.horizon.next();
        }
        found
    }
}
