//! Frames from a stream.

use carillon_protocol::Frame;
use carillon_protocol::decoder::Decoder;
use carillon_protocol::frame::FrameError;
use carillon_protocol::limits::FRAME_BYTES_MAX;
use quinn::RecvStream;

use super::end::End;
use crate::limits::READ_BYTES_MAX;

/// Reads one stream, frame by frame.
pub(super) struct FrameReader {
    stream: RecvStream,
    decoder: Decoder,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::new(FRAME_BYTES_MAX) }
    }

    /// The next frame. Streams end with their session only, so an end is an error.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes that came are kept.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            match self.stream.read_chunk(READ_BYTES_MAX, true).await? {
                Some(chunk) => self.decoder.push(chunk.bytes),
                None if self.decoder.is_empty() => return Err(End::Lost("the broker ended a stream".to_owned())),
                None => return Err(FrameError::Short { have: 0, need: 1 }.into()),
            }
        }
    }

    /// The next frame, if it is here.
    pub(super) fn buffered(&mut self) -> Result<Option<Frame>, FrameError> {
        self.decoder.poll_frame()?.map(|raw| Frame::decode(&raw)).transpose()
    }

    /// Reads on without looking at what comes.
    pub(super) async fn pass_over(mut self) -> Result<(), End> {
        while self.stream.read_chunk(READ_BYTES_MAX, true).await?.is_some() {}
        Ok(())
    }
}
