//! Datagrams of a session, both ways. What does not fit is let go of.

use std::convert::Infallible;

use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::kinds::SignalKind;
use carillon_protocol::presence::Signalled;
use quinn::SendDatagramError;

use super::end::End;
use super::lanes::Outlets;
use crate::event::Event;
use crate::shared::Shared;

/// Sends what the application signals. Never waits for room: quinn lets go of the oldest.
pub(super) async fn write(connection: &quinn::Connection, shared: &Shared) -> Result<Infallible, End> {
    shared.signals.begin_session();
    loop {
        while let Some(signal) = shared.signals.pop() {
            // A broker, or a path, may take none: that is no reason to end.
            if let Err(SendDatagramError::ConnectionLost(lost)) = connection.send_datagram(signal.to_bytes()) {
                return Err(lost.into());
            }
        }
        shared.signals.due.notified().await;
    }
}

/// Gives the application what others signal.
pub(super) async fn read(
    connection: &quinn::Connection,
    outlets: &Outlets,
    shared: &Shared,
) -> Result<Infallible, End> {
    loop {
        let raw = RawFrame::new(connection.read_datagram().await?)?;
        if raw.kind != Signalled::KIND {
            continue;
        }
        let signalled = Signalled::decode(&raw)?;
        let own = signalled.user == shared.welcome().user;
        if own && signalled.kind == SignalKind::AWAY && shared.signals.is_present(signalled.conversation) {
            shared.signals.say_present(signalled.conversation, &shared.resets);
        }
        // The application would take it for one of the journal it knows.
        if shared.resets.is_void() {
            continue;
        }
        // An application that takes no events needs no signals either.
        let _full = outlets.signals.try_send(Event::Signal(signalled));
    }
}
