//! What a caller may set, and its translation into quinn-proto's terms.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto as quic;
use thiserror::Error;

use crate::congestion;
use crate::keys::GroupKeys;
use crate::limits::{CONNECTION_ID_BYTES, KEEP_ALIVE_VARIANTS, MTU_CHANGE_BYTES_MIN};
use crate::tls::ServerTls;

/// Handshakes that peers began and that run at once in a server's endpoint, 140 µs each: half a second of work, well below the
/// handshake timeout. Further first packets are dropped.
pub const INCOMING_MAX: u32 = 4_096;

/// How rarely we ask the peer to acknowledge; an extension that both our sides have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckFrequency {
    /// Packets that may go unacknowledged before an acknowledgement must be sent.
    pub packets_max: u32,
    /// How long an acknowledgement may be held back; quinn-proto clamps it to max(RTT, 25 ms).
    pub delay_ms: u32,
}

/// Every limit of an endpoint's connections, set by hand: nothing is left to a library's defaults.
///
/// Start from [`TransportConfig::server`] or [`TransportConfig::client`], whose fields carry the
/// derivations, and change what differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransportConfig {
    /// Bidirectional streams that the peer may have open.
    pub streams_bidi_max: u32,
    /// Unidirectional streams that the peer may have open.
    pub streams_uni_max: u32,
    /// Unread bytes that the peer may send on one stream.
    pub stream_receive_window_bytes: u32,
    /// Unread bytes that the peer may send on all streams together.
    pub receive_window_bytes: u32,
    /// Bytes queued and unacknowledged on all streams of a connection before a
    /// [`Room::Shared`](crate::Room::Shared) write is blocked.
    pub send_window_bytes: u32,
    /// What a [`Room::Reserved`](crate::Room::Reserved) write may queue beyond it.
    pub send_window_reserve_bytes: u32,
    /// Received datagrams not yet taken, in bytes; `None` switches datagrams off.
    pub datagram_receive_bytes_max: Option<u32>,
    /// Datagrams queued for sending, in bytes; beyond it the oldest are dropped.
    pub datagram_send_bytes_max: u32,
    /// Silence after which a connection is given up; the smaller of both sides' counts.
    pub idle_timeout_ms: u32,
    /// Silence after which we ping, spread by ±20 % over connections; `None` leaves it to the peer.
    pub keep_alive_ms: Option<u32>,
    /// What we ask of the peer's acknowledgements; `None` leaves them as RFC 9000 has them.
    pub ack_frequency: Option<AckFrequency>,
    /// UDP payload assumed to pass before discovery, in bytes (at least 1,200).
    pub mtu_initial_bytes: u16,
    /// UDP payload up to which discovery probes, in bytes; `None` switches discovery off.
    pub mtu_max_bytes: Option<u16>,
    /// The round trip assumed before one was measured.
    pub rtt_initial_ms: u32,
    /// Out-of-order handshake bytes kept for a connection.
    pub crypto_buffer_bytes: u32,
    /// Connections an endpoint holds, handshakes included; further ones are refused.
    pub connections_max: u32,
    /// Handshakes running at once in an endpoint that peers began; further first packets are dropped,
    /// and come again by the peer's retransmission.
    pub incoming_max: u32,
    /// Running handshakes from which on a peer must first prove its address (a Retry, one more
    /// round trip), so that spoofed packets cost us nothing lasting.
    pub incoming_retry_from: u32,
    /// Bytes buffered for one attempt before it is accepted.
    pub incoming_buffer_bytes: u32,
    /// Bytes buffered for all attempts before they are accepted.
    pub incoming_buffer_total_bytes: u32,
    /// Asked of the kernel for each socket's receive buffer; what was granted is in
    /// [`Endpoint::socket_buffers`](crate::Endpoint::socket_buffers).
    pub socket_receive_buffer_bytes: u32,
    /// Asked of the kernel for each socket's send buffer.
    pub socket_send_buffer_bytes: u32,
    /// Key material from which the keys for stateless resets and Retry tokens are derived, so that a
    /// restarted server can tell its old peers that their connections are gone. `None`: random.
    pub reset_key: Option<[u8; 64]>,
    /// Whether the kernel is asked to give each packet to the thread that owns its connection. Off,
    /// every misplaced packet is handed over between threads: slower, for tests and old kernels.
    pub steer_in_kernel: bool,
}

