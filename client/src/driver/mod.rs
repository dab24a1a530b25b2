//! The driver: the one task of a client. It owns the connection, opens another when it is lost, and has one way out.
//!
//! A session is a set of endless futures, one for each direction of each stream, that run in this task until the first of them ends;
//! the others are then dropped. What must survive that lies in `Shared` and in the driver.

mod control;
mod dial;
mod end;
mod keeper;
mod lanes;
#[cfg(feature = "probe")]
pub(crate) mod probe;
mod publishing;
mod reader;
mod shown;
mod signals;
mod token;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Incarnation;
use carillon_protocol::session::{Cursor, Welcome};
use tokio::sync::mpsc;

use self::control::Pending;
use self::dial::{Dialer, Link};
use self::end::{Attempt, End, judge_end};
use self::lanes::{Lanes, Outlets};
use crate::client::Client;
use crate::config::{Config, Start, TokenSource};
use crate::cursors::Cursors;
use crate::error::ConnectError;
use crate::event::{Event, Events};
use crate::limits::{CLOSE_TIMEOUT_MS, NOTICES_QUEUED_MAX, SESSION_SETTLED_MS, SIGNALS_QUEUED_MAX};
use crate::publish::{PublishHandle, Publishes};
use crate::resets::Resets;
use crate::shared::{Call, Handle, Left, Shared};
use crate::store::Saved;
use crate::{clock, random};

/// Opens the first session and starts the driver.
pub(crate) async fn connect(config: Config) -> Result<(Client, Events), ConnectError> {
    config.check()?;
    let roots = config.roots.clone();
    let dialer = tokio::task::spawn_blocking(move || Dialer::new(&roots)).await;
    let dialer = dialer.map_err(|error| ConnectError::Config(error.to_string()))??;
    let saved = match &config.store {
        Some(store) => keeper::blocking(store, |store| store.load()).await.map_err(ConnectError::Store)?,
        None => Saved::default(),
    };
    let limits = config.limits;
    let (calls_in, calls) = mpsc::channel(limits.requests_queued);
    let shared = share(config, saved, calls_in);
    let (urgent_in, urgent) = mpsc::channel(limits.urgent_queued);
    let (notices_in, notices) = mpsc::channel(NOTICES_QUEUED_MAX);
    let (inbox_in, inbox) = mpsc::channel(limits.events_queued);
    let (signals_in, signals) = mpsc::channel(SIGNALS_QUEUED_MAX);
    let mut driver = Driver {
        shared: Arc::clone(&shared),
        dialer,
        outlets: Outlets::new([urgent_in, notices_in, inbox_in, signals_in]),
        calls,
        pending: Pending::default(),
        reconnect_after_ms: AtomicU32::new(0),
        short_sessions: 0,
        failure: None,
    };
    let link = driver.dial(true).await?;
    tokio::spawn(driver.run(link));
    let handle = Arc::new(Handle { shared });
    Ok((Client::new(Arc::clone(&handle)), Events::new(handle, [urgent, notices, inbox, signals])))
}

/// What handles and driver share, from what was saved.
fn share(config: Config, mut saved: Saved, calls: mpsc::Sender<Call>) -> Arc<Shared> {
    let resets = Arc::new(Resets::default());
    let void = saved.reset_due.take();
    if void.is_some() {
        resets.keep();
    }
    let cursors = match &config.start {
        // The application has them together with its ids, so it knows this journal; or the broker refuses them.
        Start::From(cursors) if is_own(cursors) => Cursors::new(cursors.clone(), &saved.cursors),
        _ if void.is_some() => {
            resets.begin();
            Cursors::anew(&saved.cursors)
        }
        Start::FromStore => Cursors::new(saved.cursors.clone(), &saved.cursors),
        Start::Beginning | Start::From(_) => Cursors::new(Vec::new(), &saved.cursors),
    };
    let unsent = if config.producer.is_none() { std::mem::take(&mut saved.unsettled) } else { Vec::new() };
    let unsent = unsent.into_iter().map(|publish| publish.number).collect();
    let unsettled_max = config.limits.publishes_unsettled;
    let (publishes, handles) = Publishes::new(saved, unsettled_max, config.store.is_some(), Arc::clone(&resets));
    let mut recovered: Vec<_> = void.into_iter().flatten().map(PublishHandle::void).collect();
    recovered.extend(handles);
    Arc::new(Shared::new(config, publishes, cursors, resets, calls, Left { recovered, unsent }))
}

