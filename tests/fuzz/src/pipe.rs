//! A connection that is no socket: what comes is there at once, what is sent is kept.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module. What comes is cut into reads of so many bytes, and then ends.
#[derive(Debug)]
pub(crate) struct Pipe {
    coming: Vec<u8>,
    at: usize,
    read_bytes_max: usize,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    /// The pipe, and what will have been sent.
    pub(crate) fn new(coming: Vec<u8>, read_bytes_max: usize) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let sent = Arc::new(Mutex::default());
        (Self { coming, at: 0, read_bytes_max: read_bytes_max.max(1), sent: sent.clone() }, sent)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = (self.coming.len() - self.at).min(self.read_bytes_max).min(buffer.remaining());
        buffer.put_slice(&self.coming[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a conversation to its end, on a runtime that is made once a thread.
pub(crate) fn converse<T>(conversation: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(conversation))
}
