//! A connection that is no socket: what comes is there at once, of what is sent the beginning is kept.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Longer than anybody waits for what does not come. The time passes at once: see [`converse`].
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What is kept of all that is sent: the first status lines. Answers are longer than their requests, and are not what a peer makes
/// the broker hold.
const SENT_KEPT_BYTES: usize = 256;

/// See the module. What comes is cut into reads of so many bytes, and then ends.
///
/// An answer waits for the first byte of what it answers: what comes before is no answer, and would end every conversation alike. A request
/// waits for its answer, before it ends: who hangs up gets none, and nothing behind the parser would be reached.
#[derive(Debug)]
pub(crate) struct Pipe {
    coming: Vec<u8>,
    at: usize,
    read_bytes_max: usize,
    is_answer: bool,
    waits: Option<Waker>,
    /// Bytes sent.
    sent_bytes: usize,
    /// Those when the last byte was read.
    sent_before: usize,
    /// When it ends all the same.
    hangs_up: Option<Pin<Box<Sleep>>>,
    /// The first of them.
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    /// The pipe, and the beginning of what will have been sent.
    pub(crate) fn new(coming: Vec<u8>, read_bytes_max: usize) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let sent = Arc::new(Mutex::default());
        let pipe = Self {
            coming,
            at: 0,
            read_bytes_max: read_bytes_max.max(1),
            is_answer: false,
            waits: None,
            sent_bytes: 0,
            sent_before: 0,
            hangs_up: None,
            sent: sent.clone(),
        };
        (pipe, sent)
    }

    /// As [`Pipe::new`], of what comes as an answer.
    pub(crate) fn answering(coming: Vec<u8>, read_bytes_max: usize) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let (pipe, sent) = Self::new(coming, read_bytes_max);
        (Self { is_answer: true, ..pipe }, sent)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_answer && self.sent_bytes == 0 {
            self.waits = Some(context.waker().clone());
            return Poll::Pending;
        }
        if self.at == self.coming.len() && !self.is_answer && self.sent_bytes == self.sent_before {
            self.waits = Some(context.waker().clone());
            let hangs_up = self.hangs_up.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
            ready!(hangs_up.as_mut().poll(context));
            return Poll::Ready(Ok(()));
        }
        let count = (self.coming.len() - self.at).min(self.read_bytes_max).min(buffer.remaining());
        buffer.put_slice(&self.coming[self.at..self.at + count]);
        self.at += count;
        if count > 0 {
            self.sent_before = self.sent_bytes;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent_bytes += bytes.len();
        let mut sent = self.sent.lock().unwrap();
        let kept = bytes.len().min(SENT_KEPT_BYTES - sent.len());
        sent.extend_from_slice(&bytes[..kept]);
        drop(sent);
        if let Some(waits) = self.waits.take() {
            waits.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a conversation to its end, on a runtime that is made once a thread. While all wait for a time, it passes at once.
pub(crate) fn converse<T>(conversation: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(conversation))
}
