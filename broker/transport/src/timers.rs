//! One lazy timer wheel for all connections of an endpoint.
//!
//! A connection's deadline moves with almost every packet, mostly to a later moment. So the wheel is
//! never told of a later deadline: the entry comes due early, the connection says when it really wants
//! to be called, and is entered again. Only an earlier deadline makes a new entry at once.
//!
//! Entries are not taken out. A connection remembers the two that count for it ([`Armed`]): a near one
//! and a far one that is kept for when the near one is done. With one alone, every acknowledgement delay
//! of 25 ms would leave another entry of the idle timeout behind; with two, at most the few that an even
//! nearer deadline pushed aside remain until their tick.

use std::time::{Duration, Instant};

use crate::limits::{BUCKET_KEPT, TICK, WHEEL_BUCKETS};

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = WHEEL_BUCKETS / WORD_BITS;
const _: () = assert!(WHEEL_BUCKETS.is_power_of_two() && WHEEL_BUCKETS >= WORD_BITS);

/// Ticks since the wheel was made; 0 is never used for an entry.
type Tick = u64;

/// The entries of one connection that count: none, one or two ticks, the nearer first.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Armed {
    near: Option<Tick>,
    far: Option<Tick>,
}

impl Armed {
    /// Whether an entry that came due at `tick` counts; if so it is used up.
    pub(crate) fn take(&mut self, tick: Tick) -> bool {
        if self.near == Some(tick) {
            self.near = self.far.take();
            true
        } else {
            false
        }
    }

    /// Whether a deadline at `tick` needs a new entry, which then counts.
    fn enter(&mut self, tick: Tick) -> bool {
        match self.near {
            Some(near) if near <= tick => false,
            near => {
                // Of three, the middle one is forgotten: it comes due before the far one, which is
                // the more expensive to make anew.
                self.far = self.far.or(near);
                self.near = Some(tick);
                true
            }
        }
    }
}

/// An entry that came due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    /// The connection's slot.
    pub(crate) index: u32,
    /// To be shown to [`Armed::take`].
    pub(crate) tick: Tick,
}

/// The wheel: buckets of slots, one a tick, used again after a turn.
pub(crate) struct Timers {
    start: Instant,
    /// Everything up to and including this tick has come due.
    passed: Tick,
    buckets: Vec<Vec<u32>>,
    /// One bit a bucket: whether it holds anything.
    occupied: [u64; WORDS],
}

impl Timers {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, passed: 0, buckets: vec![Vec::new(); WHEEL_BUCKETS], occupied: [0; WORDS] }
    }

    /// Makes sure that `index` comes due at `deadline` or earlier; at most one tick late.
    pub(crate) fn arm(&mut self, index: u32, armed: &mut Armed, deadline: Instant) {
        // Rounded up, so that what comes due is due; and clamped to one turn of the wheel.
        let wanted = self.tick_at(deadline) + 1;
        let tick = wanted.clamp(self.passed + 1, self.passed + WHEEL_BUCKETS as u64 - 1);
        if armed.enter(tick) {
            let bucket = bucket_of(tick);
            self.buckets[bucket].push(index);
            self.occupied[bucket / WORD_BITS] |= 1 << (bucket % WORD_BITS);
        }
    }

    /// Moves everything that is due at `now` to `due`, in order of time.
    pub(crate) fn expire(&mut self, now: Instant, due: &mut Vec<Due>) {
        let present = self.tick_at(now);
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= present) {
            let bucket = bucket_of(tick);
            due.extend(self.buckets[bucket].drain(..).map(|index| Due { index, tick }));
            // What many that came due together took is not kept: they do so in another tick each time, until every bucket had their room.
            if self.buckets[bucket].capacity() > BUCKET_KEPT {
                self.buckets[bucket] = Vec::new();
            }
            self.occupied[bucket / WORD_BITS] &= !(1 << (bucket % WORD_BITS));
            self.passed = tick;
        }
        self.passed = self.passed.max(present);
    }

    /// When something comes due next, if anything is entered.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let tick = self.next_tick()?;
        Some(self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX))
    }

    fn tick_at(&self, moment: Instant) -> Tick {
        let since_start = moment.saturating_duration_since(self.start);
        u64::try_from(since_start.as_micros() / micros(TICK)).unwrap_or(Tick::MAX / 2)
    }

    /// The nearest tick after `passed` whose bucket is occupied: one look at each word of the bitmap,
    /// the first one twice, for its bits before and after the starting point.
    fn next_tick(&self) -> Option<Tick> {
        let first = bucket_of(self.passed + 1);
        for step in 0..=WORDS {
            let word = (first / WORD_BITS + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (first % WORD_BITS);
            } else if step == WORDS {
                bits &= !(u64::MAX << (first % WORD_BITS));
            }
            if bits != 0 {
                let bucket = word * WORD_BITS + bits.trailing_zeros() as usize;
                let ahead = bucket.wrapping_sub(first) % WHEEL_BUCKETS;
                return Some(self.passed + 1 + ahead as u64);
            }
        }
        None
    }
}

