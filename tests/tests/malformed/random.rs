//! Random bytes, from noise to frames with a bit turned. A seed is printed; `SEED=…` runs it again.

use std::ops::Range;

use carillon::clock::{Clock, SystemClock};
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_tests::raw::Closed;

use crate::pieces::{Pieces, assemble, header};
use crate::world::{On, STREAMS, World};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, range: Range<usize>) -> usize {
        range.start + usize::try_from(self.next() % range.len() as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn good(&mut self) -> Vec<u8> {
        Pieces::of(&Frame::SHAPES[self.below(0..Frame::SHAPES.len())]).bytes()
    }

    /// Noise of several colours: the closer to a frame, the deeper it gets.
    fn string(&mut self) -> Vec<u8> {
        match self.below(0..5) {
            0 => {
                let count = self.below(1..400);
                self.bytes(count)
            }
            1 => {
                let shape = &Frame::SHAPES[self.below(0..Frame::SHAPES.len())];
                let (body, tail) = (self.bytes(shape.body_bytes), self.below(0..40));
                assemble(shape.kind, &body, &self.bytes(tail))
            }
            2 => {
                let mut bytes = self.good();
                for _ in 0..self.below(1..8) {
                    let at = self.below(0..bytes.len());
                    bytes[at] ^= 1 << self.below(0..8);
                }
                bytes
            }
            3 => {
                let mut bytes: Vec<u8> = (0..self.below(1..12)).flat_map(|_| self.good()).collect();
                let (from, count) = (self.below(0..bytes.len()), self.below(0..9));
                let to = bytes.len().min(from + count);
                let put = self.below(0..9);
                bytes.splice(from..to, self.bytes(put));
                bytes
            }
            _ => {
                let follow = self.below(0..FRAME_BYTES_MAX);
                let body = self.below(0..300);
                let sent = self.below(0..follow.min(40_000) + 1);
                let kind = self.byte();
                [header(follow, kind, body), self.bytes(sent)].concat()
            }
        }
    }
}

/// What random bytes may end with. `INTERNAL` is not among them.
const ENDS: [ErrorCode; 6] = [
    ErrorCode::NONE,
    ErrorCode::MALFORMED,
    ErrorCode::FRAME_TOO_LARGE,
    ErrorCode::UNEXPECTED_FRAME,
    ErrorCode::ACK_INVALID,
    ErrorCode::RETIRED,
];

fn check_end(closed: &Closed, what: &str) {
    assert!(ENDS.contains(&closed.code), "{what}: {closed:?}");
    closed.check(closed.code, what);
}

const STRINGS: usize = 2_000;

#[test]
fn random_bytes_do_no_harm() {
    let seed = std::env::var("SEED").map_or_else(|_| SystemClock.wall().0, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let world = World::start();
    world.attack(STRINGS, |hello, nth| {
        let mut random = Random(seed.wrapping_add(nth as u64));
        let on = STREAMS[random.below(0..2)];
        let what = format!("string {nth} of SEED={seed} on {on:?}");
        let bytes = random.string();
        let mut session = world.dial.attach(hello).unwrap_or_else(|closed| panic!("before {what}: {closed:?}"));
        let stream = if on == On::Control { session.control } else { session.publish };
        session.raw.write(stream, bytes);
        session.raw.finish(stream);
        if on == On::Control {
            return check_end(&session.raw.closed(), &what);
        }
        // A publish stream may end between frames; then the session lives on, and its control stream ends it.
        session.raw.finish(session.control);
        check_end(&session.raw.closed(), &what);
    });
}
