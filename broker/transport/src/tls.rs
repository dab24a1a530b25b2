//! The TLS session of a server's connection, without what only the handshake needed.
//!
//! quinn-proto's own keeps rustls' connection for as long as the QUIC connection lives, and derives the keys after the present ones at
//! once. Here the TLS state goes when the handshake is over and its tickets are written, and the next keys are derived when a
//! key update asks for them: of an idle session that is a fifth of its memory. `docs/PERFORMANCE.md` has the measurement.
//!
//! What is given up: keying material cannot be exported, and a client that sends TLS messages after the handshake (RFC 9001 has none for
//! it) is told that they are unexpected.

use std::any::Any;
use std::io;
use std::sync::Arc;

use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::CipherSuite;
use rustls::quic::{KeyChange, ServerConnection, Suite, Version};

use crate::config::ConfigRefused;
use crate::packet_keys::{NextKeys, present_keys};

/// The alert `unexpected_message`, RFC 8446 section 6.
const UNEXPECTED_MESSAGE: u8 = 10;

/// What all connections of a server share.
pub(crate) struct ServerTls {
    tls: Arc<rustls::ServerConfig>,
    /// quinn-proto's, for what comes before a session.
    base: QuicServerConfig,
    /// That of the first packets.
    suite: Suite,
}

impl ServerTls {
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Result<Self, ConfigRefused> {
        let suites = tls.crypto_provider().cipher_suites.iter();
        let suite = suites
            .filter_map(|suite| suite.tls13().filter(|_| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256))
            .find_map(rustls::Tls13CipherSuite::quic_suite)
            .ok_or(ConfigRefused::NoInitialSuite)?;
        let base = QuicServerConfig::try_from(tls.clone()).map_err(|_no_suite| ConfigRefused::NoInitialSuite)?;
        // What every session will ask for, so that none fails.
        ServerConnection::new(tls.clone(), Version::V1, Vec::new()).map_err(|_refused| ConfigRefused::NoTls13)?;
        Ok(Self { tls, base, suite })
    }

    pub(crate) fn session(&self, version: u32, params: &TransportParameters) -> ServerSession {
        let version = tls_version(version);
        let mut encoded = Vec::new();
        params.write(&mut encoded);
        let handshake = ServerConnection::new(self.tls.clone(), version, encoded).expect("one was made at the start");
        ServerSession { handshake: Some(Box::new(handshake)), version, suite: self.suite, next: None, has_told: false }
    }
}

impl ServerConfig for ServerTls {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.base.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.base.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(self.session(version, params))
    }
}

/// The drafts 29 to 32 have salts and labels of their own; other versions were refused by [`ServerConfig::initial_keys`].
fn tls_version(version: u32) -> Version {
    match version {
        0xff00_001d..=0xff00_0020 => Version::V1Draft,
        _ => Version::V1,
    }
}

/// One session of a server.
pub(crate) struct ServerSession {
    /// Until it is over.
    handshake: Option<Box<ServerConnection>>,
    version: Version,
    suite: Suite,
    /// From the keys of the application's data on.
    next: Option<NextKeys>,
    /// quinn-proto was told that the handshake's data are there.
    has_told: bool,
}

#[cfg(test)]
impl ServerSession {
    pub(crate) fn has_handshake(&self) -> bool {
        self.handshake.is_some()
    }
}

impl Session for ServerSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        present_keys(self.suite.keys(dst_cid, side, self.version))
    }

    /// Nobody asks: there is one protocol, and the certificate is the same for all names.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// Clients have no certificates.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// There is no early data: see [`ConfigRefused::EarlyData`].
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.is_handshaking())
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Some(handshake) = &mut self.handshake else {
            return Err(alert(UNEXPECTED_MESSAGE, "a TLS message after the handshake".into()));
        };
        if let Err(error) = handshake.read_hs(buf) {
            return Err(match handshake.alert() {
                Some(description) => alert(description.into(), error.to_string()),
                None => TransportError {
                    code: TransportErrorCode::PROTOCOL_VIOLATION,
                    frame: None,
                    reason: format!("TLS error: {error}"),
                },
            });
        }
        let is_known = handshake.alpn_protocol().is_some() || handshake.server_name().is_some();
        let tells = !self.has_told && (is_known || !handshake.is_handshaking());
        self.has_told |= tells;
        Ok(tells)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let encoded = self.handshake.as_ref().and_then(|handshake| handshake.quic_transport_parameters());
        let read = encoded.map(|encoded| TransportParameters::read(Side::Server, &mut io::Cursor::new(encoded)));
        read.transpose().map_err(TransportError::from)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let handshake = self.handshake.as_mut()?;
        match handshake.write_hs(buf) {
            Some(KeyChange::Handshake { keys }) => Some(present_keys(keys)),
            Some(KeyChange::OneRtt { keys, next }) => {
                let keys = present_keys(keys);
                self.next = Some(NextKeys::new(next, &keys));
                Some(keys)
            }
            None => {
                // All of it was written, tickets included.
                if self.next.is_some() && !handshake.is_handshaking() {
                    self.handshake = None;
                }
                None
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.next.as_mut().map(NextKeys::pair)
    }

    /// Retry packets come to clients.
    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn alert(code: u8, reason: String) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason }
}
