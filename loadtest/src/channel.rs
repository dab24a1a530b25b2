//! One stream of a session: its decoder, and what could not be written yet.

use bytes::{Bytes, BytesMut};
use carillon_protocol::decoder::Decoder;
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_transport::{Link, Room, StreamClosed, StreamId};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Requests and their replies.
    Control,
    /// Publishes and their answers.
    Publish,
    /// A lane that has not said yet which it is.
    Opening,
    /// Messages.
    Inbox,
    /// DINGs.
    Urgent,
    /// A lane whose frames are not looked at: history, what a newer broker has.
    Unread,
}

/// A stream with its buffers.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) stream: StreamId,
    pub(crate) purpose: Purpose,
    pub(crate) decoder: Decoder,
    /// Empty unless the stream took less than it was given.
    out: Bytes,
}

impl Channel {
    pub(crate) fn new(stream: StreamId, purpose: Purpose) -> Self {
        Self { stream, purpose, decoder: Decoder::new(FRAME_BYTES_MAX), out: Bytes::new() }
    }

    /// Whether everything was taken: who sends much waits for this.
    pub(crate) fn is_clear(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes, and keeps what is not taken.
    pub(crate) fn send(&mut self, link: &mut impl Link, bytes: Bytes) -> Result<(), StreamClosed> {
        if self.out.is_empty() {
            self.out = bytes;
        } else {
            let mut both = BytesMut::with_capacity(self.out.len() + bytes.len());
            both.extend_from_slice(&self.out);
            both.extend_from_slice(&bytes);
            self.out = both.freeze();
        }
        self.flush(link)
    }

    /// Writes what was kept.
    pub(crate) fn flush(&mut self, link: &mut impl Link) -> Result<(), StreamClosed> {
        if !self.out.is_empty() {
            link.write(self.stream, &mut self.out, Room::Shared)?;
        }
        Ok(())
    }
}
