//! What goes to the store: cursors, a little after they were acknowledged, and the thread that blocks for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::ids::{Incarnation, Position};
use carillon_protocol::session::Cursor;

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
    // Two at once could leave the older cursor in the store.
    let _alone = shared.saving.lock().await;
    let cursors = shared.cursors.unsaved();
    if let Some(store) = &shared.config.store {
        for cursor in cursors.clone() {
            blocking(store, move |store| store.save_cursor(cursor)).await?;
        }
    }
    shared.cursors.save_done(&cursors);
    Ok(())
}

/// Drops all cursors, in the store too.
pub(super) async fn reset(shared: &Shared) -> io::Result<()> {
    let _alone = shared.saving.lock().await;
    let shards = shared.cursors.reset();
    if let Some(store) = &shared.config.store {
        for shard in shards {
            let (incarnation, position) = (Incarnation(0), Position(0));
            let none = Cursor { shard, incarnation, position, receipts_through: position };
            blocking(store, move |store| store.save_cursor(none)).await?;
        }
    }
    Ok(())
}

/// Runs a store's method where it may block. Cancelled, it still runs to its end.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<dyn Store>,
    run: impl FnOnce(&dyn Store) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || run(&*store)).await.map_err(io::Error::other)?
}
