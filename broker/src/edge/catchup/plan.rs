//! What a session that catches up is to be offered, as pure functions of its stints and the index.

use std::collections::VecDeque;

use carillon_core::effect::{Moment, StintView};
use carillon_protocol::ids::{ConversationId, Position, Seq};
use carillon_protocol::session::{Skipped, Truncated};

use crate::edge::interest::EdgeUser;
use crate::index::{Index, Lookup, LookupError};

/// The next positions to be offered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ascending.
    pub positions: VecDeque<Position>,
    /// How far the plan is complete.
    pub horizon: Position,
}

/// How far a plan looks ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanBounds {
    /// Positions of a user with few conversations.
    pub positions_max: usize,
    /// Positions of a user with many: a plan looks at each conversation that has something once, so it is as long as four
    /// times their number, and the looking costs a quarter of a lookup a message.
    pub wide_positions_max: usize,
}

/// What a bounded catch-up leaves out of one stint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The conversation.
    pub conversation: ConversationId,
    /// Where the stint begins.
    pub joined: Position,
    /// The first seq left out.
    pub first: Seq,
    /// The last one.
    pub last: Moment,
}

impl Skip {
    /// As it is told to a device that was sent everything up to `position`.
    pub(super) fn frame(&self, position: Position) -> Skipped {
        Skipped { conversation: self.conversation, first: self.first, last: self.last.seq, position }
    }
}

/// The next positions in `[next, through]` that the stints entitle to, without what is skipped.
///
/// # Errors
/// As [`Lookup::positions`].
///
/// # Panics
/// Never.
pub fn plan(
    index: &Index,
    lookup: &impl Lookup,
    (stints, skips): (&[StintView], &[Skip]),
    (next, through): (Position, Position),
    bounds: PlanBounds,
) -> Result<Plan, LookupError> {
    let spans = spans(index, (stints, skips), (next, through));
    let positions_max = (4 * spans.len()).min(bounds.wide_positions_max).max(bounds.positions_max);
    let mut positions = Vec::new();
    let mut complete = true;
    // Lowered whenever enough is found before it: what lies behind is not looked at.
    let mut reach = through;
    for Span { conversation, after, until } in spans {
        let until = until.min(reach);
        if after < until {
            // One more than is kept, so that a conversation that was cut is known to be.
            lookup.positions(conversation, after, until, positions_max + 1, &mut positions)?;
        }
        if positions.len() > 4 * positions_max {
            let (_, last, _) = positions.select_nth_unstable(positions_max);
            reach = *last;
            positions.truncate(positions_max + 1);
            complete = false;
        }
    }
    positions.sort_unstable();
    // Lost messages of several conversations may share one.
    positions.dedup();
    complete &= positions.len() <= positions_max;
    positions.truncate(positions_max);
    let horizon = if complete { through } else { *positions.last().expect("it was cut, so it is not empty") };
    Ok(Plan { positions: positions.into(), horizon })
}

/// Positions of one conversation: after, up to and including.
struct Span {
    conversation: ConversationId,
    after: Position,
    until: Position,
}

/// Where there may be something for the user. A conversation without anything costs a look at its last position.
fn spans(index: &Index, (stints, skips): (&[StintView], &[Skip]), (next, through): (Position, Position)) -> Vec<Span> {
    let before_next = before(next);
    let mut spans = Vec::new();
    for stint in stints {
        let conversation = stint.conversation;
        let mut after = stint.joined.position.max(before_next);
        let until = stint.left.map_or(through, |left| left.position.min(through));
        if after >= until {
            continue;
        }
        let skip = skips.binary_search_by_key(&(conversation, stint.joined.position), |s| (s.conversation, s.joined));
        if let Ok(at) = skip {
            after = after.max(skips[at].last.position);
        }
        if after < until && index.last(conversation).1 > after {
            spans.push(Span { conversation, after, until });
        }
    }
    spans
}