fn micros(duration: Duration) -> u128 {
    duration.as_micros()
}

#[expect(clippy::cast_possible_truncation, reason = "the mask leaves 13 bits")]
fn bucket_of(tick: Tick) -> usize {
    (tick & (WHEEL_BUCKETS as u64 - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::system_now;

    const TURN: Duration = Duration::from_millis(2 * 8_192);

    fn expired(timers: &mut Timers, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        timers.expire(now, &mut due);
        due.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn nothing_comes_early_and_nothing_more_than_a_tick_late() {
        let start = system_now();
        for micros in [0, 1, 1_999, 2_000, 2_001, 127_999, 128_000, 5_000_000, 16_000_000] {
            let mut timers = Timers::new(start);
            let deadline = start + Duration::from_micros(micros);
            timers.arm(3, &mut Armed::default(), deadline);
            let announced = timers.next_deadline().unwrap();
            assert!(announced >= deadline && announced <= deadline + TICK, "{micros} µs");
            assert!(expired(&mut timers, deadline).is_empty(), "{micros} µs: early");
            assert_eq!(expired(&mut timers, announced), [3], "{micros} µs");
            assert_eq!(timers.next_deadline(), None);
        }
    }

    #[test]
    fn order_is_that_of_time_across_the_turn() {
        let start = system_now();
        let mut timers = Timers::new(start);
        let now = start + TURN - Duration::from_millis(10);
        assert!(expired(&mut timers, now).is_empty());
        for (index, ms) in [(1, 40), (2, 4), (3, 15_000), (4, 8)] {
            timers.arm(index, &mut Armed::default(), now + Duration::from_millis(ms));
        }
        assert_eq!(expired(&mut timers, now + Duration::from_millis(20)), [2, 4]);
        assert_eq!(expired(&mut timers, now + TURN * 3), [1, 3]);
    }

    #[test]
    fn a_deadline_beyond_a_turn_comes_due_early_and_is_entered_again() {
        let start = system_now();
        let mut timers = Timers::new(start);
        let mut armed = Armed::default();
        let deadline = start + TURN * 2;
        let mut wake_ups = 0;
        timers.arm(0, &mut armed, deadline);
        let mut now = start;
        while now < deadline {
            now = timers.next_deadline().unwrap();
            let mut due = Vec::new();
            timers.expire(now, &mut due);
            assert_eq!(due.len(), 1);
            assert!(armed.take(due[0].tick));
            timers.arm(0, &mut armed, deadline);
            wake_ups += 1;
        }
        assert_eq!(wake_ups, 3);
    }

    #[test]
    fn an_acknowledgement_delay_again_and_again_leaves_one_far_entry() {
        let start = system_now();
        let mut timers = Timers::new(start);
        let mut armed = Armed::default();
        let mut now = start;
        for _ in 0..100 {
            timers.arm(7, &mut armed, now + Duration::from_secs(10));
            timers.arm(7, &mut armed, now + Duration::from_millis(25));
            now += Duration::from_millis(30);
            let mut due = Vec::new();
            timers.expire(now, &mut due);
            assert_eq!(due.len(), 1);
            assert!(armed.take(due[0].tick));
            assert!(!armed.take(due[0].tick));
        }
        let entries: usize = timers.buckets.iter().map(Vec::len).sum();
        assert_eq!(entries, 1);
    }

    #[test]
    fn what_many_took_that_came_due_together_is_given_back() {
        let start = system_now();
        let mut timers = Timers::new(start);
        for nth in 1..=100 {
            let deadline = start + TICK * (nth * 3);
            (0..1_000).for_each(|index| timers.arm(index, &mut Armed::default(), deadline));
            assert_eq!(expired(&mut timers, deadline + TICK).len(), 1_000);
        }
        let kept: usize = timers.buckets.iter().map(Vec::capacity).sum();
        assert!(kept <= 100 * BUCKET_KEPT, "room for {kept} entries");
    }

    #[test]
    fn a_later_deadline_makes_no_entry() {
        let start = system_now();
        let mut timers = Timers::new(start);
        let mut armed = Armed::default();
        timers.arm(1, &mut armed, start + Duration::from_millis(10));
        timers.arm(1, &mut armed, start + Duration::from_millis(500));
        assert_eq!(timers.buckets.iter().map(Vec::len).sum::<usize>(), 1);
    }
}