impl TransportConfig {
    /// Limits of the broker's side.
    #[must_use]
    pub fn server() -> Self {
        Self {
            // The control stream and the publish stream.
            streams_bidi_max: 2,
            // Clients open none.
            streams_uni_max: 0,
            // One publish frame of 64 KiB with its header is read while the next one arrives.
            stream_receive_window_bytes: 128 * 1024,
            // Both streams full: 2 × 128 KiB.
            receive_window_bytes: 256 * 1024,
            // What one device can pin of the ring: 16 chunks of catch-up (16 KiB) make half a
            // megabyte a second at a round trip of 500 ms, and 20,000 devices pin 5 GiB at the very
            // worst, which `pinned_bytes_max` of the edge cuts off long before.
            send_window_bytes: 256 * 1024,
            // Two urgent frames of 8 KiB: a DING and its successor.
            send_window_reserve_bytes: 16 * 1024,
            // Typing and presence of some dozens of peers.
            datagram_receive_bytes_max: Some(16 * 1024),
            datagram_send_bytes_max: 16 * 1024,
            // Shorter than what mobile NATs keep a mapping for.
            idle_timeout_ms: 30_000,
            // The clients ping.
            keep_alive_ms: None,
            // A tenth of the acknowledgements: the second largest lever on the cost of a delivery.
            ack_frequency: Some(AckFrequency { packets_max: 10, delay_ms: 25 }),
            // RFC 9000 guarantees 1,200; probing goes to Ethernet's 1,500 less IPv6 and UDP headers.
            mtu_initial_bytes: 1_200,
            mtu_max_bytes: Some(1_452),
            // RFC 9002 section 6.2.2.
            rtt_initial_ms: 333,
            // A client's flight with a certificate chain, twice.
            crypto_buffer_bytes: 16 * 1024,
            // Some 17 KB each: 1.7 GB an endpoint.
            connections_max: 100_000,
            incoming_max: INCOMING_MAX,
            // As many as run where a thread begins all it can, 1,300 a second, with clients that are 100 ms away (two round trips each). A flood has
            // that many begun in a moment and again after each handshake timeout: 2,048 of them took 14 ms of the others' latency.
            incoming_retry_from: 256,
            // Accepted in the same breath: a flight of coalesced packets is enough.
            incoming_buffer_bytes: 16 * 1024,
            incoming_buffer_total_bytes: 1024 * 1024,
            // A round to 5,000 connections sends 1 MB and is answered by as much in one go.
            socket_receive_buffer_bytes: 8 * 1024 * 1024,
            socket_send_buffer_bytes: 4 * 1024 * 1024,
            reset_key: None,
            steer_in_kernel: true,
        }
    }

    /// Limits of a client's side: a device, or a load generator with many.
    #[must_use]
    pub fn client() -> Self {
        Self {
            // The broker opens no bidirectional stream.
            streams_bidi_max: 0,
            // Urgent, inbox, bulk, and as many while the old ones of a resume close.
            streams_uni_max: 6,
            // As much as the broker's send window holds, so that it is the one limit.
            stream_receive_window_bytes: 256 * 1024,
            // Every lane, control and publish full at once: 5 × 256 KiB, so that no lane can
            // starve the urgent one.
            receive_window_bytes: 5 * 256 * 1024,
            // What the server's two streams take.
            send_window_bytes: 256 * 1024,
            // Three pings in the time of silence that ends a connection, so that two may be lost.
            keep_alive_ms: Some(8_000),
            // Deliveries come at the server's pace, acknowledgements are asked for by the server.
            ack_frequency: None,
            // Nobody connects to a client.
            incoming_max: 0,
            incoming_retry_from: 0,
            ..Self::server()
        }
    }

    pub(crate) fn transport(&self, keep_alive: Option<Duration>) -> quic::TransportConfig {
        let mut config = quic::TransportConfig::default();
        config
            .max_concurrent_bidi_streams(self.streams_bidi_max.into())
            .max_concurrent_uni_streams(self.streams_uni_max.into())
            .stream_receive_window(self.stream_receive_window_bytes.into())
            .receive_window(self.receive_window_bytes.into())
            .send_window(self.send_window_bytes.into())
            // Without fairness a stream in the middle of its data bypasses the priorities.
            .send_fairness(true)
            .max_idle_timeout(Some(quic::VarInt::from_u32(self.idle_timeout_ms).into()))
            .keep_alive_interval(keep_alive)
            .initial_mtu(self.mtu_initial_bytes)
            .mtu_discovery_config(self.mtu_max_bytes.map(|bytes| {
                let mut discovery = quic::MtuDiscoveryConfig::default();
                discovery.upper_bound(bytes).minimum_change(MTU_CHANGE_BYTES_MIN);
                discovery
            }))
            .initial_rtt(Duration::from_millis(self.rtt_initial_ms.into()))
            .crypto_buffer_size(self.crypto_buffer_bytes as usize)
            .datagram_receive_buffer_size(self.datagram_receive_bytes_max.map(|bytes| bytes as usize))
            .datagram_send_buffer_size(self.datagram_send_bytes_max as usize)
            .congestion_controller_factory(Arc::new(congestion::Factory::default()))
            // The spin bit tells observers the round trip time and us nothing.
            .allow_spin(false)
            .ack_frequency_config(self.ack_frequency.map(|wish| {
                let mut frequency = quic::AckFrequencyConfig::default();
                frequency.ack_eliciting_threshold(wish.packets_max.into());
                frequency.max_ack_delay(Some(Duration::from_millis(wish.delay_ms.into())));
                frequency
            }))
            .enable_segmentation_offload(true);
        config
    }

