//! What readers may ask the index, and why they may get no answer.

use carillon_protocol::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use thiserror::Error;

/// Where one message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number in its conversation.
    pub seq: Seq,
    /// Its record in the journal.
    pub position: Position,
    /// Who wrote it.
    pub author: UserId,
}

/// A message that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageAt {
    /// Its conversation.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// Its record in the journal.
    pub position: Position,
}

/// Why a lookup has no answer. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LookupError {
    /// Part of it lies in blocks on disk: ask [`Index::whole`](super::Index::whole), on a reader thread.
    #[error("the answer lies on disk")]
    OnDisk,
    /// Blocks are lost or damaged and are being rebuilt from the journal: ask again later.
    #[error("the index is being rebuilt")]
    Rebuilding,
}

/// Why the index cannot do without the journal's oldest records now. In memory the floors may have risen, which is as it should be: the same
/// may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TruncateError {
    /// The floors cannot be looked up.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// What is to go is not on disk, which has no room.
    #[error("the index has not brought them to its disk, which has no room")]
    Unwritten,
}

/// Read access to the messages above the floor, those that retention has not taken, and to the marks that passed them.
pub trait Lookup {
    /// Appends the positions in `(after, through]`, ascending, at most `limit`.
    ///
    /// # Errors
    /// [`LookupError`].
    fn positions(
        &self,
        conversation: ConversationId,
        after: Position,
        through: Position,
        limit: usize,
        out: &mut Vec<Position>,
    ) -> Result<(), LookupError>;

    /// The seq of the last message at or before a position, 0 if there is none; the floor's seq for all before the floor.
    ///
    /// # Errors
    /// [`LookupError`].
    fn rank(&self, conversation: ConversationId, position: Position) -> Result<Seq, LookupError>;

    /// Appends the places of the seqs from `from` on, ascending, at most `limit`. Those at or below the floor are absent.
    ///
    /// # Errors
    /// [`LookupError`].
    fn places(
        &self,
        conversation: ConversationId,
        from: Seq,
        limit: usize,
        out: &mut Vec<Place>,
    ) -> Result<(), LookupError>;

    /// When each of these users read a message: the time of the mark that passed it. 0 of who has not, of all once
    /// retention has taken the message, and where damage may have taken the mark.
    ///
    /// # Errors
    /// [`LookupError`].
    fn read_times(&self, message: &MessageAt, users: &[UserId]) -> Result<Vec<Timestamp>, LookupError>;
}
