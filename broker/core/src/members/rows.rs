//! Members of one chunk as rows of bytes: what all of them have in common is kept once.
//!
//! A row has nine columns, each as wide in a chunk as its widest value needs, 0 to 8 bytes: nothing at all where all values are 0.
//! Who it is and where the last stint began are kept less the least of them in the chunk; the other columns are less what the
//! stint began with, so that they are 0 until the member reads, writes or leaves. A company that was added a thousand
//! members at a time takes four bytes a member for that; one whose members came and read one by one, some 18.
//!
//! A value that does not fit makes the chunk's rows anew, a few microseconds for 512 of them. That is seldom: widths only grow
//! while nobody leaves the chunk, and the room of a wider column is left on the side on which the value came.
//!
//! A column is unpacked when it is asked for ([`Row`]), and what publishes and marks change is packed alone.
//!
//! Invariants: the bytes are those of `len` rows and eight more, or none if a row has none; users ascend.

use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Seq, UserId};
use carillon_protocol::kinds::Role;
use core::cmp::Ordering;

use super::columns::{
    BASED, COLUMNS, JOINED_POSITION, JOINED_SEQ, LEFT_POSITION, LEFT_SEQ, Latest, Layout, MARKED_AT, NEWEST_OWN,
    READ_UP_TO, ROLE, USER, Values, margin, mask, values_of, width_of,
};
use crate::effect::Moment;
use crate::membership::Stint;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    joined: Moment,
    user: UserId,
    len: u16,
    layout: Layout,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len.into()
    }

    /// No user is lower.
    pub(super) fn least(&self) -> UserId {
        self.user
    }

    /// A row to look at.
    pub(super) fn row(&self, at: usize) -> Row<'_> {
        Row { rows: self, bytes: &self.bytes[at * self.layout.row_bytes()..] }
    }

    /// The row of a user, or where it would be.
    pub(super) fn find(&self, user: UserId) -> Result<usize, usize> {
        let Some(wanted) = user.0.checked_sub(self.user.0) else { return Err(0) };
        let row_bytes = self.layout.row_bytes();
        // Each user is one more than the one before it, or more: none is further behind than this. Most of a large conversation are
        // numbered one after the other, and are found here at once.
        let (mut from, mut to) = (0, self.len().min(wanted as usize + 1));
        let mut at = to.wrapping_sub(1);
        while from < to {
            let found = self.layout.load(&self.bytes[at * row_bytes..], USER);
            match found.cmp(&wanted.into()) {
                Ordering::Equal => return Ok(at),
                Ordering::Less => from = at + 1,
                Ordering::Greater => to = at,
            }
            at = usize::midpoint(from, to);
        }
        Err(from)
    }

    /// Changes what is in the row of a user.
    pub(super) fn write(&mut self, at: usize, user: UserId, latest: &Latest) {
        let values = values_of(user, latest);
        self.make_room(&values);
        self.store(at, &values);
    }

    /// As [`Rows::write`], only the newest message.
    pub(super) fn set_newest_own(&mut self, at: usize, newest_own: Seq) {
        self.set(at, [(NEWEST_OWN, newest_own.0)]);
    }

    /// As [`Rows::write`], only how far and where the user has read.
    pub(super) fn set_mark(&mut self, at: usize, Moment { seq, position }: Moment) {
        let joined = self.row(at).joined();
        let (read_up_to, marked_at) = (seq.0.wrapping_sub(joined.seq.0), position.0.wrapping_sub(joined.position.0));
        self.set(at, [(READ_UP_TO, read_up_to), (MARKED_AT, marked_at)]);
    }

    /// Changes some of the columns that have no base.
    fn set<const N: usize>(&mut self, at: usize, changes: [(usize, u64); N]) {
        if changes.iter().any(|&(column, value)| value > self.layout.greatest(column)) {
            let mut values = self.row(at).values();
            changes.iter().for_each(|&(column, value)| values[column] = value);
            self.make_room(&values);
        }
        let from = at * self.layout.row_bytes();
        for (column, value) in changes {
            self.layout.store(&mut self.bytes[from..], column, value);
        }
    }

    /// Adds a row, before which the users must be lower, and behind which they must be higher.
    pub(super) fn insert(&mut self, at: usize, user: UserId, latest: &Latest) {
        let values = values_of(user, latest);
        if self.len == 0 {
            (self.user, self.joined) = (user, latest.stint.joined);
        }
        self.make_room(&values);
        let row_bytes = self.layout.row_bytes();
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
        let row_bytes = self.layout.row_bytes();
        self.bytes.drain(at * row_bytes..(at + 1) * row_bytes);
        self.len -= 1;
    }

    /// Keeps the rows before this one; returns the others. Both are as narrow as they may be.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let values = self.rows();
        let (lower, upper) = values.split_at(at);
        *self = Self::of(lower);
        Self::of(upper)
    }

    /// Gives back what was kept for more rows.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// What is added to a column.
    fn base(&self, column: usize) -> u64 {
        match column {
            USER => self.user.0.into(),
            JOINED_POSITION => self.joined.position.0,
            JOINED_SEQ => self.joined.seq.0,
            _ => 0,
        }
    }

    fn rows(&self) -> Vec<Values> {
        (0..self.len()).map(|at| self.row(at).values()).collect()
    }

    /// Packs the values of a row, which fit.
    fn store(&mut self, at: usize, values: &Values) {
        let from = at * self.layout.row_bytes();
        for (column, value) in values.iter().enumerate() {
            if self.layout.greatest(column) > 0 {
                let value = value - self.base(column);
                self.layout.store(&mut self.bytes[from..], column, value);
            }
        }
    }

    /// Sees to it that a row of these values fits.
    fn make_room(&mut self, values: &Values) {
        let fits = |(column, value): (usize, &u64)| {
            value.checked_sub(self.base(column)).is_some_and(|value| value <= self.layout.greatest(column))
        };
        if !values.iter().enumerate().all(fits) {
            let bases = core::array::from_fn(|column| self.base(column));
            *self = Self::with_room(&self.rows(), Some((values, bases)));
        }
    }

    fn of(rows: &[Values]) -> Self {
        Self::with_room(rows, None)
    }

    /// Of these rows, with room for one more, which did not fit where these were the bases. One row at least.
    ///
    /// A base is not lower than before unless the value is: other chunks hold the users below this one's.
    fn with_room(rows: &[Values], more: Option<(&Values, [u64; BASED])>) -> Self {
        let (mut rows_made, mut bases, mut widths) = (Self::default(), [u64::MAX; BASED], [0; COLUMNS]);
        let mut greatest = [0; COLUMNS];
        for values in rows.iter().chain(more.map(|(more, _)| more)) {
            greatest = core::array::from_fn(|column| values[column].max(greatest[column]));
            bases = core::array::from_fn(|column| values[column].min(bases[column]));
        }
        for (column, greatest) in greatest.into_iter().enumerate() {
            widths[column] = width_of(greatest - bases.get(column).copied().unwrap_or(0));
            // Who comes before all others is followed by one who comes before it, likely.
            if column < BASED && more.is_some_and(|(more, bases)| more[column] < bases[column]) {
                bases[column] = greatest.saturating_sub(mask(widths[column].into()));
            }
        }
        rows_made.user = UserId(u32::try_from(bases[USER]).expect("not above the least of them"));
        rows_made.joined = Moment { position: Position(bases[JOINED_POSITION]), seq: Seq(bases[JOINED_SEQ]) };
        rows_made.layout = Layout::of(widths);
        let row_bytes = rows_made.layout.row_bytes();
        rows_made.bytes.reserve_exact((rows.len() + more.iter().len()) * row_bytes + margin(row_bytes));
        rows_made.bytes.resize(rows.len() * row_bytes + margin(row_bytes), 0);
        for (at, values) in rows.iter().enumerate() {
            rows_made.len += 1;
            rows_made.store(at, values);
        }
        rows_made
    }
}

