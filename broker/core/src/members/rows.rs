//! Members of one chunk as rows of bytes: what all of them have in common is kept once.
//!
//! A row has nine columns, each as wide in a chunk as its widest value needs, 0 to 8 bytes: nothing at all where all values are 0.
//! Who it is and where the last stint began are kept less the least of them in the chunk; the other columns are less what the
//! stint began with, so that they are 0 until the member reads, writes or leaves. A company that was added a thousand
//! members at a time takes four bytes a member for that; one whose members came and read one by one, some 18.
//!
//! A value that does not fit makes the chunk's rows anew, a few microseconds for 512 of them. That is seldom: widths only grow,
//! and the room of a wider column is left on the side on which the value came.
//!
//! A column is read by the eight bytes from where it begins, less those of the columns behind it, so that nothing is done byte by byte;
//! eight bytes behind the last row allow it.
//!
//! Invariants: `row_bytes` is the sum of the widths; the bytes are those of `len` rows and eight more, or none if a row has none.

use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Seq, UserId};
use carillon_protocol::kinds::Role;

use crate::effect::Moment;
use crate::membership::Stint;

/// What every member has: its last stint, the role now or last, and the newest message that it wrote as a member, 0 without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    pub(crate) role: Role,
    pub(crate) newest_own: Seq,
    pub(crate) stint: Stint,
}

const COLUMNS: usize = 9;

/// One row's: user, where it joined, position and seq; then what is 0 for most, the likelier first: where and how far it has read, newest
/// message, where it left, position and seq, role.
type Values = [u64; COLUMNS];

/// The columns that are kept less the least of them.
const BASED: usize = 3;

/// Bytes behind the last row.
const MARGIN: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    joined: Moment,
    user: UserId,
    len: u16,
    widths: Widths,
}

/// How wide each column is, in four bits each, and their sum above them.
#[derive(Clone, Copy, Debug, Default)]
struct Widths(u64);

impl Widths {
    const WIDTH_BITS: usize = 4;
    const SUM_SHIFT: usize = Self::WIDTH_BITS * COLUMNS;

    fn of(widths: [u8; COLUMNS]) -> Self {
        let shifts = (0..Self::SUM_SHIFT).step_by(Self::WIDTH_BITS);
        let bits: u64 = widths.iter().zip(shifts).map(|(width, shift)| u64::from(*width) << shift).sum();
        let sum: u64 = widths.iter().map(|width| u64::from(*width)).sum();
        Self(bits | sum << Self::SUM_SHIFT)
    }

    /// Of each column, from the first to the last that has any.
    fn columns(self) -> impl Iterator<Item = usize> {
        let mut left = self.0 & ((1 << Self::SUM_SHIFT) - 1);
        core::iter::from_fn(move || {
            let width = left & 0xf;
            let any_left = left > 0;
            left >>= Self::WIDTH_BITS;
            any_left.then_some(width as usize)
        })
    }

    fn first(self) -> usize {
        (self.0 & 0xf) as usize
    }

