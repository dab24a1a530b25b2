//! Bodies, read whole.

use std::error::Error;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use thiserror::Error;

/// Why a body is not had whole.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    /// It is longer than what is read of it.
    #[error("it has more than {0} bytes")]
    TooLong(usize),
    /// The connection broke, or what came on it is no HTTP.
    #[error("it broke off: {0}")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}

/// Reads a body of at most so many bytes to its end, and copies it together. A piece, as it comes from a connection, is part of the buffer
/// that was there to be read into, and keeps all of it in memory: kept, the pieces of 16 KiB that came a byte at a time held 66 MiB.
///
/// # Errors
/// [`BodyError`].
///
/// # Cancel safety
/// Dropped, the connection is as broken as one whose other side is gone.
pub(crate) async fn whole<B>(body: B, bytes_max: usize) -> Result<Vec<u8>, BodyError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.into()))?;
        // Trailers mean nothing here.
        let Ok(piece) = frame.into_data() else { continue };
        if piece.len() > bytes_max - whole.len() {
            return Err(BodyError::TooLong(bytes_max));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use axum::http::HeaderMap;
    use hyper::body::Frame;

    use super::*;

    /// A buffer of which one byte came.
    struct Buffer([u8; 1], #[expect(dead_code, reason = "it is counted")] Arc<()>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    /// So many bytes, one a piece, and trailers.
    struct Trickle {
        left: usize,
        buffers: Arc<()>,
    }

    impl Trickle {
        fn new(left: usize) -> Self {
            Self { left, buffers: Arc::default() }
        }
    }

    impl Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            assert_eq!(Arc::strong_count(&self.buffers), 1, "a piece was kept");
            let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
            self.left = left;
            let piece = Bytes::from_owner(Buffer([b'x'], self.buffers.clone()));
            Poll::Ready(Some(Ok(if left == 0 { Frame::trailers(HeaderMap::new()) } else { Frame::data(piece) })))
        }
    }

    #[tokio::test]
    async fn no_piece_is_kept() {
        assert_eq!(whole(Trickle::new(1_001), 1_000).await.unwrap(), [b'x'; 1_000]);
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_read_to_its_end() {
        let mut body = Trickle::new(1_002);
        let error = whole(&mut body, 10).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLong(10)), "{error}");
        assert_eq!(body.left, 1_002 - 11);
    }
}
