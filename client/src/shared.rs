//! What the handles and the driver of one client share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::session::Welcome;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::cursors::Cursors;
use crate::ding::DingNews;
use crate::error::{ConnectError, RequestError};
use crate::publish::{PublishHandle, Publishes};
use crate::reply::{Answer, Reply};
use crate::resets::Resets;
use crate::signals::Signals;

/// Whether a request may be sent again when its connection was lost before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Doing it twice is doing it once.
    Harmless,
    /// It could be done twice.
    Never,
}

/// A request on its way to the session.
#[derive(Debug)]
pub(crate) struct Call {
    /// The frame, its request id still 0.
    pub(crate) frame: BytesMut,
    pub(crate) repeat: Repeat,
    /// How many resets there were when it was asked, if it names ids.
    pub(crate) names_ids_of: Option<u64>,
    pub(crate) answer: oneshot::Sender<Result<Answer, RequestError>>,
}

/// What an earlier process left in the store.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What the application may ask for.
    pub(crate) recovered: Vec<PublishHandle>,
    /// Numbers of publishes that a client without a producer leaves there.
    pub(crate) unsent: Vec<u64>,
}

impl Left {
    /// The store has let go of what was left there.
    pub(crate) fn let_go(&mut self) {
        self.recovered.extend(self.unsent.drain(..).map(PublishHandle::void));
    }
}

/// Owned by the handles and the driver together; the std mutexes are held for one assignment each.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) publishes: Publishes,
    pub(crate) cursors: Cursors,
    pub(crate) resets: Arc<Resets>,
    pub(crate) signals: Signals,
    pub(crate) ding_news: DingNews,
    pub(crate) calls: mpsc::Sender<Call>,
    left: Mutex<Left>,
    /// Held while cursors and publishes are saved, and while all are let go of; a tokio mutex, because saving waits for a thread that blocks.
    pub(crate) saving: Arc<tokio::sync::Mutex<()>>,
    /// The last session's, and when it came.
    welcome: Mutex<Option<(Welcome, Instant)>>,
    failure: Mutex<Option<ConnectError>>,
    shutdown: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        publishes: Publishes,
        cursors: Cursors,
        resets: Arc<Resets>,
        calls: mpsc::Sender<Call>,
        left: Left,
    ) -> Self {
        Self {
            config,
            publishes,
            cursors,
            resets,
            signals: Signals::default(),
            ding_news: DingNews::default(),
            calls,
            left: Mutex::new(left),
            saving: Arc::default(),
            welcome: Mutex::default(),
            failure: Mutex::default(),
            shutdown: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        }
    }

    /// What an earlier process left.
    pub(crate) fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last session's welcome.
    pub(crate) fn welcome(&self) -> Welcome {
        let welcome = self.welcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (welcome, _) = welcome.as_ref().expect("a client is made after its first welcome");
        welcome.clone()
    }

    /// Now, by the broker's clock as it was when the last session was opened.
    pub(crate) fn broker_time(&self) -> Timestamp {
        let welcome = self.welcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (welcome, came) = welcome.as_ref().expect("a client is made after its first welcome");
        let since_ms = u64::try_from(came.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(welcome.time.0.saturating_add(since_ms))
    }

    pub(crate) fn set_welcome(&self, welcome: Welcome) {
        *self.welcome.lock().unwrap_or_else(PoisonError::into_inner) = Some((welcome, clock::now()));
    }

    /// Sends a request that names ids and waits for its answer. It fails if they are of another history.
    pub(crate) async fn call<R: Reply>(&self, request: &impl Body, repeat: Repeat) -> Result<R, RequestError> {
        let begun = self.resets.count();
        if self.resets.voids(begun) {
            return Err(RequestError::Reset);
        }
        self.send(request, repeat, Some(begun)).await
    }

    /// Sends a request that names no ids, and so means the same in every history, and waits for its answer.
    pub(crate) async fn look_up<R: Reply>(&self, request: &impl Body) -> Result<R, RequestError> {
        self.send(request, Repeat::Harmless, None).await
    }

    async fn send<R: Reply>(
        &self,
        request: &impl Body,
        repeat: Repeat,
        names_ids_of: Option<u64>,
    ) -> Result<R, RequestError> {
        let mut frame = BytesMut::new();
        request.encode(&mut frame);
        if frame.len() > FRAME_BYTES_MAX {
            return Err(RequestError::TooLarge { what: "frame", have: frame.len(), max: FRAME_BYTES_MAX });
        }
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { frame, repeat, names_ids_of, answer }).await.map_err(|_| RequestError::Closed)?;
        let answer = answered.await.map_err(|_| RequestError::Closed)??;
        let frame = answer.name();
        R::from_answer(answer).ok_or(RequestError::UnexpectedReply { frame })
    }

    /// Asks the driver to end.
    pub(crate) fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// Waits for [`Shared::shut_down`]. Cancel safe.
    pub(crate) async fn shutting_down(&self) {
        // The sender is a field of self, so it is not gone while this waits.
        let _ = self.shutdown.subscribe().wait_for(|asked| *asked).await;
    }

    /// The driver has ended; with a failure if nobody asked for it.
    pub(crate) fn end(&self, failure: Option<ConnectError>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        self.ended.send_replace(true);
    }

    /// Waits for [`Shared::end`]. Cancel safe.
    pub(crate) async fn ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Why the driver ended, once.
    pub(crate) fn take_failure(&self) -> Option<ConnectError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What `Client` and `Events` hold: when the last is dropped the driver ends.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.shut_down();
    }
}
