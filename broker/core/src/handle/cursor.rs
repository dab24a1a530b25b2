//! Cursors move, coalesced by the edges. Advisory: what does not fit is passed over.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use carillon_protocol::ids::Timestamp;

use crate::effect::Effects;
use crate::input::CursorMove;
use crate::limits::CURSORS_A_RECORD_MAX;
use crate::record::{CursorMoved, CursorsMoved};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn handle_cursors(&mut self, time: Timestamp, moves: &[CursorMove], effects: &mut Effects) {
        let mut furthest = BTreeMap::new();
        for moved in moves.iter().filter(|moved| self.moves_forward(moved)) {
            let furthest = furthest.entry((moved.tenant, moved.user, moved.device)).or_insert(moved.position);
            *furthest = moved.position.max(*furthest);
        }
        let moves: Vec<_> = furthest
            .into_iter()
            .map(|((tenant, user, device), position)| CursorMoved { tenant, user, device, position })
            .collect();
        for moves in moves.chunks(CURSORS_A_RECORD_MAX) {
            self.commit(CursorsMoved { time, moves: moves.into() }, effects);
        }
    }

    fn moves_forward(&self, moved: &CursorMove) -> bool {
        let user = self.directory.user(moved.tenant, moved.user);
        let cursor = user.and_then(|user| user.device(moved.device).ok().map(|at| user.devices[at].cursor));
        moved.position <= self.head && cursor.is_some_and(|cursor| moved.position > cursor)
    }
}