    /// The configurations dealt out to connections in turn: alike but for the keep-alive interval,
    /// which is spread evenly over 80 % to 120 % of the wish.
    pub(crate) fn transport_variants(&self) -> Vec<Arc<quic::TransportConfig>> {
        let Some(keep_alive_ms) = self.keep_alive_ms else {
            return vec![Arc::new(self.transport(None))];
        };
        (0..KEEP_ALIVE_VARIANTS)
            .map(|variant| {
                let percent = 80 + 40 * variant / (KEEP_ALIVE_VARIANTS - 1);
                let interval = Duration::from_millis(keep_alive_ms.into()) * percent / 100;
                Arc::new(self.transport(Some(interval)))
            })
            .collect()
    }

    pub(crate) fn server_config(
        &self,
        tls: Arc<rustls::ServerConfig>,
        keys: &Arc<GroupKeys>,
    ) -> Result<quic::ServerConfig, ConfigRefused> {
        if tls.max_early_data_size != 0 {
            return Err(ConfigRefused::EarlyData);
        }
        let mut config = quic::ServerConfig::new(Arc::new(ServerTls::new(tls)?), keys.clone());
        // Address tokens save the round trip of a Retry, which only a flood asks for.
        let mut tokens = quic::ValidationTokenConfig::default();
        tokens.sent(0).log(Arc::new(quic::NoneTokenLog));
        config
            .transport_config(Arc::new(self.transport(self.keep_alive_ms.map(|ms| Duration::from_millis(ms.into())))))
            .validation_token_config(tokens)
            .migration(true)
            // The loop decides on each attempt at once and counts handshakes itself: `incoming_max`.
            .max_incoming(1)
            .incoming_buffer_size(self.incoming_buffer_bytes.into())
            .incoming_buffer_size_total(self.incoming_buffer_total_bytes.into());
        Ok(config)
    }

    pub(crate) fn client_config(&self, tls: Arc<rustls::ClientConfig>) -> Result<quic::ClientConfig, ConfigRefused> {
        if tls.enable_early_data {
            return Err(ConfigRefused::EarlyData);
        }
        let crypto =
            quic::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|_no_suite| ConfigRefused::NoInitialSuite)?;
        let mut config = quic::ClientConfig::new(Arc::new(crypto));
        config.token_store(Arc::new(quic::NoneTokenStore));
        Ok(config)
    }

    /// Checks what quinn-proto would panic on or what makes no sense.
    pub(crate) fn check(&self) -> Result<(), ConfigRefused> {
        let mtu_fits = (1_200..=1_472).contains(&self.mtu_initial_bytes)
            && self.mtu_max_bytes.is_none_or(|bytes| (1_200..=1_472).contains(&bytes));
        if !mtu_fits {
            return Err(ConfigRefused::Mtu);
        }
        if self.keep_alive_ms.is_some_and(|ms| ms == 0 || ms >= self.idle_timeout_ms) {
            return Err(ConfigRefused::KeepAlive);
        }
        Ok(())
    }
}

/// Why a configuration was refused; inside the `InvalidInput` error of the function that took it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ConfigRefused {
    /// 0-RTT data can be replayed, so it stays off (`max_early_data_size`, `enable_early_data`).
    #[error("TLS early data (0-RTT) must be off")]
    EarlyData,
    /// The TLS provider lacks AES-128-GCM-SHA256, without which QUIC cannot begin.
    #[error("the TLS provider lacks TLS13_AES_128_GCM_SHA256")]
    NoInitialSuite,
    /// The TLS configuration lacks TLS 1.3, which QUIC is built on.
    #[error("the TLS configuration lacks TLS 1.3")]
    NoTls13,
    /// The TLS provider lacks a suite with 256-bit keys for QUIC, from which tokens get theirs.
    #[error("the TLS provider lacks a QUIC cipher suite with 256-bit keys")]
    NoTokenSuite,
    /// The TLS provider yields no random bytes.
    #[error("the TLS provider yields no random bytes")]
    NoRandomness,
    /// A packet size is outside 1,200..=1,472 bytes.
    #[error("packet sizes must lie in 1200..=1472 bytes")]
    Mtu,
    /// The keep-alive interval is zero, or not below the idle timeout.
    #[error("the keep-alive interval must be above zero and below the idle timeout")]
    KeepAlive,
    /// A group needs 1 to 64 threads.
    #[error("a group has 1 to 64 threads")]
    Threads,
}

impl From<ConfigRefused> for std::io::Error {
    fn from(refused: ConfigRefused) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, refused)
    }
}

const _: () = assert!(CONNECTION_ID_BYTES <= 20, "RFC 9000 section 17.2 bounds connection ids");