/// One row, to look at: a column is unpacked when it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    rows: &'a Rows,
    /// From where it begins.
    bytes: &'a [u8],
}

impl Row<'_> {
    fn value(&self, column: usize) -> u64 {
        self.rows.base(column) + self.rows.layout.load(self.bytes, column)
    }

    fn values(&self) -> Values {
        let Self { rows, .. } = self;
        core::array::from_fn(
            |column| {
                if rows.layout.greatest(column) > 0 { self.value(column) } else { rows.base(column) }
            },
        )
    }

    pub(crate) fn user(&self) -> UserId {
        UserId(u32::try_from(self.value(USER)).expect("it was one"))
    }

    /// The role now, or last.
    pub(crate) fn role(&self) -> Role {
        Role(u8::try_from(self.value(ROLE)).expect("it was one") ^ Role::MEMBER.0)
    }

    /// The newest message that the user wrote as a member, 0 without one.
    pub(crate) fn newest_own(&self) -> Seq {
        Seq(self.value(NEWEST_OWN))
    }

    /// Where the last stint began.
    pub(crate) fn joined(&self) -> Moment {
        Moment { seq: Seq(self.value(JOINED_SEQ)), position: Position(self.value(JOINED_POSITION)) }
    }

    /// Where the last stint ended, if it has.
    pub(crate) fn left(&self) -> Option<Moment> {
        if self.is_present() {
            return None;
        }
        let Moment { seq, position } = self.joined();
        let seq = Seq(seq.0.wrapping_add(self.value(LEFT_SEQ)));
        Some(Moment { seq, position: Position(position.0.wrapping_add(self.value(LEFT_POSITION))) })
    }

    /// Whether the last stint covers the message with this seq.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        let joined = self.joined().seq;
        joined < seq && (self.is_present() || seq.0 <= joined.0.wrapping_add(self.value(LEFT_SEQ)))
    }

    /// Whether the last stint goes on.
    pub(crate) fn is_present(&self) -> bool {
        self.value(LEFT_POSITION) == 0
    }

    /// The last stint.
    pub(crate) fn stint(&self) -> Stint {
        let Moment { seq, position } = self.joined();
        let mut stint = Stint::begin(seq, position);
        stint.read_up_to = self.read_up_to();
        stint.marked_at = self.marked_at();
        if let Some(left) = self.left() {
            stint.end(left);
        }
        stint
    }

    /// Up to where the user has read in the last stint.
    pub(crate) fn read_up_to(&self) -> Seq {
        Seq(self.value(JOINED_SEQ).wrapping_add(self.value(READ_UP_TO)))
    }

    /// The position of the last mark of the last stint, 0 without one.
    pub(crate) fn marked_at(&self) -> Position {
        match self.value(MARKED_AT) {
            0 => Position(0),
            marked => Position(self.value(JOINED_POSITION).wrapping_add(marked)),
        }
    }

    pub(crate) fn latest(&self) -> Latest {
        Latest { role: self.role(), newest_own: self.newest_own(), stint: self.stint() }
    }
}
