//! The keys of a connection's packets, and the next ones, not made before they are needed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::BytesMut;
use quinn_proto::crypto::{CryptoError, HeaderKey, KeyPair, Keys, PacketKey};
use rustls::quic::{PacketKeySet, Secrets};

type Cipher = Box<dyn rustls::quic::PacketKey>;

/// rustls' keys in quinn-proto's hands.
pub(crate) fn present_keys(keys: rustls::quic::Keys) -> Keys {
    let header =
        KeyPair::<Box<dyn HeaderKey>> { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) };
    let packet =
        KeyPair::<Box<dyn PacketKey>> { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) };
    Keys { header, packet }
}

/// What quinn-proto asks of a pair before it is in use.
#[derive(Clone, Copy)]
struct Traits {
    tag_bytes: usize,
    confidentiality_limit: u64,
    integrity_limit: u64,
}

/// The keys after the present ones, pair after pair (RFC 9001 section 6).
///
/// Each pair follows from the secrets as the pair before has left them: pairs are made in their order.
pub(crate) struct NextKeys {
    secrets: Arc<Mutex<Secrets>>,
    traits: Traits,
    /// The pair that was given out last.
    last: Option<Arc<LazyPair>>,
}

impl NextKeys {
    /// After `keys`, whose cipher is also that of all later ones.
    pub(crate) fn new(secrets: Secrets, keys: &Keys) -> Self {
        let key = &keys.packet.local;
        let traits = Traits {
            tag_bytes: key.tag_len(),
            confidentiality_limit: key.confidentiality_limit(),
            integrity_limit: key.integrity_limit(),
        };
        Self { secrets: Arc::new(Mutex::new(secrets)), traits, last: None }
    }

    /// The next pair, which is made when it is first used, or when the one after it is asked for.
    pub(crate) fn pair(&mut self) -> KeyPair<Box<dyn PacketKey>> {
        if let Some(last) = &self.last {
            last.made();
        }
        let pair = Arc::new(LazyPair { secrets: self.secrets.clone(), keys: OnceLock::new() });
        self.last = Some(pair.clone());
        let key = |direction| -> Box<dyn PacketKey> {
            Box::new(LazyKey { pair: pair.clone(), direction, traits: self.traits })
        };
        KeyPair { local: key(Direction::Sending), remote: key(Direction::Receiving) }
    }
}

struct LazyPair {
    secrets: Arc<Mutex<Secrets>>,
    keys: OnceLock<PacketKeySet>,
}

impl LazyPair {
    fn made(&self) -> &PacketKeySet {
        self.keys.get_or_init(|| {
            // Secrets are never left half-way: whoever panicked did not hold them.
            self.secrets.lock().unwrap_or_else(PoisonError::into_inner).next_packet_keys()
        })
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Sending,
    Receiving,
}

struct LazyKey {
    pair: Arc<LazyPair>,
    direction: Direction,
    traits: Traits,
}

impl LazyKey {
    fn cipher(&self) -> &Cipher {
        let made = self.pair.made();
        match self.direction {
            Direction::Sending => &made.local,
            Direction::Receiving => &made.remote,
        }
    }
}

impl PacketKey for LazyKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        PacketKey::encrypt(self.cipher(), packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        PacketKey::decrypt(self.cipher(), packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.traits.tag_bytes
    }

    fn confidentiality_limit(&self) -> u64 {
        self.traits.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.traits.integrity_limit
    }
}
