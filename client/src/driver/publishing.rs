//! The publish stream: publishes out, their results in.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use quinn::SendStream;

use super::end::End;
use super::keeper::blocking;
use super::reader::FrameReader;
use crate::error::PublishError;
use crate::limits::{BUSY_DELAY_FIRST_MS, BUSY_DELAY_MAX_MS};
use crate::publish::{Publishes, Waiter, Work};
use crate::shared::Shared;
use crate::store::Store;

/// Saves publishes, then writes them, in the order of their numbers.
pub(super) async fn write(mut stream: SendStream, shared: &Shared) -> Result<Infallible, End> {
    let publishes = &shared.publishes;
    loop {
        match publishes.work() {
            Work::Send(frames) => stream.write_chunk(frames).await?,
            Work::Save(unsaved) => {
                let last = unsaved.last().map_or(0, |publish| publish.number);
                if let Some(store) = &shared.config.store {
                    // Held until the store is done, even if this session is not: a reset must find what it saves.
                    let alone = Arc::clone(&shared.saving).lock_owned().await;
                    let save = move |store: &dyn Store| {
                        let _alone = alone;
                        store.save_unsettled(&unsaved)
                    };
                    blocking(store, save).await.map_err(End::Store)?;
                }
                publishes.save_done(last);
            }
            Work::BackOff { refusals } => {
                let delay_ms = BUSY_DELAY_FIRST_MS.saturating_mul(1 << refusals.min(16)).min(BUSY_DELAY_MAX_MS);
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                publishes.rewind();
            }
            Work::Wait => publishes.wake.notified().await,
        }
    }
}

/// Reads results and gives them to those who wait.
pub(super) async fn read(mut reader: FrameReader, shared: &Shared) -> Result<Infallible, End> {
    loop {
        let mut settled = Settled::default();
        let mut next = Some(reader.next().await?);
        while let Some(frame) = next {
            settled.take(frame, &shared.publishes)?;
            next = reader.buffered()?;
        }
        settled.finish(shared.config.store.as_ref()).await?;
    }
}

/// Results that came together.
#[derive(Default)]
struct Settled {
    numbers: Vec<u64>,
    refused: Vec<(Waiter, PublishError)>,
}

impl Settled {
    fn take(&mut self, frame: Frame, publishes: &Publishes) -> Result<(), End> {
        match frame {
            Frame::Published(published) => {
                let number = published.number;
                if publishes.published(published) {
                    self.numbers.push(number);
                }
            }
            // Another session of this producer has taken over, and may publish these numbers itself: they stay unsettled.
            Frame::PublishRefused(refused) if refused.code == ErrorCode::FENCED => {
                return Err(End::Closed { code: refused.code, text: refused.text.to_string() });
            }
            Frame::PublishRefused(refused) => {
                if let Some(waiter) = publishes.refused(&refused) {
                    let text = refused.text.to_string();
                    self.refused.push((waiter, PublishError::Refused { code: refused.code, text }));
                    self.numbers.push(refused.number);
                }
            }
            other => return Err(End::unexpected(other.name(), "publish")),
        }
        Ok(())
    }

    /// The store lets go of a refused publish before anybody hears of the refusal, lest a repeat after a restart be accepted.
    /// Runs to its end even if the session does not.
    async fn finish(self, store: Option<&Arc<dyn Store>>) -> Result<(), End> {
        let Self { numbers, refused } = self;
        let tell = move || {
            for (waiter, error) in refused {
                // Whoever does not wait for the result does not want it.
                let _ = waiter.send(Err(error));
            }
        };
        match store {
            Some(store) if !numbers.is_empty() => {
                let settle = move |store: &dyn Store| {
                    let settled = store.settle(&numbers);
                    tell();
                    settled
                };
                blocking(store, settle).await.map_err(End::Store)
            }
            _ => {
                tell();
                Ok(())
            }
        }
    }
}