    fn sum(self) -> usize {
        (self.0 >> Self::SUM_SHIFT) as usize
    }
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len.into()
    }

    /// No user is lower.
    pub(super) fn least(&self) -> UserId {
        self.user
    }

    /// The user of a row.
    pub(super) fn user(&self, at: usize) -> UserId {
        let least = u64::from(self.user.0);
        let value = least + load(&self.bytes, at * self.row_bytes(), self.widths.first());
        UserId(u32::try_from(value).expect("it was one"))
    }

    /// The row of a user, or where it would be.
    pub(super) fn find(&self, user: UserId) -> Result<usize, usize> {
        let (row_bytes, width) = (self.row_bytes(), self.widths.first());
        let Some(wanted) = user.0.checked_sub(self.user.0).map(u64::from) else { return Err(0) };
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            let found = load(&self.bytes, middle * row_bytes, width);
            if found == wanted {
                return Ok(middle);
            }
            if found < wanted { from = middle + 1 } else { to = middle }
        }
        Err(from)
    }

    /// What is in a row.
    pub(super) fn read(&self, at: usize) -> (UserId, Latest) {
        latest_of(&self.values(at))
    }

    /// Changes what is in the row of a user.
    pub(super) fn write(&mut self, at: usize, user: UserId, latest: &Latest) {
        let values = values_of(user, latest);
        self.make_room(&values);
        self.store(at, &values);
    }

    /// Adds a row, before which the users must be lower, and behind which they must be higher.
    pub(super) fn insert(&mut self, at: usize, user: UserId, latest: &Latest) {
        let values = values_of(user, latest);
        if self.len == 0 {
            (self.user, self.joined) = (user, latest.stint.joined);
        }
        self.make_room(&values);
        let row_bytes = self.row_bytes();
        let end = self.bytes.len().max(margin(row_bytes));
        if self.bytes.capacity() < end + row_bytes {
            // A quarter more: a chunk that is full has few bytes too many, and is not copied for each member.
            self.bytes.reserve_exact(row_bytes.max(end / 4) + end - self.bytes.len());
        }
        self.bytes.resize(end + row_bytes, 0);
        self.bytes.copy_within(at * row_bytes..end, (at + 1) * row_bytes);
        self.len += 1;
        self.store(at, &values);
    }

    pub(super) fn remove(&mut self, at: usize) {
        let row_bytes = self.row_bytes();
        self.bytes.drain(at * row_bytes..(at + 1) * row_bytes);
        self.len -= 1;
    }

    /// Keeps the rows before this one; returns the others. Both are as narrow as they may be.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let values: Vec<_> = (0..self.len()).map(|at| self.values(at)).collect();
        let (lower, upper) = values.split_at(at);
        *self = Self::of(lower);
        Self::of(upper)
    }

    /// Gives back what was kept for more rows.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    fn row_bytes(&self) -> usize {
        self.widths.sum()
    }

    /// What is added to the columns, which is 0 for most.
    fn bases(&self) -> Values {
        [self.user.0.into(), self.joined.position.0, self.joined.seq.0, 0, 0, 0, 0, 0, 0]
    }

    fn values(&self, at: usize) -> Values {
        let (mut values, mut from) = (self.bases(), at * self.row_bytes());
        for (value, width) in values.iter_mut().zip(self.widths.columns()) {
            *value += load(&self.bytes, from, width);
            from += width;
        }
        values
    }

    fn store(&mut self, at: usize, values: &Values) {
        let bases = self.bases();
        let (bytes, mut from) = (&mut self.bytes[..], at * self.widths.sum());
        let end = from + self.widths.sum();
        let Some(behind) = eight_mut(bytes, end).copied() else { return };
        for ((value, base), width) in values.iter().zip(bases).zip(self.widths.columns()) {
            // Each column over what was too much of the one before it, and over none that is read again.
            if let Some(eight) = eight_mut(bytes, from) {
                *eight = (value - base).to_le_bytes();
            }
            from += width;
        }
        if let Some(eight) = eight_mut(bytes, end) {
            *eight = behind;
        }
    }

    /// Sees to it that a row of these values fits.
    fn make_room(&mut self, values: &Values) {
        let widths = self.widths.columns().chain(core::iter::repeat(0));
        let mut columns = values.iter().zip(self.bases()).zip(widths);
        if columns.all(|((value, base), width)| *value >= base && value - base <= mask(width)) {
            return;
        }
        let rows: Vec<_> = (0..self.len()).map(|at| self.values(at)).collect();
        *self = Self::with_room(&rows, Some((values, self.bases())));
    }

    fn of(rows: &[Values]) -> Self {
        Self::with_room(rows, None)
    }

    /// Of these rows, with room for one more, which did not fit where these were the bases.
    ///
    /// A base is not lower than before unless the value is: other chunks hold the users below this one's.
    fn with_room(rows: &[Values], more: Option<(&Values, Values)>) -> Self {
        let (mut rows_made, mut bases, mut widths) = (Self::default(), [0; BASED], [0; COLUMNS]);
        for column in 0..COLUMNS {
            let values = || rows.iter().map(|row| row[column]);
            let added = more.map(|(more, _)| more[column]);
            let least = values().chain(added).min().unwrap_or_default();
            let greatest = values().chain(added).max().unwrap_or_default();
            let base = if column < BASED { least } else { 0 };
            let width = width_of(greatest - base);
            widths[column] = width;
            if column < BASED {
                // Who comes before all others is followed by one who comes before it, likely.
                let before = more.is_some_and(|(more, bases)| more[column] < bases[column]);
                bases[column] = if before { greatest.saturating_sub(mask(width.into())) } else { base };
            }
        }
        rows_made.user = UserId(u32::try_from(bases[0]).expect("not above the least of them"));
        rows_made.joined = Moment { position: Position(bases[1]), seq: Seq(bases[2]) };
        rows_made.widths = Widths::of(widths);
        let row_bytes = rows_made.row_bytes();
        rows_made.bytes.reserve_exact((rows.len() + more.iter().len()) * row_bytes + margin(row_bytes));
        rows_made.bytes.resize(rows.len() * row_bytes + margin(row_bytes), 0);
        for (at, values) in rows.iter().enumerate() {
            rows_made.len += 1;
            rows_made.store(at, values);
        }
        rows_made
    }
}

