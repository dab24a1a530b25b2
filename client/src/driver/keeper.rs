//! What goes to the store: cursors, a little after they were acknowledged, and the thread that blocks for it.
//!
//! Invariant: the store's cursor says which history its unsettled publishes are of. It is saved before the first of them, and goes
//! after the last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::session::Cursor;

use tokio::sync::OwnedMutexGuard;

use crate::clock;
use crate::error::PublishError;
use crate::limits::ACK_SAVE_DELAY_MS;
use crate::shared::Shared;
use crate::store::Store;

/// Saves cursors, with or without a session, until the store fails.
pub(super) async fn run(shared: &Shared) -> io::Error {
    loop {
        tokio::select! {
            () = shared.cursors.dirty.notified() => {
                if !shared.cursors.is_sent_at_once(clock::now()) {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(ACK_SAVE_DELAY_MS)) => {}
                        () = shared.cursors.full.notified() => {}
                    }
                }
            }
            () = shared.resets.done.notified() => {}
        }
        if let Err(error) = flush(shared).await {
            return error;
        }
    }
}

/// Saves what was acknowledged, so that it may be sent, and that the application is done with a reset.
pub(super) async fn flush(shared: &Shared) -> io::Result<()> {
    let alone = Arc::clone(&shared.saving).lock_owned().await;
    let cursors = shared.cursors.unsaved();
    save(shared, alone, cursors.clone(), shared.resets.take_done()).await?;
    shared.cursors.save_done(&cursors);
    Ok(())
}

/// Drops all cursors and publishes, in the store too.
pub(super) async fn reset(shared: &Shared) -> io::Result<()> {
    let alone = Arc::clone(&shared.saving).lock_owned().await;
    shared.cursors.reset();
    let_go(shared, alone).await
}

/// Drops all publishes; the cursors are to be saved anew.
pub(super) async fn end_publishes(shared: &Shared) -> io::Result<()> {
    let alone = Arc::clone(&shared.saving).lock_owned().await;
    shared.cursors.unsave();
    shared.resets.begin_unsaid();
    let_go(shared, alone).await
}

/// The store lets go of everything before those who wait hear of it. Runs to its end even if the caller is cancelled.
async fn let_go(shared: &Shared, alone: OwnedMutexGuard<()>) -> io::Result<()> {
    let waiters = shared.publishes.let_go();
    tracing::warn!(publishes = waiters.len(), "what was not settled is of another journal: it is let go of");
    let tell = move || {
        for waiter in waiters {
            // Whoever does not wait for the result does not want it.
            let _ = waiter.send(Err(PublishError::Reset));
        }
    };
    let Some(store) = &shared.config.store else {
        tell();
        return Ok(());
    };
    shared.resets.keep();
    blocking(store, move |store| {
        let _alone = alone;
        store.reset()?;
        tell();
        Ok(())
    })
    .await?;
    shared.left().let_go();
    Ok(())
}

/// `alone` is held until the store is done, even if the caller is cancelled: of two savings at once the older could win.
async fn save(
    shared: &Shared,
    alone: OwnedMutexGuard<()>,
    cursors: Vec<Cursor>,
    is_reset_done: bool,
) -> io::Result<()> {
    let Some(store) = &shared.config.store else { return Ok(()) };
    if cursors.is_empty() && !is_reset_done {
        return Ok(());
    }
    blocking(store, move |store| {
        let _alone = alone;
        cursors.into_iter().try_for_each(|cursor| store.save_cursor(cursor))?;
        if is_reset_done { store.reset_done() } else { Ok(()) }
    })
    .await
}

/// Runs a store's method where it may block. Cancelled, it still runs to its end.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<dyn Store>,
    run: impl FnOnce(&dyn Store) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || run(&*store)).await.map_err(io::Error::other)?
}
