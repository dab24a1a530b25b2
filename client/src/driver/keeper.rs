//! What goes to the store: cursors, a little after they were acknowledged, and the thread that blocks for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::ids::{Incarnation, Position};
use carillon_protocol::session::Cursor;

use tokio::sync::OwnedMutexGuard;

use crate::limits::ACK_DELAY_MS;
use crate::shared::Shared;
use crate::store::Store;

/// Saves cursors, with or without a session, until the store fails.
pub(super) async fn run(shared: &Shared) -> io::Error {
    loop {
        shared.cursors.dirty.notified().await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ACK_DELAY_MS)) => {}
            () = shared.cursors.full.notified() => {}
        }
        if let Err(error) = flush(shared).await {
            return error;
        }
    }
}

/// Saves what was acknowledged, so that it may be sent.
pub(super) async fn flush(shared: &Shared) -> io::Result<()> {
    let alone = Arc::clone(&shared.saving).lock_owned().await;
    let cursors = shared.cursors.unsaved();
    save(shared, alone, cursors.clone()).await?;
    shared.cursors.save_done(&cursors);
    Ok(())
}

/// Drops all cursors, in the store too.
pub(super) async fn reset(shared: &Shared) -> io::Result<()> {
    let alone = Arc::clone(&shared.saving).lock_owned().await;
    let (incarnation, position) = (Incarnation(0), Position(0));
    let none = |shard| Cursor { shard, incarnation, position, receipts_through: position };
    save(shared, alone, shared.cursors.reset().into_iter().map(none).collect()).await
}

/// `alone` is held until the store is done, even if the caller is cancelled: of two savings at once the older could win.
async fn save(shared: &Shared, alone: OwnedMutexGuard<()>, cursors: Vec<Cursor>) -> io::Result<()> {
    let Some(store) = &shared.config.store else { return Ok(()) };
    if cursors.is_empty() {
        return Ok(());
    }
    blocking(store, move |store| {
        let _alone = alone;
        cursors.into_iter().try_for_each(|cursor| store.save_cursor(cursor))
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