/// Bytes that the value needs.
fn width_of(value: u64) -> u8 {
    let bits = u64::BITS - value.leading_zeros();
    u8::try_from(bits.div_ceil(8)).expect("8 at most")
}

/// The greatest value of so many bytes.
const fn mask(width: usize) -> u64 {
    const MASKS: [u64; 9] =
        [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff, 0xff_ffff_ffff, 0xffff_ffff_ffff, 0xff_ffff_ffff_ffff, u64::MAX];
    MASKS[width]
}

/// Bytes behind rows that have any.
const fn margin(row_bytes: usize) -> usize {
    if row_bytes == 0 { 0 } else { MARGIN }
}

/// `None` where rows have no bytes.
fn eight_mut(bytes: &mut [u8], at: usize) -> Option<&mut [u8; MARGIN]> {
    bytes.get_mut(at..)?.first_chunk_mut()
}

/// The value of a column; 0 where rows have no bytes.
fn load(bytes: &[u8], at: usize, width: usize) -> u64 {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map_or(0, |eight| u64::from_le_bytes(*eight)) & mask(width)
}

fn values_of(user: UserId, latest: &Latest) -> Values {
    let Latest { role, newest_own, stint } = *latest;
    let Moment { seq, position } = stint.joined;
    // What is before the stint, in bytes that are not a state, wraps around: nothing is lost here, and it is judged elsewhere.
    let after = |at: Position| if at == Position(0) { 0 } else { at.0.wrapping_sub(position.0) };
    let left = stint.left();
    [
        user.0.into(),
        position.0,
        seq.0,
        after(stint.marked_at),
        stint.read_up_to.0.wrapping_sub(seq.0),
        newest_own.0,
        left.map_or(0, |left| after(left.position)),
        left.map_or(0, |left| left.seq.0.wrapping_sub(seq.0)),
        (role.0 ^ Role::MEMBER.0).into(),
    ]
}

fn latest_of(values: &Values) -> (UserId, Latest) {
    let [user, position, seq, marked, read, newest_own, left_position, left_seq, role] = *values;
    let user = UserId(u32::try_from(user).expect("it was one"));
    let role = Role(u8::try_from(role).expect("it was one") ^ Role::MEMBER.0);
    let mut stint = Stint::begin(Seq(seq), Position(position));
    stint.read_up_to = Seq(seq.wrapping_add(read));
    if marked > 0 {
        stint.marked_at = Position(position.wrapping_add(marked));
    }
    if left_position > 0 {
        let (seq, position) = (seq.wrapping_add(left_seq), position.wrapping_add(left_position));
        stint.end(Moment { seq: Seq(seq), position: Position(position) });
    }
    (user, Latest { role, newest_own: Seq(newest_own), stint })
}
