//! The Rust SDK of Carillon, a real-time messaging broker.
//!
//! A [`Client`] is one device of one user: it keeps a QUIC connection to the broker, publishes, asks, and gives [`Events`].
//! When the connection is lost it opens another one: publishes without a result are repeated under their own numbers,
//! so that none is accepted twice, and reading goes on from the acknowledged position, so that each message is given once and in order.
//!
//! ```no_run
//! use carillon_client::{Client, Config, Event, FileStore, MessageKind, NewConversation, Roots};
//! use std::sync::Arc;
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new("broker.example:4433", token)
//!     .roots(Roots::File("ca.pem".into()))
//!     .store(Arc::new(FileStore::open("state")?));
//! let (client, mut events) = Client::connect(config).await?;
//!
//! let friend = client.find_user("k-4711").await?;
//! let group = client.create_conversation(NewConversation::group([friend])).await?.conversation;
//! let published = client.publish(group, MessageKind::TEXT, "hello").await?;
//! assert_eq!(published.conversation, group);
//!
//! while let Some(event) = events.next().await {
//!     match &event {
//!         Event::Message(message) => client.mark_read(message.conversation, message.seq).await.map(drop)?,
//!         Event::Ding(ding) => client.confirm(ding.ding).await.map(drop)?,
//!         _ => {}
//!     }
//!     events.ack(&event);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Once** is what the application sees if it keeps the cursor together with what it made of the messages: in one transaction, and
//! given back by [`Start::From`]. With a [`Store`] the cursor follows the acknowledgement by up to 200 ms, so after a
//! crash of the process the last messages come again.
//!
//! **Restored.** When the broker serves a journal that was restored from a backup, ids given out since then may belong to others. The
//! SDK then ends every publish without a result with [`PublishError::Reset`], gives [`Event::Reset`], and accepts nothing that
//! names an id until the application asks for the next event, or calls [`Client::begin_anew`].
//!
//! **Bounded.** Every queue has a limit, in [`Limits`]; while events are not taken, the broker waits, and DINGs and replies keep coming.
//!
//! **One task** a client owns the connection. It ends with [`Client::close`], or when the client's clones and its events are dropped.

mod client;
mod clock;
mod config;
mod conversations;
mod cursors;
mod ding;
mod driver;
mod error;
mod event;
mod history;
mod limits;
#[cfg(feature = "probe")]
pub mod probe;
mod publish;
mod random;
mod reply;
mod requests;
mod resets;
mod sessions;
mod shared;
mod signals;
mod store;

pub use carillon_protocol as protocol;
pub use carillon_protocol::control::{ConversationCreated, MemberEntry, Members, MembershipChanged};
pub use carillon_protocol::ding::{DingCreated, DingPush, DingStep};
pub use carillon_protocol::ding_status::{
    DingAttempt, DingEntry, DingProgress, DingStatusReply, DingSummary, DingUpdate, Dings, STEP_REMINDER, USER_NONE,
};
pub use carillon_protocol::error::ErrorCode;
pub use carillon_protocol::ids::{
    ConversationId, DeviceId, DingId, Incarnation, Position, ProducerId, Seq, ShardId, Timestamp, UserId,
};
pub use carillon_protocol::kinds::{
    AttemptState, CancelState, Change, ConversationKind, DingState, Direction, HistoryPolicy, MessageKind, Outlet,
    PostPolicy, QuietHours, ReadState, ReceiptPolicy, Role, SignalKind, StatusList,
};
pub use carillon_protocol::presence::Signalled;
pub use carillon_protocol::publish::Published;
pub use carillon_protocol::receipt::{ReadCountsEntry, ReadCountsUpdate, ReadEntry, ReadStatusReply, ReadUpdate};
pub use carillon_protocol::session::{Cursor, Progress, Skipped, Truncated, Welcome};

pub use client::Client;
pub use config::{Config, Limits, Reconnect, Roots, Start, TokenSource};
pub use conversations::{Conversation, NewConversation};
pub use ding::{Ding, DingStates, Recipients, Starts, Step};
pub use error::{Cause, ConnectError, Disconnect, PublishError, RequestError};
pub use event::{Event, Events, Membership, Message};
pub use history::Page;
pub use publish::{PublishHandle, To};
pub use requests::ReadCounts;
pub use sessions::Session;
pub use store::{FileStore, Identity, MemoryStore, Saved, Store, Unsettled};
