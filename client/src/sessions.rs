//! Who is online, and with which sessions.

use carillon_protocol::ids::{DeviceId, ProducerId, Timestamp, UserId};
use carillon_protocol::limits::PRESENCE_USERS_MAX;
use carillon_protocol::presence::{PresenceQuery, Presences, SessionKick, SessionList, Sessions, SessionsKicked};

use crate::client::Client;
use crate::error::RequestError;
use crate::shared::Repeat;

/// A live session of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its device.
    pub device: DeviceId,
    /// Its producer, if it publishes.
    pub producer: Option<ProducerId>,
    /// Which of the broker's edges holds it.
    pub edge: u16,
    /// When it was opened.
    pub since: Timestamp,
    /// What the client said it is.
    pub client: String,
    /// The address it was opened from.
    pub address: String,
}

/// Requests about who is online.
impl Client {
    /// Since when each of these users of the tenant is online, `None` for who is not, in the order asked for.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn presence(&self, users: &[UserId]) -> Result<Vec<Option<Timestamp>>, RequestError> {
        let mut presences = Vec::with_capacity(users.len());
        for users in users.chunks(PRESENCE_USERS_MAX) {
            let request = PresenceQuery { request: 0, users: users.to_vec() };
            let reply: Presences = self.shared().call(&request, Repeat::Harmless).await?;
            if reply.entries.len() != users.len() {
                return Err(RequestError::UnexpectedReply { frame: "Presences of other users" });
            }
            presences.extend(reply.entries.iter().map(|entry| (entry.online != 0).then_some(entry.since)));
        }
        Ok(presences)
    }

    /// The live sessions of a user, the oldest first: of oneself or, for admins and services, of anybody.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<Session>, RequestError> {
        let reply: Sessions = self.shared().call(&SessionList { request: 0, user }, Repeat::Harmless).await?;
        let mut rest = reply.texts.as_str();
        let mut cut = |bytes: usize| {
            let (front, back) = rest.split_at_checked(bytes)?;
            rest = back;
            Some(front.to_owned())
        };
        let sessions = reply.entries.iter().map(|entry| {
            let client = cut(usize::from(entry.client_bytes))?;
            let address = cut(usize::from(entry.address_bytes))?;
            let producer = Some(entry.producer).filter(|producer| *producer != ProducerId(0));
            Some(Session { device: entry.device, producer, edge: entry.edge, since: entry.since, client, address })
        });
        let sessions: Option<Vec<Session>> = sessions.collect();
        sessions.ok_or(RequestError::UnexpectedReply { frame: "Sessions whose lengths do not fit" })
    }

    /// Ends the live session of a device, or all of a user: of oneself or, for admins and services, of anybody. Returns how many
    /// are being ended. Their clients end with `KICKED`. The token is **not** revoked: who connects again is let in.
    ///
    /// # Errors
    /// As [`RequestError`] says. Who ends the own session may get `Closed`.
    ///
    /// # Cancel safety
    /// As all requests.
    pub async fn kick(&self, user: UserId, device: Option<DeviceId>) -> Result<u32, RequestError> {
        let request = SessionKick { request: 0, user, device: device.unwrap_or(DeviceId(0)) };
        let reply: SessionsKicked = self.shared().call(&request, Repeat::Never).await?;
        Ok(reply.sessions)
    }
}
