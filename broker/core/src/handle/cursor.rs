//! Cursors move, coalesced by the edges, and catch-ups leave something out. Advisory: what does not fit is passed over.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Timestamp};

use crate::delivery::Window;
use crate::effect::{Effects, Reply};
use crate::input::{BoundedCatchUp, CursorMove};
use crate::limits::CURSORS_A_RECORD_MAX;
use crate::record::{CatchUpBounded, CursorMoved, CursorsMoved};
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

    pub(crate) fn handle_catch_up_bounded(&mut self, time: Timestamp, bounded: &BoundedCatchUp, effects: &mut Effects) {
        let BoundedCatchUp { tenant, user, device, from, through, newest } = *bounded;
        let known = self.directory.user(tenant, user);
        // One that was retired meanwhile has no deliveries either.
        let device_known = known.and_then(|user| user.device(device).ok().map(|at| &user.devices()[at]));
        let fits = Position(1) <= from && from <= through && through <= self.head;
        if fits && device_known.is_some_and(|device| device.is_news(&Window { from, through, newest })) {
            self.commit(CatchUpBounded { time, tenant, user, device, from, through, newest }, effects);
        }
        effects.reply = Some(Reply::CatchUpNoted);
    }

    fn moves_forward(&self, moved: &CursorMove) -> bool {
        let user = self.directory.user(moved.tenant, moved.user);
        let cursor = user.and_then(|user| user.device(moved.device).ok().map(|at| user.devices()[at].cursor));
        moved.position <= self.head && cursor.is_some_and(|cursor| moved.position > cursor)
    }
}
