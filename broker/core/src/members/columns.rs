//! What the columns of a row are, where each lies in it, and how a value gets in and out.
//!
//! A column is read and changed in the eight bytes from where it begins, so that nothing is done byte by byte; eight bytes behind the last
//! row allow it.

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

/// Who it is and where it joined; then what is 0 for most, the likelier first.
pub(super) const USER: usize = 0;
pub(super) const JOINED_POSITION: usize = 1;
pub(super) const JOINED_SEQ: usize = 2;
pub(super) const MARKED_AT: usize = 3;
pub(super) const READ_UP_TO: usize = 4;
pub(super) const NEWEST_OWN: usize = 5;
pub(super) const LEFT_POSITION: usize = 6;
pub(super) const LEFT_SEQ: usize = 7;
pub(super) const ROLE: usize = 8;
pub(super) const COLUMNS: usize = 9;

/// The first columns, which are kept less the least of them.
pub(super) const BASED: usize = 3;

/// One row's, as they are kept but for the least of the first ones, which is in them here.
pub(super) type Values = [u64; COLUMNS];

/// Bytes behind the last row.
const MARGIN: usize = 8;

/// Bytes behind rows of so many bytes.
pub(super) const fn margin(row_bytes: usize) -> usize {
    if row_bytes == 0 { 0 } else { MARGIN }
}

/// Where each column of a row ends. It begins where the one before it does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout([u8; COLUMNS]);

impl Layout {
    /// Of columns of so many bytes, 8 at most each.
    pub(super) fn of(widths: [u8; COLUMNS]) -> Self {
        let mut end = 0;
        Self(widths.map(|width| {
            end += width;
            end
        }))
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.0[COLUMNS - 1].into()
    }

    fn begin(&self, column: usize) -> usize {
        if column == 0 { 0 } else { self.0[column - 1].into() }
    }

    /// The greatest value of a column.
    pub(super) fn greatest(&self, column: usize) -> u64 {
        mask(usize::from(self.0[column]) - self.begin(column))
    }

    /// The value of a column in the row with which these bytes begin; 0 where rows have no bytes.
    pub(super) fn load(&self, bytes: &[u8], column: usize) -> u64 {
        let begin = self.begin(column);
        let eight = bytes.get(begin..begin + MARGIN).and_then(|bytes| bytes.first_chunk());
        eight.map_or(0, |eight| u64::from_le_bytes(*eight)) & self.greatest(column)
    }

    /// Changes the value of a column, which fits, in the row with which these bytes begin.
    pub(super) fn store(&self, bytes: &mut [u8], column: usize, value: u64) {
        let (begin, mask) = (self.begin(column), self.greatest(column));
        let eight = bytes.get_mut(begin..begin + MARGIN).and_then(|bytes| bytes.first_chunk_mut());
        let Some(eight) = eight else { return };
        *eight = (u64::from_le_bytes(*eight) & !mask | value).to_le_bytes();
    }
}

/// Bytes that the value needs.
pub(super) fn width_of(value: u64) -> u8 {
    let bits = u64::BITS - value.leading_zeros();
    u8::try_from(bits.div_ceil(8)).expect("8 at most")
}

/// The greatest value of so many bytes, 8 at most.
pub(super) const fn mask(width: usize) -> u64 {
    /// As many as four bits tell apart: to look one up is no branch.
    const MASKS: [u64; 16] = {
        let mut masks = [u64::MAX; 16];
        let mut width = 0;
        while width < 8 {
            masks[width] = (1 << (8 * width)) - 1;
            width += 1;
        }
        masks
    };
    MASKS[width & 0xf]
}

/// What a row keeps of a member.
pub(super) fn values_of(user: UserId, latest: &Latest) -> Values {
    let Latest { role, newest_own, stint } = *latest;
    let Moment { seq, position } = stint.joined;
    // What is before the stint, in bytes that are not a state, wraps around: it comes out as it went in, and is judged elsewhere.
    let after = |at: Position| if at == Position(0) { 0 } else { at.0.wrapping_sub(position.0) };
    let left = stint.left();
    let mut values = [0; COLUMNS];
    values[USER] = user.0.into();
    values[JOINED_POSITION] = position.0;
    values[JOINED_SEQ] = seq.0;
    values[MARKED_AT] = after(stint.marked_at);
    values[READ_UP_TO] = stint.read_up_to.0.wrapping_sub(seq.0);
    values[NEWEST_OWN] = newest_own.0;
    values[LEFT_POSITION] = left.map_or(0, |left| after(left.position));
    values[LEFT_SEQ] = left.map_or(0, |left| left.seq.0.wrapping_sub(seq.0));
    values[ROLE] = (role.0 ^ Role::MEMBER.0).into();
    values
}
