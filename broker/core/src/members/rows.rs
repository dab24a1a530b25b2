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
//! Invariant: there are `len` rows of the sum of the widths.

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

/// One row's: user, joined at seq and position; then what is 0 for most: role, left at seq and position, read up to, marked at,
/// newest message.
type Values = [u64; COLUMNS];

/// The columns that are kept less the least of them.
const BASED: usize = 3;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    joined: Moment,
    user: UserId,
    len: u16,
    widths: [u8; COLUMNS],
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len.into()
    }

    /// The user of a row.
    pub(super) fn user(&self, at: usize) -> UserId {
        let least = u64::from(self.user.0);
        let value = least + load(&self.bytes, at * self.row_bytes(), self.widths[0].into());
        UserId(u32::try_from(value).expect("it was one"))
    }

    /// The row of a user, or where it would be.
    pub(super) fn find(&self, user: UserId) -> Result<usize, usize> {
        let (row_bytes, width) = (self.row_bytes(), usize::from(self.widths[0]));
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

    /// Changes what is in a row.
    pub(super) fn write(&mut self, at: usize, latest: &Latest) {
        let values = values_of(self.user(at), latest);
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
        let (end, row_bytes) = (self.bytes.len(), self.row_bytes());
        if self.bytes.capacity() - end < row_bytes {
            // A quarter more: a chunk that is full has few bytes too many, and is not copied for each member.
            self.bytes.reserve_exact(row_bytes.max(end / 4));
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
        *self = Self::of(lower, None);
        Self::of(upper, None)
    }

    /// Gives back what was kept for more rows.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    fn row_bytes(&self) -> usize {
        self.widths.iter().map(|width| usize::from(*width)).sum()
    }

    fn bases(&self) -> [u64; BASED] {
        [self.user.0.into(), self.joined.seq.0, self.joined.position.0]
    }

    fn values(&self, at: usize) -> Values {
        let mut from = at * self.row_bytes();
        let mut values = self.widths.map(|width| {
            let value = load(&self.bytes, from, width.into());
            from += usize::from(width);
            value
        });
        for (value, base) in values.iter_mut().zip(self.bases()) {
            *value += base;
        }
        values
    }

    fn store(&mut self, at: usize, values: &Values) {
        let mut from = at * self.row_bytes();
        let bases = self.bases().into_iter().chain(core::iter::repeat(0));
        for ((value, base), width) in values.iter().zip(bases).zip(self.widths) {
            let to = from + usize::from(width);
            self.bytes[from..to].copy_from_slice(&(value - base).to_le_bytes()[..width.into()]);
            from = to;
        }
    }

    /// Sees to it that a row of these values fits.
    fn make_room(&mut self, values: &Values) {
        let bases = self.bases().into_iter().chain(core::iter::repeat(0));
        let mut columns = values.iter().zip(bases).zip(self.widths);
        if columns.all(|((value, base), width)| *value >= base && width_of(value - base) <= width) {
            return;
        }
        let rows: Vec<_> = (0..self.len()).map(|at| self.values(at)).collect();
        *self = Self::of(&rows, Some(values));
    }

    /// Of these rows, with room for one more.
    fn of(rows: &[Values], more: Option<&Values>) -> Self {
        let mut rows_made = Self::default();
        let mut bases = [0; BASED];
        for column in 0..COLUMNS {
            let values = || rows.iter().map(|row| row[column]);
            let added = more.map(|more| more[column]);
            let least = values().chain(added).min().unwrap_or_default();
            let greatest = values().chain(added).max().unwrap_or_default();
            let base = if column < BASED { least } else { 0 };
            let width = width_of(greatest - base);
            rows_made.widths[column] = width;
            if column < BASED {
                // Who comes before all others is followed by one who comes before it, likely.
                let before = added.is_some_and(|added| values().min().is_some_and(|least| added < least));
                bases[column] = if before { greatest.saturating_sub(mask(width.into())) } else { base };
            }
        }
        rows_made.user = UserId(u32::try_from(bases[0]).expect("not above the least of them"));
        rows_made.joined = Moment { seq: Seq(bases[1]), position: Position(bases[2]) };
        let row_bytes = rows_made.row_bytes();
        rows_made.bytes.reserve_exact((rows.len() + more.iter().len()) * row_bytes);
        rows_made.bytes.resize(rows.len() * row_bytes, 0);
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
    if width == 0 { 0 } else { u64::MAX >> (64 - 8 * width) }
}

fn load(bytes: &[u8], at: usize, width: usize) -> u64 {
    // Eight bytes at once where there are as many, less those of the columns behind.
    if let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        return u64::from_le_bytes(*eight) & mask(width);
    }
    let mut eight = [0; 8];
    eight[..width].copy_from_slice(&bytes[at..at + width]);
    u64::from_le_bytes(eight)
}

fn values_of(user: UserId, latest: &Latest) -> Values {
    let Latest { role, newest_own, stint } = *latest;
    let Moment { seq, position } = stint.joined;
    // What is before the stint, in bytes that are not a state, wraps around: nothing is lost here, and it is judged elsewhere.
    let after = |at: Position| if at == Position(0) { 0 } else { at.0.wrapping_sub(position.0) };
    let left = stint.left();
    [
        user.0.into(),
        seq.0,
        position.0,
        (role.0 ^ Role::MEMBER.0).into(),
        left.map_or(0, |left| left.seq.0.wrapping_sub(seq.0)),
        left.map_or(0, |left| after(left.position)),
        stint.read_up_to.0.wrapping_sub(seq.0),
        after(stint.marked_at),
        newest_own.0,
    ]
}

fn latest_of(values: &Values) -> (UserId, Latest) {
    let [user, seq, position, role, left_seq, left_position, read, marked, newest_own] = *values;
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
