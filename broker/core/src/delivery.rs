//! What a device has been delivered: its cursor says up to where, the windows of bounded catch-ups say what was left out.
//!
//! A message is delivered when the cursor is at or beyond it and each window around it has offered it. Which of its
//! conversation's messages a window offered follows from the message alone, `newest` seqs further on: if that one was there at
//! `through`, this one was left out. Where it lies only the index knows, so that is asked there.
//!
//! Whatever is merged or forgotten here is so to the side of "not delivered".

use alloc::vec::Vec;
use carillon_protocol::ids::{DeviceId, Position};

use crate::error::{Applied, Contradiction};
use crate::limits::WINDOWS_A_DEVICE_MAX;
use crate::record::CatchUpBounded;
use crate::shard::Shard;

/// One installation of a user's client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    /// What it has acknowledged, as far as the broker was told.
    pub(crate) cursor: Position,
    /// In the order they were noted, none within another that offered no more; at most `WINDOWS_A_DEVICE_MAX`.
    pub(crate) windows: Vec<Window>,
}

/// A bounded catch-up: of what lies in `[from, through]` the device was offered the newest `newest` messages of each
/// conversation, as of `through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Position,
    pub(crate) through: Position,
    pub(crate) newest: u32,
}

impl Window {
    /// Whether it leaves out whatever the other one does.
    fn covers(&self, other: &Self) -> bool {
        self.from <= other.from && other.through <= self.through && self.newest <= other.newest
    }
}

/// Whether a device has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    No,
    Yes,
    /// If it was among the newest so many of its conversation as of a position.
    Among {
        newest: u32,
        through: Position,
    },
}

impl Device {
    pub(crate) const fn new(id: DeviceId) -> Self {
        Self { id, cursor: Position(0), windows: Vec::new() }
    }

    /// Whether a window says what none before it does.
    pub(crate) fn is_news(&self, window: &Window) -> bool {
        !self.windows.iter().any(|known| known.covers(window))
    }

    /// Notes a window. When there are too many the oldest two become one that offered nothing.
    pub(crate) fn bound(&mut self, window: Window) {
        if !self.is_news(&window) {
            return;
        }
        self.windows.retain(|known| !window.covers(known));
        self.windows.push(window);
        if self.windows.len() > WINDOWS_A_DEVICE_MAX {
            let (oldest, next) = (self.windows.remove(0), &mut self.windows[0]);
            let (from, through) = (oldest.from.min(next.from), oldest.through.max(next.through));
            *next = Window { from, through, newest: 0 };
            // It may reach around others.
            let merged = *next;
            self.windows.retain(|known| *known == merged || !merged.covers(known));
        }
        self.windows.shrink_to_fit();
    }

    /// Whether it has the message at this position.
    pub(crate) fn delivery(&self, position: Position) -> Delivery {
        if position > self.cursor {
            return Delivery::No;
        }
        let around = self.windows.iter().filter(|window| window.from <= position && position <= window.through);
        // The strictest of several: who is among the newest of the fewest at the latest is so in each.
        let strictest = around.copied().reduce(|a, b| Window {
            through: a.through.max(b.through),
            newest: a.newest.min(b.newest),
            ..a
        });
        match strictest {
            None => Delivery::Yes,
            Some(Window { newest: 0, .. }) => Delivery::No,
            Some(Window { newest, through, .. }) => Delivery::Among { newest, through },
        }
    }
}

impl Shard {
    pub(crate) fn apply_catch_up_bounded(&mut self, position: Position, record: &CatchUpBounded) -> Applied {
        let CatchUpBounded { tenant, user, device, from, through, newest, .. } = *record;
        if from == Position(0) || through < from || through >= position {
            return Err(Contradiction::Range { what: "window", id: through.0 });
        }
        let user = self.directory.known_user(tenant, user)?;
        let Ok(at) = user.device(device) else {
            return Err(Contradiction::Unknown { what: "device", id: device.0 });
        };
        user.clients_mut().devices[at].bound(Window { from, through, newest });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window((from, through, newest): (u64, u64, u32)) -> Window {
        Window { from: Position(from), through: Position(through), newest }
    }

    /// A device that has acknowledged everything.
    fn device(windows: &[(u64, u64, u32)]) -> Device {
        let mut device = Device { cursor: Position(1_000), ..Device::new(DeviceId(1)) };
        windows.iter().for_each(|known| device.bound(window(*known)));
        device
    }

    fn check(windows: &[(u64, u64, u32)], expected: &[(u64, u64, u32)]) {
        assert_eq!(device(windows).windows, expected.iter().copied().map(window).collect::<Vec<_>>());
    }

    #[test]
    fn a_window_is_kept_unless_another_left_out_as_much() {
        check(&[(5, 9, 2), (5, 9, 2)], &[(5, 9, 2)]);
        check(&[(5, 9, 2), (5, 12, 2)], &[(5, 12, 2)]);
        check(&[(5, 12, 1), (6, 9, 2)], &[(5, 12, 1)]);
        check(&[(5, 9, 2), (5, 12, 3)], &[(5, 9, 2), (5, 12, 3)]);
        check(&[(5, 9, 2), (8, 12, 2)], &[(5, 9, 2), (8, 12, 2)]);
    }

    #[test]
    fn the_oldest_two_of_too_many_become_one_that_offered_nothing() {
        let many: Vec<_> = (1..=9).map(|nth| (nth * 10, nth * 10 + 5, 3)).collect();
        let mut expected = Vec::from([(10, 25, 0)]);
        expected.extend_from_slice(&many[2..]);
        check(&many, &expected);
        assert_eq!(device(&many).windows.len(), WINDOWS_A_DEVICE_MAX);
    }

    #[test]
    fn a_device_has_what_it_acknowledged_and_no_window_left_out() {
        let device = device(&[(10, 20, 5), (15, 40, 7), (50, 60, 0)]);
        let among = |newest, through| Delivery::Among { newest, through: Position(through) };
        let expected = [
            (9, Delivery::Yes),
            (10, among(5, 20)),
            (15, among(5, 40)),
            (21, among(7, 40)),
            (41, Delivery::Yes),
            (50, Delivery::No),
            (1_000, Delivery::Yes),
            (1_001, Delivery::No),
        ];
        for (position, delivery) in expected {
            assert_eq!(device.delivery(Position(position)), delivery, "at {position}");
        }
    }
}
