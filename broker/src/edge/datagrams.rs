//! Signals: that somebody is writing, or looks at a conversation. Datagrams from one session to the others of the
//! conversation, here and on the other edges; let go of, and counted, whenever something is in the way.

use bytes::Bytes;
use carillon_core::effect::StintView;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::ConversationId;
use carillon_protocol::kinds::SignalKind;
use carillon_protocol::limits::PRESENT_CONVERSATIONS_MAX;
use carillon_protocol::presence::{Signal, Signalled};
use carillon_transport::{Link, LinkKey};

use super::inbound::malformed;
use super::limits::{SIGNAL_AUDIENCE_MAX, SIGNALS_A_TICK_MAX, SIGNALS_OUT_A_TICK_MAX, SIGNALS_QUEUED_MAX};
use super::session::Session;
use super::{Edge, Links};

/// What an edge has to say about signals.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// `AWAY` of sessions that have ended in this turn, at most 8 each.
    aways: Vec<Signalled>,
    /// Sent since the last tick.
    sent: u32,
}

impl Edge {
    /// A datagram of a client: one frame.
    pub(super) fn handle_datagram<L: Links>(&mut self, links: &mut L, key: LinkKey, bytes: Bytes) {
        let decoded = RawFrame::new(bytes).and_then(|raw| match raw.kind {
            Signal::KIND => Signal::decode(&raw).map(Some),
            // Of a newer client.
            _ => Ok(None),
        });
        match decoded {
            Ok(Some(signal)) => self.handle_signal(links, key, &signal),
            Ok(None) => {}
            Err(error) => {
                let (code, text) = malformed(error);
                self.close_for_cause(links, key, code, &text);
            }
        }
    }

    fn handle_signal<L: Links>(&mut self, links: &mut L, key: LinkKey, signal: &Signal) {
        let Signal { conversation, kind } = *signal;
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(who) = session.identity().map(|identity| identity.who) else { return };
        session.signals = session.signals.saturating_add(1);
        let may = session.signals <= SIGNALS_A_TICK_MAX && self.interest.is_member(who.tenant, who.user, conversation);
        if !may || !self.sessions.at_key(key).is_some_and(|session| session.note_signal(conversation, kind)) {
            self.stats.signals_let_go += 1;
            return;
        }
        let signalled = Signalled { conversation, user: who.user, kind };
        self.stats.signals_let_go += self.parts.peers.signal(&signalled);
        self.fan_out_signal(links, &signalled, Some(key.index));
    }

    /// What the other edges' sessions signal.
    pub(super) fn take_signals<L: Links>(&mut self, links: &mut L) {
        for _ in 0..SIGNALS_QUEUED_MAX {
            let Ok(signalled) = self.parts.peers.signals.try_recv() else { break };
            self.fan_out_signal(links, &signalled, None);
        }
    }

    /// A session that ends is present nowhere any more.
    pub(super) fn note_gone(&mut self, session: &Session) {
        let Some(who) = session.identity().map(|identity| identity.who) else { return };
        let away = |conversation: &ConversationId| {
            let (conversation, kind) = (*conversation, SignalKind::AWAY);
            Signalled { conversation, user: who.user, kind }
        };
        self.signals.aways.extend(session.present.iter().map(away));
    }

    /// Says so.
    pub(super) fn tell_gone<L: Links>(&mut self, links: &mut L) {
        for signalled in std::mem::take(&mut self.signals.aways) {
            self.stats.signals_let_go += self.parts.peers.signal(&signalled);
            self.fan_out_signal(links, &signalled, None);
        }
    }

    pub(super) fn renew_signals(&mut self) {
        self.signals.sent = 0;
    }

    fn fan_out_signal<L: Links>(&mut self, links: &mut L, signalled: &Signalled, except: Option<u32>) {
        let Some(audience) = self.interest.audience(signalled.conversation).cloned() else { return };
        if audience.len() > SIGNAL_AUDIENCE_MAX {
            self.stats.signals_let_go += 1;
            return;
        }
        let bytes = signalled.to_bytes();
        for index in audience.iter().filter(|index| Some(**index) != except) {
            if self.signals.sent >= SIGNALS_OUT_A_TICK_MAX {
                self.stats.signals_let_go += 1;
                break;
            }
            let Some(session) = self.sessions.at(*index) else { continue };
            let (key, who) = (session.key, session.identity().map(|identity| identity.who));
            // Stale stints entitle to nothing.
            if !who.is_some_and(|who| self.interest.is_member(who.tenant, who.user, signalled.conversation)) {
                continue;
            }
            // A client may want none, and a path may be too narrow.
            let sent = links.link(key).is_some_and(|mut link| link.send_datagram(bytes.clone()).is_ok());
            if sent {
                self.signals.sent += 1;
                self.stats.signals_sent += 1;
            }
        }
    }
}

impl Session {
    /// Whether the signal is to be passed on; remembers where the session is present.
    fn note_signal(&mut self, conversation: ConversationId, kind: SignalKind) -> bool {
        let known = self.present.iter().position(|present| *present == conversation);
        match (kind, known) {
            (SignalKind::TYPING | SignalKind::TYPING_STOPPED, _) | (SignalKind::PRESENT, Some(_)) => true,
            (SignalKind::PRESENT, None) => {
                let room = self.present.len() < PRESENT_CONVERSATIONS_MAX;
                if room {
                    self.present.push(conversation);
                }
                room
            }
            (SignalKind::AWAY, Some(known)) => {
                self.present.swap_remove(known);
                true
            }
            _ => false,
        }
    }
}

/// Whether a stint of these, which are by conversation and time, is open in the conversation.
pub(super) fn has_open_stint(stints: &[StintView], conversation: ConversationId) -> bool {
    let end = stints.partition_point(|stint| stint.conversation <= conversation);
    let last = end.checked_sub(1).map(|last| stints[last]);
    last.is_some_and(|stint| stint.conversation == conversation && stint.left.is_none())
}