/// Whether an application has made something of these cursors.
fn is_own(cursors: &[Cursor]) -> bool {
    cursors.iter().any(|cursor| cursor.incarnation != Incarnation(0))
}

struct Driver {
    shared: Arc<Shared>,
    dialer: Dialer,
    outlets: Outlets,
    calls: mpsc::Receiver<Call>,
    pending: Pending,
    /// What the last `Goodbye` asked for.
    reconnect_after_ms: AtomicU32,
    /// Sessions in a row that ended soon: they count for the back-off, as failed attempts do.
    short_sessions: u32,
    /// Why the driver ends, if nobody asked for it.
    failure: Option<ConnectError>,
}

/// The one way out, whether the driver is done, was cancelled while it connected, or panicked.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.publishes.close();
        // Requests that wait get `Closed` when `pending` and `calls` are dropped, after this.
        self.shared.end(self.failure.take());
    }
}

impl Driver {
    async fn run(mut self, link: Link) {
        let shared = Arc::clone(&self.shared);
        let failure = tokio::select! {
            failure = self.keep_connected(link) => failure,
            error = keeper::run(&shared) => Some(ConnectError::Store(error)),
        };
        if let Some(failure) = &failure {
            tracing::error!(%failure, "the client ends");
        } else if let Err(error) = keeper::flush(&shared).await {
            // Nothing to save, unless the client was closed without a connection.
            tracing::error!(%error, "the last acknowledgements were not saved");
        }
        self.failure = failure;
    }

    /// One session after the other, until the client is closed or ends by itself.
    async fn keep_connected(&mut self, mut link: Link) -> Option<ConnectError> {
        let shared = Arc::clone(&self.shared);
        loop {
            let began = clock::now();
            let end = self.session(link).await;
            if matches!(end, End::Asked) {
                return None;
            }
            let lived = began.elapsed() >= Duration::from_millis(SESSION_SETTLED_MS);
            self.short_sessions = if lived { 0 } else { self.short_sessions.saturating_add(1) };
            if let Err(failure) = self.after(end).await {
                return Some(failure);
            }
            let dialled = tokio::select! {
                () = shared.shutting_down() => return None,
                dialled = self.dial(false) => dialled,
            };
            link = match dialled {
                Ok(link) => link,
                Err(failure) => return Some(failure),
            };
        }
    }

    /// Says that the session is over, or fails if there will be no other.
    async fn after(&mut self, end: End) -> Result<(), ConnectError> {
        self.pending.interrupt();
        let reason = end.disconnect();
        tracing::info!(%reason, "the session is over");
        if matches!(end, End::Closed { code: ErrorCode::CURSOR_INVALID, .. }) {
            self.reset().await?;
        } else {
            judge_end(end, false, matches!(self.shared.config.token, TokenSource::Fixed(_)))?;
        }
        self.outlets.notice(Event::Disconnected { reason });
        Ok(())
    }

    /// Attempts until there is a session. Delays come before attempts, except before the very first.
    async fn dial(&mut self, first: bool) -> Result<Link, ConnectError> {
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        // What an application made of its own cursors must go before they do.
        let may_reset = !first || !matches!(&config.start, Start::From(cursors) if is_own(cursors));
        let mut failed = 0u32;
        let mut at_once = first;
        loop {
            if !at_once {
                self.back_off(failed).await;
            }
            at_once = false;
            let hello = shared.cursors.hello();
            let attempt = match self.dialer.dial(config, &hello).await {
                Ok(link) => match self.begin(link, &hello).await? {
                    Ok(link) => return Ok(link),
                    Err(attempt) => attempt,
                },
                Err(attempt) => attempt,
            };
            if attempt.is_of_another_history() && !hello.is_empty() && may_reset {
                self.reset().await?;
                at_once = true;
                continue;
            }
            let cause = attempt.judge(first, &config.address, &config.token)?;
            failed = failed.saturating_add(1);
            tracing::warn!(%cause, failed, "no session");
            if config.reconnect.attempts_max.is_some_and(|attempts_max| failed >= attempts_max) {
                return Err(ConnectError::Unreachable { attempts: failed, cause });
            }
        }
    }

