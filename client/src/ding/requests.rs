//! Requests about DINGs.

use std::convert::Infallible;
use std::time::Duration;

use carillon_protocol::ding::{DingConfirm, DingConfirmed, DingCreated, DingRecall, DingRemind, DingReminded};
use carillon_protocol::ding_status::{
    DingAttempt, DingAttemptList, DingAttempts, DingList, DingStatus, DingStatusReply, DingWatch, Dings,
};
use carillon_protocol::error::{Done, ErrorCode};
use carillon_protocol::ids::{DingId, Timestamp, UserId};
use carillon_protocol::kinds::Outlet;
use carillon_protocol::limits::PAGE_ENTRIES_MAX;

use super::{Ding, DingStates};
use crate::client::Client;
use crate::error::RequestError;
use crate::limits::WATCH_RETRY_MS;
use crate::random;
use crate::requests::check_size;
use crate::shared::{Repeat, Shared};

/// Requests about DINGs. All but [`Client::remind_ding`] may be done twice without harm, so they are repeated over reconnects until there is
/// an answer.
///
/// # Cancel safety
/// All requests: cancelled, the request may be done or not; only the answer is lost.
impl Client {
    /// Sends a DING. It gets its key here, so that it is one DING however often the connection is lost.
    ///
    /// # Errors
    /// `TooLarge` before anything is sent; `Refused` with `RATE_LIMITED` when the sender or the tenant has sent too many within a minute;
    /// else as [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests; called again, it is another DING.
    pub async fn ding(&self, ding: Ding) -> Result<DingCreated, RequestError> {
        check_size("payload", ding.payload.len(), self.payload_bytes_max())?;
        let request = ding.into_request(random::nonzero_u64(), self.shared().broker_time())?;
        self.shared().call(&request, Repeat::Harmless).await
    }

    /// Confirms a DING; returns when this user first did.
    ///
    /// # Errors
    /// `Refused` with `DING_OVER` when it had expired or was recalled before.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn confirm(&self, ding: DingId) -> Result<Timestamp, RequestError> {
        let confirmed: DingConfirmed = self.shared().call(&DingConfirm { request: 0, ding }, Repeat::Harmless).await?;
        Ok(confirmed.time)
    }

    /// Takes a DING back: of one's own or, for admins and services, of anybody. Of one that is over already it changes nothing.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn recall_ding(&self, ding: DingId) -> Result<(), RequestError> {
        self.done(DingRecall { request: 0, ding }).await
    }

    /// Reminds those who have not confirmed, now, by this outlet; returns how many that are. For the sender, admins and services.
    ///
    /// # Errors
    /// `Refused` with `DING_OVER` when nothing is left to confirm. `Interrupted` when the connection was lost before the answer: they may be
    /// reminded or not, and a repeat could remind them twice.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn remind_ding(&self, ding: DingId, outlet: Outlet) -> Result<u32, RequestError> {
        let request = DingRemind { request: 0, ding, outlet };
        let reminded: DingReminded = self.shared().call(&request, Repeat::Never).await?;
        Ok(reminded.recipients)
    }

    /// Where a DING stands, for its sender, admins and services: the whole, its plan, and one page of the recipients in these states, from this
    /// user id on, at most `limit` ≤ 1,000. The reply's `next` is where the next page starts, `u32::MAX` after the last.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn ding_status(
        &self,
        ding: DingId,
        states: impl Into<DingStates>,
        from: UserId,
        limit: u16,
    ) -> Result<DingStatusReply, RequestError> {
        check_size("page", usize::from(limit), PAGE_ENTRIES_MAX)?;
        let DingStates(states) = states.into();
        self.shared().call(&DingStatus { request: 0, ding, states, from, limit }, Repeat::Harmless).await
    }

    /// Every attempt to reach one recipient of a DING, in the order of their beginning, and what became of each. For the sender, admins
    /// and services.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn ding_attempts(&self, ding: DingId, user: UserId) -> Result<Vec<DingAttempt>, RequestError> {
        let request = DingAttemptList { request: 0, ding, user };
        let reply: DingAttempts = self.shared().call(&request, Repeat::Harmless).await?;
        Ok(reply.entries)
    }

    /// The DINGs that this user sent, for as long as they are kept: one page, the newest first, at most `limit` ≤ 1,000, below `before` or, with
    /// `None`, from the newest on. The reply's `next` is what the next page starts below, 0 after the last.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn sent_dings(&self, before: Option<DingId>, limit: u16) -> Result<Dings, RequestError> {
        check_size("page", usize::from(limit), PAGE_ENTRIES_MAX)?;
        let request = DingList { request: 0, before: before.unwrap_or(DingId(0)), limit };
        match before {
            None => self.shared().look_up(&request).await,
            Some(_) => self.shared().call(&request, Repeat::Harmless).await,
        }
    }

    /// Asks to be told how far a DING of somebody else comes, by [`Event::DingProgress`](crate::Event::DingProgress): how it stands now, and
    /// whenever it has moved, coalesced. For admins and services; senders are told of their own anyhow. Renewed in each session until the DING is
    /// over or [`Client::unwatch_ding`]; at most 64 at a time.
    ///
    /// # Errors
    /// `TooLarge` beyond the 64, before anything is sent; else as [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests: cancelled, it may be watched.
    pub async fn watch_ding(&self, ding: DingId) -> Result<(), RequestError> {
        let shared = self.shared();
        // Before it is asked for: whichever session it is asked in, the next one knows of it.
        shared.ding_news.watch(ding, &shared.resets)?;
        let watched = shared.call::<Done>(&DingWatch { request: 0, ding, on: 1 }, Repeat::Harmless).await;
        watched.map(drop).inspect_err(|_| shared.ding_news.unwatch(ding))
    }

    /// Asks to be told no longer.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn unwatch_ding(&self, ding: DingId) -> Result<(), RequestError> {
        self.shared().ding_news.unwatch(ding);
        self.done(DingWatch { request: 0, ding, on: 0 }).await
    }
}

impl Shared {
    /// Asks a new session for what was watched in the last one. One after the other: requests of the application have the other places.
    /// Cancel safe: the next session begins anew.
    pub(crate) async fn renew_watches<E>(&self) -> Result<Infallible, E> {
        while let Some(ding) = self.ding_news.unrenewed() {
            match self.call::<Done>(&DingWatch { request: 0, ding, on: 1 }, Repeat::Harmless).await {
                Err(RequestError::Refused { code: ErrorCode::BUSY, .. }) => {
                    tokio::time::sleep(Duration::from_millis(WATCH_RETRY_MS)).await;
                }
                Err(RequestError::Refused { code, text }) => {
                    tracing::info!(%ding, %code, text, "the DING is watched no longer");
                    self.ding_news.unwatch(ding);
                }
                // After a reset there is nothing to watch; after the end nobody who does.
                Err(_) => break,
                Ok(_) => self.ding_news.renew(ding),
            }
        }
        std::future::pending().await
    }
}