/// What is left out when only the newest `newest` messages of each conversation are wanted, of those in `[next, through]`.
/// By conversation, then by time.
///
/// # Errors
/// As [`Lookup::rank`].
pub(in crate::edge) fn skips(
    index: &Index,
    lookup: &impl Lookup,
    stints: &[StintView],
    (next, through): (Position, Position),
    newest: u32,
) -> Result<Vec<Skip>, LookupError> {
    let mut skips = Vec::new();
    for group in stints.chunk_by(|a, b| a.conversation == b.conversation).rev() {
        let conversation = group[0].conversation;
        if index.last(conversation).1 < next {
            continue;
        }
        let had = lookup.rank(conversation, before(next))?;
        let there = lookup.rank(conversation, through)?;
        let mut wanted = u64::from(newest);
        for stint in group.iter().rev() {
            let after = stint.joined.seq.max(had);
            let until = stint.left.map_or(there, |left| left.seq.min(there));
            let missed = until.0.saturating_sub(after.0);
            let left_out = missed.saturating_sub(wanted);
            wanted -= missed.min(wanted);
            if left_out == 0 {
                continue;
            }
            let last = Seq(after.0 + left_out);
            let mut places = Vec::with_capacity(1);
            lookup.places(conversation, last, 1, &mut places)?;
            // Absent: retention has taken it meanwhile, and names it itself.
            let Some(place) = places.first().filter(|place| place.seq == last) else { continue };
            let last = Moment { seq: last, position: place.position };
            skips.push(Skip { conversation, joined: stint.joined.position, first: after.next(), last });
        }
    }
    skips.reverse();
    Ok(skips)
}

/// What a device that has come to before `next` will not get because retention took it, up to the position `floor`.
pub(super) fn truncations(index: &Index, known: &EdgeUser, next: Position) -> Vec<Truncated> {
    let position = before(next);
    let gone = known.stints.iter().filter_map(|stint| {
        let (last_seq, last_position) = index.floor(stint.conversation);
        let after = stint.joined.position.max(position);
        if last_position <= after || stint.left.is_some_and(|left| left.position <= after) {
            return None;
        }
        let (first, last) = (stint.joined.seq.next(), stint.left.map_or(last_seq, |left| left.seq.min(last_seq)));
        (first <= last).then_some(Truncated { conversation: stint.conversation, first, last, position })
    });
    gone.collect()
}

/// What a device that has come to before `next` will not get because there were too many stints of its user.
pub(super) fn forgotten(known: &EdgeUser, next: Position) -> Vec<Truncated> {
    let position = before(next);
    let gone = known.forgotten.iter().filter(|range| range.last.position >= next);
    gone.map(|range| {
        let (conversation, first, last) = (range.conversation, range.first, range.last.seq);
        Truncated { conversation, first, last, position }
    })
    .collect()
}

