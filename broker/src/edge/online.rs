//! Requests about who is online, answered by the edge itself from the directory: they rest on nothing durable.

use carillon_core::input::{Authority, Principal};
use carillon_protocol::Frame;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::ids::{DeviceId, Timestamp, UserId};
use carillon_protocol::limits::PRESENCE_USERS_MAX;
use carillon_protocol::presence::{
    PresenceEntry, PresenceQuery, Presences, SessionEntry, SessionKick, SessionList, Sessions, SessionsKicked,
};
use carillon_transport::LinkKey;

use super::directory::Listed;
use super::inbound::{Cause, Which, checked_request_id};
use super::limits::KICKS_QUEUED_MAX;
use super::peers::Kick;
use super::{Edge, Links};

/// A request of this module.
pub(super) enum Request {
    Presence(PresenceQuery),
    List(SessionList),
    Kick(SessionKick),
}

/// Why one is refused.
type Refused = (ErrorCode, String);

/// The request in a frame, or the frame back.
pub(super) fn parse(frame: Frame) -> Result<Request, Box<Frame>> {
    match frame {
        Frame::PresenceQuery(query) => Ok(Request::Presence(query)),
        Frame::SessionList(list) => Ok(Request::List(list)),
        Frame::SessionKick(kick) => Ok(Request::Kick(kick)),
        other => Err(Box::new(other)),
    }
}

impl Edge {
    pub(super) fn handle_online<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        request: Request,
    ) -> Result<(), Cause> {
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        let Some(identity) = session.identity() else { return Ok(()) };
        let (who, by) = (identity.who, identity.handle.clone());
        let id = match &request {
            Request::Presence(query) => query.request,
            Request::List(list) => list.request,
            Request::Kick(kick) => kick.request,
        };
        checked_request_id(id)?;
        let answer = match request {
            Request::Presence(query) => self.presences(who, &query),
            Request::List(list) => self.list(who, &list),
            Request::Kick(kick) => self.kick(who, &by, &kick),
        };
        let refused = |(code, text): Refused| Error { request: id, code, text: text.as_str().into() }.into();
        self.write_reply(links, key, Which::Control, &answer.unwrap_or_else(refused));
        Ok(())
    }

    fn presences(&self, who: Principal, query: &PresenceQuery) -> Result<Frame, Refused> {
        if query.users.is_empty() {
            return Err((ErrorCode::INVALID, "name at least one user".into()));
        }
        if query.users.len() > PRESENCE_USERS_MAX {
            return Err((ErrorCode::TOO_LARGE, format!("more than {PRESENCE_USERS_MAX} users")));
        }
        let entry = |user: &UserId| {
            let since = self.parts.peers.directory.online_since(who.tenant, *user);
            PresenceEntry { user: *user, online: u8::from(since.is_some()), since: since.unwrap_or(Timestamp(0)) }
        };
        Ok(Presences { request: query.request, entries: query.users.iter().map(entry).collect() }.into())
    }

    fn list(&self, who: Principal, list: &SessionList) -> Result<Frame, Refused> {
        may_manage(who, list.user)?;
        let (mut entries, mut texts) = (Vec::new(), String::new());
        for listed in self.parts.peers.directory.sessions(who.tenant, list.user) {
            let Listed { origin, device, producer, client, address, since } = listed;
            let address = address.to_string();
            entries.push(SessionEntry {
                device,
                producer,
                edge: u16::try_from(origin.edge.0).expect("edges are at most 64"),
                since,
                client_bytes: u16::try_from(client.len()).expect("cut to 256 bytes"),
                address_bytes: u8::try_from(address.len()).expect("an address and port have 58 bytes at most"),
            });
            texts.push_str(client.as_str());
            texts.push_str(&address);
        }
        Ok(Sessions { request: list.request, entries, texts: texts.as_str().into() }.into())
    }

    fn kick(&self, who: Principal, by: &str, kick: &SessionKick) -> Result<Frame, Refused> {
        may_manage(who, kick.user)?;
        let peers = &self.parts.peers;
        let sessions = peers.directory.sessions(who.tenant, kick.user);
        let all = kick.device == DeviceId(0);
        let mut told = 0;
        for listed in sessions.iter().filter(|listed| all || listed.device == kick.device) {
            if !peers.kick(listed.origin.edge, Kick { link: listed.origin.link, by: by.into() }) {
                return Err((ErrorCode::BUSY, format!("{told} sessions are ended: ask again for the others")));
            }
            told += 1;
        }
        Ok(SessionsKicked { request: kick.request, sessions: told }.into())
    }

    /// Ends the sessions that somebody ends.
    pub(super) fn take_kicks<L: Links>(&mut self, links: &mut L) {
        for _ in 0..KICKS_QUEUED_MAX {
            let Ok(Kick { link, by }) = self.parts.peers.kicks.try_recv() else { break };
            self.close(links, link, ErrorCode::KICKED, &format!("KICKED: ended by {}", by.as_str()));
        }
    }
}

fn may_manage(who: Principal, user: UserId) -> Result<(), Refused> {
    match who.authority {
        Authority::Service | Authority::Admin => Ok(()),
        Authority::User if who.user == user => Ok(()),
        Authority::User => Err((ErrorCode::FORBIDDEN, "only admins and services look after others' sessions".into())),
    }
}
