//! Whether the journal may grow: what those are told who make it do so.

use std::io;

/// How much the journal can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// As much as comes.
    #[default]
    Enough,
    /// Its disk has no room for another segment, or less than configured. It lives on what is prepared and what little is free:
    /// what makes it grow is to be refused, what people wait for goes on.
    Reserve,
    /// Half of the reserve is used as well: only what must not be lost may be committed. When that is used up, the journal ends.
    Last,
}

impl Room {
    /// A word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enough => "enough",
            Self::Reserve => "reserve",
            Self::Last => "last",
        }
    }
}

/// Whether it is room that an operation lacked, which somebody can free.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
