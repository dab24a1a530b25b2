//! The incremental decoder: chunks of a stream in, frames out, no byte copied unless a frame straddles chunks.

use bytes::{Bytes, BytesMut};

use crate::frame::{FrameError, HEADER_BYTES, RawFrame, announced_bytes};

/// Cuts a stream of bytes into frames.
///
/// Holds at most one unfinished frame: `frame_bytes_max` bytes, plus the chunk last pushed, if every push is followed by
/// polls until `None`. Room grows with the bytes that have come, not with the length that a header announces. While it is
/// empty it holds no memory.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: usize,
    /// Received and not yet cut; never together with `partial`.
    chunk: Bytes,
    /// The beginning of a frame whose end is not here yet.
    partial: BytesMut,
}

impl Decoder {
    /// A decoder that refuses frames larger than `frame_bytes_max`, header included.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// Lets later frames be as large as this.
    pub fn raise_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = self.frame_bytes_max.max(frame_bytes_max);
    }

    /// Takes the next bytes of the stream. Call [`Decoder::poll_frame`] until it says `None` before the next push: what was
    /// not polled is copied and kept, without a bound.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = chunk;
        }
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// What is wrong with the header; the stream cannot be read on from there, and a later call says the same.
    pub fn poll_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if self.partial.is_empty() { self.poll_chunk() } else { self.poll_partial() }
    }

    /// Whether the stream may end here: no frame is unfinished.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.partial.is_empty()
    }

    fn poll_chunk(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if self.chunk.len() >= HEADER_BYTES {
            let need = self.check(announced_bytes(&self.chunk)?)?;
            if self.chunk.len() >= need {
                return RawFrame::new(self.chunk.split_to(need)).map(Some);
            }
        }
        if !self.chunk.is_empty() {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
        }
        Ok(None)
    }

    fn poll_partial(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if !self.fill_partial(HEADER_BYTES) {
            return Ok(None);
        }
        let need = self.check(announced_bytes(&self.partial)?)?;
        if !self.fill_partial(need) {
            return Ok(None);
        }
        // An emptied buffer is given away whole: what is left of its room would be kept for as long as the connection lives.
        let frame =
            if self.partial.len() == need { core::mem::take(&mut self.partial) } else { self.partial.split_to(need) };
        RawFrame::new(frame.freeze()).map(Some)
    }

    /// Moves bytes from the chunk until the partial frame has `need`; false if there are too few.
    fn fill_partial(&mut self, need: usize) -> bool {
        let missing = need.saturating_sub(self.partial.len()).min(self.chunk.len());
        if missing > 0 {
            self.partial.extend_from_slice(&self.chunk.split_to(missing));
        }
        self.partial.len() >= need
    }

    fn check(&self, bytes: usize) -> Result<usize, FrameError> {
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max: self.frame_bytes_max });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Done;
    use crate::frame::Body;
    use alloc::vec::Vec;

    fn check(chunk_bytes: usize, frames: u32) {
        let mut stream = BytesMut::new();
        for request in 0..frames {
            Done { request }.encode(&mut stream);
        }
        let stream = stream.freeze();
        let mut decoder = Decoder::new(64);
        let mut seen = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let end = (at + chunk_bytes).min(stream.len());
            decoder.push(stream.slice(at..end));
            at = end;
            while let Some(raw) = decoder.poll_frame().unwrap() {
                seen.push(Done::decode(&raw).unwrap().request);
            }
        }
        assert!(decoder.is_empty());
        assert_eq!(seen, (0..frames).collect::<Vec<_>>(), "chunks of {chunk_bytes}");
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        for chunk_bytes in 1..64 {
            check(chunk_bytes, 20);
        }
    }

    #[test]
    fn a_frame_inside_one_chunk_is_a_slice_of_it() {
        let stream = Done { request: 9 }.to_bytes();
        let mut decoder = Decoder::new(64);
        decoder.push(stream.clone());
        let raw = decoder.poll_frame().unwrap().unwrap();
        assert_eq!(raw.bytes.as_ptr(), stream.as_ptr());
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_header_alone() {
        let mut decoder = Decoder::new(1000);
        decoder.push(Bytes::from_static(&[0xe8, 0x03, 0, 0, 0x0f, 0, 4, 0]));
        assert_eq!(decoder.poll_frame(), Err(FrameError::TooLarge { bytes: 1008, bytes_max: 1000 }));
    }

    #[test]
    fn room_grows_with_the_bytes_that_have_come_and_is_given_back() {
        let payload_bytes = 60_000;
        let mut stream = BytesMut::new();
        crate::frame::begin_frame(&mut stream, 0xff, 0);
        stream.extend_from_slice(&alloc::vec![7; payload_bytes]);
        crate::frame::end_frame(&mut stream, 0);
        let mut stream = stream.freeze();
        let mut decoder = Decoder::new(stream.len());

        decoder.push(stream.split_to(HEADER_BYTES));
        assert_eq!(decoder.poll_frame(), Ok(None));
        assert!(decoder.partial.capacity() < 256, "{} bytes kept for a header", decoder.partial.capacity());

        while !stream.is_empty() {
            assert_eq!(decoder.poll_frame(), Ok(None));
            decoder.push(stream.split_to(stream.len().min(1_200)));
        }
        let raw = decoder.poll_frame().unwrap().unwrap();
        assert_eq!(raw.tail().len(), payload_bytes);
        assert_eq!((decoder.is_empty(), decoder.partial.capacity()), (true, 0));
    }

    #[test]
    fn after_an_error_every_poll_says_the_same() {
        for chunk_bytes in [1, 8] {
            let mut decoder = Decoder::new(1000);
            let mut bytes = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 4, 0]);
            while bytes.len() > chunk_bytes {
                decoder.push(bytes.split_to(chunk_bytes));
                assert_eq!(decoder.poll_frame(), Ok(None));
            }
            decoder.push(bytes);
            let error = decoder.poll_frame().unwrap_err();
            assert!(matches!(error, FrameError::TooLarge { bytes_max: 1000, .. }), "{error}");
            assert_eq!(decoder.poll_frame(), Err(error));
        }
    }
}