    /// Begins a session that was welcomed, if it is of the history that this client is of. The broker has looked at the cursors of
    /// `hello` for that; this is the second look, and the first for publishes of a store whose cursors are not used.
    async fn begin(&self, link: Link, hello: &[Cursor]) -> Result<Result<Link, Attempt>, ConnectError> {
        let shared = &self.shared;
        let Welcome { shard, incarnation, head, producer_highest, .. } = link.welcome;
        if !shared.cursors.welcome(shard, incarnation, head, hello) {
            dial::close(&link.connection, &End::Asked);
            return Ok(Err(Attempt::of_another_history()));
        }
        if !shared.publishes.bind(shard, incarnation) {
            keeper::end_publishes(shared).await.map_err(ConnectError::Store)?;
            shared.publishes.bind(shard, incarnation);
        }
        // The store knows of which history publishes are before it has any.
        keeper::flush(shared).await.map_err(ConnectError::Store)?;
        // Before anybody can enqueue: a first publish gets the number after the highest.
        shared.publishes.begin_session(producer_highest);
        shared.ding_news.begin_session();
        shared.set_welcome(link.welcome.clone());
        Ok(Ok(link))
    }

    async fn back_off(&self, failed: u32) {
        let in_a_row = failed.saturating_add(self.short_sessions.saturating_sub(1));
        let delay_ms = self.shared.config.reconnect.delay_ms(in_a_row, random::fraction());
        let asked_ms = u64::from(self.reconnect_after_ms.swap(0, Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(delay_ms.max(asked_ms))).await;
    }

    /// Forgets cursors, publishes and everything that names ids; the application will be told. In this order: from the first line on
    /// nothing is accepted that the second could miss.
    async fn reset(&self) -> Result<(), ConnectError> {
        tracing::warn!("the broker's journal is another than this client is of: starting anew");
        self.shared.resets.begin();
        self.shared.signals.forget();
        self.shared.ding_news.forget();
        self.outlets.forget_shown();
        keeper::reset(&self.shared).await.map_err(ConnectError::Store)
    }

    /// Lives one session to its end, and closes its connection.
    async fn session(&mut self, link: Link) -> End {
        let Link { endpoint, connection, control, publish, welcome, token } = link;
        let Self { shared, outlets, calls, pending, reconnect_after_ms, .. } = self;
        let shared: &Shared = shared;
        tracing::info!(user = %welcome.user, head = %welcome.head, "the session is open");
        outlets.notice(Event::Connected(welcome.clone()));
        let lanes = Lanes::new(&connection, outlets, shared, pending, &welcome);
        let (control_send, control_recv) = control;
        let (publish_send, publish_recv) = publish.unzip();
        let ended = tokio::try_join!(
            control::read(control_recv, pending, reconnect_after_ms),
            control::write(control_send, pending, calls, shared),
            if_any(publish_recv, |reader| publishing::read(reader, shared)),
            if_any(publish_send, |stream| publishing::write(stream, shared)),
            lanes.say_reset(),
            lanes.say_over(),
            lanes.run(),
            lanes.run(),
            lanes.run(),
            lanes.run(),
            signals::write(&connection, shared),
            signals::read(&connection, outlets, shared),
            shared.renew_watches(),
            token::keep_fresh(shared, token, &welcome),
            close_in_time(shared),
        );
        let Err(end) = ended;
        dial::close(&connection, &end);
        drop(connection);
        if matches!(end, End::Asked) {
            // The close frame is on its way when the endpoint is idle; waiting longer than this helps nobody.
            let limit = Duration::from_millis(CLOSE_TIMEOUT_MS);
            let _ = tokio::time::timeout(limit, endpoint.wait_idle()).await;
        }
        end
    }
}

/// Runs what a stream needs, or nothing for ever without the stream.
async fn if_any<S, F: Future<Output = Result<Infallible, End>>>(
    stream: Option<S>,
    run: impl FnOnce(S) -> F,
) -> Result<Infallible, End> {
    match stream {
        Some(stream) => run(stream).await,
        None => std::future::pending().await,
    }
}

/// The last acknowledgements must not hold up the end of the client for ever.
async fn close_in_time(shared: &Shared) -> Result<Infallible, End> {
    shared.shutting_down().await;
    tokio::time::sleep(Duration::from_millis(CLOSE_TIMEOUT_MS)).await;
    Err(End::Asked)
}
