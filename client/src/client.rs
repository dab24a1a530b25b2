//! The client: connecting, publishing, closing.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{Position, ShardId, UserId};
use carillon_protocol::kinds::MessageKind;
use carillon_protocol::publish::Published;
use carillon_protocol::session::Welcome;

use crate::config::Config;
use crate::driver;
use crate::error::{ConnectError, PublishError};
use crate::event::Events;
use crate::publish::{PublishHandle, To};
use crate::shared::{Handle, Shared};

/// One device's connection to the broker, kept up over reconnects. Cheap to clone; all clones are one client.
///
/// When the last clone and its [`Events`] are dropped, the client closes in the background.
#[derive(Clone)]
pub struct Client {
    pub(crate) handle: Arc<Handle>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.shared().config.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens the first session, and starts the task that keeps the client connected. Must be called inside a tokio runtime.
    ///
    /// An attempt that may go better next time is repeated as [`Config::reconnect`] says, by default for ever.
    ///
    /// # Errors
    /// What another attempt would not heal: the configuration, the roots, a name that does not resolve, a broker that does not
    /// prove who it is, a refused token, too many devices… `Unreachable` after the last attempt.
    ///
    /// # Cancel safety
    /// Cancel safe: what was begun is undone. The broker may have seen a session.
    pub async fn connect(config: Config) -> Result<(Self, Events), ConnectError> {
        driver::connect(config).await
    }

    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Who the token says this is.
    pub fn user(&self) -> UserId {
        self.welcome().user
    }

    /// What the broker said when the present session, or the last one, was opened.
    pub fn welcome(&self) -> Welcome {
        self.shared().welcome()
    }

    /// Publishes a message and waits until it is durable, over reconnects if need be, never twice.
    ///
    /// # Errors
    /// As [`PublishError`] says.
    ///
    /// # Cancel safety
    /// Cancelled before it was given its number, nothing happens; afterwards the message is published and only its result is
    /// lost. To tell the two apart use [`Client::enqueue`].
    pub async fn publish(
        &self,
        to: impl Into<To>,
        kind: MessageKind,
        payload: impl Into<Bytes>,
    ) -> Result<Published, PublishError> {
        self.enqueue(to, kind, payload).await?.await
    }

    /// Gives a message its number and puts it on its way, waiting while 1,024 publishes have no result; so many may be in
    /// flight: `let ack = client.enqueue(…).await?; …; ack.await`. Works without a connection too. Messages of one client are
    /// sequenced in the order they were enqueued, refused ones apart.
    ///
    /// # Errors
    /// `TooLarge`, `NoProducer`, `Reset` and `Closed`, at once.
    ///
    /// # Cancel safety
    /// Cancel safe: cancelled, nothing was enqueued.
    pub async fn enqueue(
        &self,
        to: impl Into<To>,
        kind: MessageKind,
        payload: impl Into<Bytes>,
    ) -> Result<PublishHandle, PublishError> {
        let payload = payload.into();
        if self.shared().config.producer.is_none() {
            return Err(PublishError::NoProducer);
        }
        let bytes_max = self.payload_bytes_max();
        if payload.len() > bytes_max {
            return Err(PublishError::TooLarge { bytes: payload.len(), bytes_max });
        }
        self.shared().publishes.enqueue(to.into(), kind, payload).await
    }

    /// Why the broker took no publishes when it last answered one: `BUSY`, or `NO_ROOM` if its disk is full. They are sent again, the later
    /// the more often they are refused; `None` once one of them has its result.
    pub fn held_back(&self) -> Option<ErrorCode> {
        self.shared().publishes.held_back()
    }

    pub(crate) fn payload_bytes_max(&self) -> usize {
        usize::try_from(self.welcome().payload_bytes_max).unwrap_or(usize::MAX)
    }

    /// The publishes that an earlier process left in the store without a result, for those who want to know what became of
    /// them; they are sent again whether they are asked for or not, unless the broker's journal is another than they are of:
    /// then they end with [`PublishError::Reset`], also for a client without a producer, which sends none; so do those that an
    /// earlier process let go of, if it ended before it was done with its [`Event::Reset`](crate::Event::Reset). Each is given once.
    pub fn recovered(&self) -> Vec<PublishHandle> {
        let recovered = std::mem::take(&mut self.shared().left().recovered);
        self.shared().resets.hear();
        recovered
    }

    /// Says that the application holds no id from before the last [`Event::Reset`](crate::Event::Reset), for one that takes no events, or wants to
    /// publish before it takes the next one: what names ids is accepted again. Ids are looked up before or after this alike.
    pub fn begin_anew(&self) {
        self.shared().resets.begin_anew();
    }

    /// Acknowledges everything in this shard up to `position`, as [`Events::ack`] does. Read updates have an acknowledgement of their own,
    /// [`Client::ack_receipts`]: who acknowledges positions alone is told at each connection what has moved since the first one.
    pub fn ack(&self, shard: ShardId, position: Position) {
        self.shared().cursors.ack(shard, position);
    }

    /// Acknowledges the read updates of this shard up to the `through` of one of them, as [`Events::ack`] does.
    pub fn ack_receipts(&self, shard: ShardId, through: Position) {
        self.shared().cursors.ack_receipts(shard, through);
    }

    /// Saves and sends the last acknowledgements, closes the connection in good order and waits until it is. Publishes and
    /// requests that have no result yet get `Closed`: await what matters first.
    ///
    /// # Cancel safety
    /// Cancelled, the client closes all the same.
    pub async fn close(&self) {
        self.shared().shut_down();
        self.shared().ended().await;
    }
}