pub(super) fn before(next: Position) -> Position {
    Position(next.0.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::limits::PLAN_POSITIONS_MAX;
    use carillon_protocol::ids::UserId;
    use carillon_protocol::kinds::HistoryPolicy;

    const BOUNDS: PlanBounds =
        PlanBounds { positions_max: PLAN_POSITIONS_MAX, wide_positions_max: 8 * PLAN_POSITIONS_MAX };

    /// Conversation 1 at the odd positions up to 20, 2 at the even ones.
    fn index() -> Index {
        let index = Index::new();
        for position in 1..=20u64 {
            let conversation = ConversationId(2 - position % 2);
            index.append(conversation, Seq(position.div_ceil(2)), Position(position), UserId(0));
        }
        index
    }

    fn stint((conversation, joined, left): (u64, u64, Option<u64>)) -> StintView {
        // The seqs of either conversation of `index`.
        let moment = |position: u64| Moment {
            seq: Seq(if conversation == 1 { position.div_ceil(2) } else { position / 2 }),
            position: Position(position),
        };
        let (conversation, history) = (ConversationId(conversation), HistoryPolicy::JOINED);
        StintView { conversation, joined: moment(joined), left: left.map(moment), history }
    }

    type Stint = (u64, u64, Option<u64>);

    fn check(stints: &[Stint], next: u64, through: u64, expected: &[u64], horizon: u64) {
        let (index, stints) = (index(), stints.iter().copied().map(stint).collect::<Vec<_>>());
        let range = (Position(next), Position(through));
        let plan = plan(&index, &index.recent(), (&stints, &[]), range, BOUNDS).unwrap();
        assert_eq!(plan.positions, expected.iter().map(|p| Position(*p)).collect::<Vec<_>>());
        assert_eq!(plan.horizon, Position(horizon));
    }

    #[test]
    fn a_plan_merges_conversations_by_position_within_the_stints() {
        check(&[(1, 0, None), (2, 0, None)], 3, 6, &[3, 4, 5, 6], 6);
        check(&[(1, 3, Some(7)), (1, 15, None), (2, 9, Some(10))], 1, 18, &[5, 7, 10, 17], 18);
        check(&[(1, 0, None)], 20, 20, &[], 20);
        check(&[], 1, 9, &[], 9);
    }

    #[test]
    fn a_plan_that_is_cut_ends_at_its_last_position() {
        let index = Index::new();
        let many = PLAN_POSITIONS_MAX as u64 + 5;
        for position in 1..=many {
            index.append(ConversationId(1), Seq(position), Position(position), UserId(0));
        }
        let range = (Position(1), Position(many));
        let plan = plan(&index, &index.recent(), (&[stint((1, 0, None))], &[]), range, BOUNDS).unwrap();
        assert_eq!(plan.positions.len(), PLAN_POSITIONS_MAX);
        assert_eq!(plan.horizon, Position(PLAN_POSITIONS_MAX as u64));
    }

    #[test]
    fn a_plan_over_many_conversations_is_long_enough_to_pay_for_them() {
        let index = Index::new();
        let mut stints = Vec::new();
        for position in 1..=600u64 {
            index.append(ConversationId(position % 100), Seq(position.div_ceil(100)), Position(position), UserId(0));
        }
        for conversation in 0..100 {
            stints.push(stint((conversation, 0, None)));
        }
        let bounds = PlanBounds { positions_max: 10, wide_positions_max: 300 };
        let all = (Position(1), Position(600));
        let wide = plan(&index, &index.recent(), (&stints, &[]), all, bounds).unwrap();
        assert_eq!(wide.positions, (1..=300).map(Position).collect::<Vec<_>>());
        // Few of them have anything here.
        let late = (Position(598), Position(600));
        assert_eq!(plan(&index, &index.recent(), (&stints, &[]), late, bounds).unwrap().positions.len(), 3);
    }

    /// What is skipped, as (conversation, first, last, position of the last), and what a plan then has.
    fn check_skips(stints: &[Stint], next: u64, newest: u32, expected: &[(u64, u64, u64, u64)], left: &[u64]) {
        let (index, stints) = (index(), stints.iter().copied().map(stint).collect::<Vec<_>>());
        let range = (Position(next), Position(20));
        let found = skips(&index, &index.recent(), &stints, range, newest).unwrap();
        let told: Vec<_> =
            found.iter().map(|s| (s.conversation.0, s.first.0, s.last.seq.0, s.last.position.0)).collect();
        assert_eq!(told, expected);
        let plan = plan(&index, &index.recent(), (&stints, &found), range, BOUNDS).unwrap();
        assert_eq!(plan.positions, left.iter().map(|p| Position(*p)).collect::<Vec<_>>());
    }

    #[test]
    fn a_bounded_catch_up_leaves_the_newest_of_each_conversation() {
        let both = [(1, 0, None), (2, 0, None)];
        check_skips(&both, 1, 2, &[(1, 1, 8, 15), (2, 1, 8, 16)], &[17, 18, 19, 20]);
        check_skips(&both, 16, 2, &[(2, 8, 8, 16)], &[17, 18, 19, 20]);
        check_skips(&both, 18, 9, &[], &[18, 19, 20]);
        check_skips(&both, 19, 0, &[(1, 10, 10, 19), (2, 10, 10, 20)], &[]);
        check_skips(&both, 21, 0, &[], &[]);
    }

    #[test]
    fn the_newest_are_counted_over_all_stints_of_a_conversation() {
        // Seqs 2, 3, 4 (positions 3, 5, 7) and 9, 10 (17, 19).
        let stints = [(1, 2, Some(8)), (1, 16, None)];
        check_skips(&stints, 1, 3, &[(1, 2, 3, 5)], &[7, 17, 19]);
        check_skips(&stints, 1, 1, &[(1, 2, 4, 7), (1, 9, 9, 17)], &[19]);
    }

    #[test]
    fn what_retention_took_is_named_to_those_who_were_entitled_and_had_not_come_so_far() {
        let index = index();
        index.truncate(Position(12), true).unwrap();
        let named = |stints: &[Stint], next: u64| {
            let stints = stints.iter().copied().map(stint).collect();
            let user = EdgeUser { stints: std::sync::Arc::new(stints), ..EdgeUser::default() };
            let told = truncations(&index, &user, Position(next));
            told.iter().map(|t| (t.conversation.0, t.first.0, t.last.0, t.position.0)).collect::<Vec<_>>()
        };
        assert_eq!(named(&[(1, 0, None), (2, 4, None)], 1), [(1, 1, 6, 0), (2, 3, 6, 0)]);
        assert_eq!(named(&[(1, 0, None), (2, 0, None)], 12), [(2, 1, 6, 11)], "1 has nothing from 12 on");
        assert_eq!(named(&[(1, 0, Some(5)), (2, 12, None)], 3), [(1, 1, 3, 2)]);
        assert_eq!(named(&[(1, 0, Some(5))], 6), []);
        assert_eq!(named(&[(1, 0, None)], 13), []);
    }
}
