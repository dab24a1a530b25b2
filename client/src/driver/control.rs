//! The control stream: requests and replies, acknowledgements, the last word.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::control::UserLookup;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::frame::{Body, HEADER_BYTES};
use carillon_protocol::limits::REQUESTS_PENDING_MAX;
use quinn::SendStream;
use tokio::sync::{Notify, mpsc, oneshot};

use super::end::End;
use super::keeper;
use super::reader::FrameReader;
use crate::clock;
use crate::error::RequestError;
use crate::reply::{Answer, answer_of};
use crate::resets::Resets;
use crate::shared::{Call, Repeat, Shared};

type Waiter = oneshot::Sender<Result<Answer, RequestError>>;

/// A request that has its id, which it keeps over sessions.
#[derive(Debug)]
struct Numbered {
    id: u32,
    frame: Bytes,
    repeat: Repeat,
    names_ids_of: Option<u64>,
    answer: Waiter,
}

#[derive(Debug, Default)]
struct Requests {
    /// Sent and not answered, at most 16.
    waiting: BTreeMap<u32, Numbered>,
    /// To be sent again, at most 16: those of the last session.
    again: VecDeque<Numbered>,
    last_id: u32,
}

/// Requests without an answer. A std mutex: both users are in one task and hold it for a few instructions.
#[derive(Debug, Default)]
pub(super) struct Pending {
    requests: Mutex<Requests>,
    room: Notify,
}

impl Pending {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the next request to send. Cancel safe.
    async fn next(&self, calls: &mut mpsc::Receiver<Call>, resets: &Resets) -> Bytes {
        loop {
            if self.requests().waiting.len() >= REQUESTS_PENDING_MAX {
                self.room.notified().await;
                continue;
            }
            let again = self.requests().again.pop_front();
            let request = match again {
                Some(request) => request,
                None => match calls.recv().await {
                    Some(call) => self.number(call),
                    // The sender lives in `Shared`, so this is never.
                    None => std::future::pending().await,
                },
            };
            // Nobody waits for the answer, and nothing was sent yet.
            if request.answer.is_closed() {
                continue;
            }
            if request.names_ids_of.is_some_and(|begun| begun != resets.count()) {
                let _ = request.answer.send(Err(RequestError::Reset));
                continue;
            }
            let frame = request.frame.clone();
            self.requests().waiting.insert(request.id, request);
            return frame;
        }
    }

    fn number(&self, call: Call) -> Numbered {
        let mut requests = self.requests();
        let id = next_id(&mut requests);
        let Call { mut frame, repeat, names_ids_of, answer } = call;
        // `request` is the first field of every request's body.
        frame[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&id.to_le_bytes());
        Numbered { id, frame: frame.freeze(), repeat, names_ids_of, answer }
    }

    pub(super) fn answer(&self, id: u32, answer: Result<Answer, Error>) -> Result<(), End> {
        let Some(request) = self.requests().waiting.remove(&id) else {
            if let Err(error) = answer
                && id == 0
            {
                tracing::warn!(code = %error.code, text = %error.text, "the broker reports an error of the session");
                return Ok(());
            }
            return Err(End::Broken { code: ErrorCode::UNEXPECTED_FRAME, text: format!("reply to no request {id}") });
        };
        self.room.notify_one();
        let refused = |error: Error| RequestError::Refused { code: error.code, text: error.text.to_string() };
        // Whoever does not wait for the answer does not want it.
        let _ = request.answer.send(answer.map_err(refused));
        Ok(())
    }

    /// The session is over: what may be repeated will be, the rest is told that its outcome is not known.
    pub(super) fn interrupt(&self) {
        let mut requests = self.requests();
        for (_, request) in std::mem::take(&mut requests.waiting).into_iter().rev() {
            match request.repeat {
                Repeat::Harmless => requests.again.push_front(request),
                Repeat::Never => {
                    let _ = request.answer.send(Err(RequestError::Interrupted));
                }
            }
        }
    }
}

/// Ids rise and wrap; 0 and those in use are passed over.
fn next_id(requests: &mut Requests) -> u32 {
    loop {
        requests.last_id = requests.last_id.wrapping_add(1);
        let id = requests.last_id;
        if id != 0 && !requests.waiting.contains_key(&id) && requests.again.iter().all(|request| request.id != id) {
            return id;
        }
    }
}

/// Reads replies until the connection ends. `Goodbye`'s delay is left in `reconnect_after_ms`.
pub(super) async fn read(
    mut reader: FrameReader,
    pending: &Pending,
    reconnect_after_ms: &AtomicU32,
) -> Result<Infallible, End> {
    loop {
        match reader.next().await? {
            Frame::Goodbye(goodbye) => reconnect_after_ms.store(goodbye.reconnect_after_ms, Ordering::Relaxed),
            frame => match answer_of(frame) {
                Ok((id, answer)) => pending.answer(id, answer)?,
                Err(other) => return Err(End::unexpected(other.name(), "control")),
            },
        }
    }
}

/// Writes requests, acknowledgements and which DINGs have come until the client is asked to end.
pub(super) async fn write(
    mut stream: SendStream,
    pending: &Pending,
    calls: &mut mpsc::Receiver<Call>,
    shared: &Shared,
) -> Result<Infallible, End> {
    // What has no reply may still be on its way when the client is asked to end.
    let mut has_told = false;
    loop {
        // What is written is not cancelled half-way: the select waits only for what to write.
        let bytes = tokio::select! {
            biased;
            () = shared.shutting_down() => break,
            () = shared.cursors.due() => acks(shared),
            () = shared.ding_news.due.notified() => {
                has_told = true;
                received(shared)
            }
            frame = pending.next(calls, &shared.resets) => frame,
        };
        if !bytes.is_empty() {
            stream.write_chunk(bytes).await?;
        }
    }
    keeper::flush(shared).await.map_err(End::Store)?;
    let mut last = BytesMut::from(acks(shared));
    shared.ding_news.take_received(&mut last);
    if has_told || !last.is_empty() {
        stream.write_chunk(last.freeze()).await?;
        round_trip(stream, pending, shared).await?;
    }
    Err(End::Asked)
}

fn acks(shared: &Shared) -> Bytes {
    let mut frames = BytesMut::new();
    for ack in shared.cursors.unsent(clock::now()) {
        ack.encode(&mut frames);
    }
    frames.freeze()
}

/// Which DINGs this device has.
fn received(shared: &Shared) -> Bytes {
    let mut frames = BytesMut::new();
    shared.ding_news.take_received(&mut frames);
    frames.freeze()
}

/// Waits for the answer to a question about nothing: closing would drop what is still on its way, the stream may not be
/// finished, and when the answer comes the broker has read all before the question.
async fn round_trip(mut stream: SendStream, pending: &Pending, shared: &Shared) -> Result<(), End> {
    let (answer, answered) = oneshot::channel();
    let mut frame = BytesMut::new();
    UserLookup { request: 0, users: vec![shared.welcome().user] }.encode(&mut frame);
    let request = pending.number(Call { frame, repeat: Repeat::Harmless, names_ids_of: None, answer });
    let frame = request.frame.clone();
    pending.requests().waiting.insert(request.id, request);
    stream.write_chunk(frame).await?;
    // A refusal, `BUSY` say, is an answer too.
    let _ = answered.await;
    Ok(())
}
