//! Opening a session: TLS, connection, `Hello`, `Welcome`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::Frame;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::ProducerId;
use carillon_protocol::limits::TOKEN_BYTES_MAX;
use carillon_protocol::session::{ALPN, Cursor, Hello, NEWEST_ALL, VERSION, Welcome};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, IdleTimeout, MtuDiscoveryConfig, SendStream, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::end::{Attempt, End};
use super::reader::FrameReader;
use crate::config::{Config, Roots};
use crate::error::ConnectError;
use crate::{limits, random};

/// An open session.
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    pub(super) connection: quinn::Connection,
    pub(super) control: (SendStream, FrameReader),
    pub(super) publish: Option<(SendStream, FrameReader)>,
    pub(super) welcome: Welcome,
    pub(super) token: String,
}

/// Opens sessions.
pub(super) struct Dialer {
    crypto: Arc<QuicClientConfig>,
}

impl Dialer {
    /// Reads the roots. Blocks if they are a file.
    pub(super) fn new(roots: &Roots) -> Result<Self, ConnectError> {
        let pem = match roots {
            Roots::Pem(pem) => pem.clone(),
            Roots::File(path) => std::fs::read(path)
                .map_err(|error| ConnectError::Tls(format!("cannot read {}: {error}", path.display()).into()))?,
        };
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| ConnectError::Tls(error.into()))?;
            store.add(certificate).map_err(|error| ConnectError::Tls(error.into()))?;
        }
        if store.is_empty() {
            return Err(ConnectError::Config("there is no root certificate: set `Config::roots`".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| ConnectError::Tls(error.into()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| ConnectError::Tls(error.into()))?;
        Ok(Self { crypto: Arc::new(crypto) })
    }

    /// Opens a session, on the first address that leads to a broker.
    pub(super) async fn dial(&self, config: &Config, cursors: &[Cursor]) -> Result<Link, Attempt> {
        let token = config.token.token().await.map_err(Attempt::Token)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Attempt::Token("it is longer than 4 KiB".into()));
        }
        let addresses = tokio::net::lookup_host(&config.address).await.map_err(Attempt::Resolve)?;
        let mut failed = Attempt::Resolve(std::io::Error::other("the name has no address"));
        for address in addresses {
            let hello = Hello {
                version: VERSION,
                device: config.device,
                producer: config.producer.unwrap_or(ProducerId(0)),
                newest: config.newest.unwrap_or(NEWEST_ALL),
                token: token.as_str().into(),
                client: config.client.as_str().into(),
                cursors: cursors.to_vec(),
            };
            let limit = Duration::from_millis(limits::HANDSHAKE_TIMEOUT_MS);
            let shaken = tokio::time::timeout(limit, self.shake_hands(config, address, &hello)).await;
            match shaken.unwrap_or(Err(Attempt::Timeout)) {
                Ok(link) => return Ok(link),
                // A broker that answered speaks for all its addresses.
                Err(refused @ Attempt::End(End::Closed { .. } | End::Broken { .. })) => return Err(refused),
                Err(other) => failed = other,
            }
        }
        Err(failed)
    }

    async fn shake_hands(&self, config: &Config, address: SocketAddr, hello: &Hello) -> Result<Link, Attempt> {
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let endpoint = Endpoint::client(SocketAddr::new(any, 0)).map_err(Attempt::Socket)?;
        let mut quic = quinn::ClientConfig::new(Arc::clone(&self.crypto) as Arc<_>);
        quic.transport_config(Arc::new(transport()));
        let connecting = endpoint.connect_with(quic, address, &config.server_name);
        let connecting = connecting.map_err(|error| match error {
            quinn::ConnectError::InvalidServerName(name) => Attempt::Name(name),
            other => Attempt::Socket(std::io::Error::other(other)),
        })?;
        let connection = connecting.await.map_err(handshake_failed)?;
        open(endpoint, connection, hello).await.map_err(Attempt::End)
    }
}

async fn open(endpoint: Endpoint, connection: quinn::Connection, hello: &Hello) -> Result<Link, End> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_chunk(hello.to_bytes()).await?;
    let mut reader = FrameReader::new(recv);
    let opened = reader.next().await.and_then(|frame| match frame {
        Frame::Welcome(welcome) if welcome.version == VERSION => Ok(welcome),
        other => Err(End::unexpected(other.name(), "control")),
    });
    let welcome = opened.inspect_err(|end| close(&connection, end))?;
    let publish = match hello.producer {
        ProducerId(0) => None,
        _ => {
            let (send, recv) = connection.open_bi().await?;
            Some((send, FrameReader::new(recv)))
        }
    };
    let token = hello.token.as_str().to_owned();
    Ok(Link { endpoint, connection, control: (send, reader), publish, welcome, token })
}

/// Closes the connection as its end wants it.
pub(super) fn close(connection: &quinn::Connection, end: &End) {
    match end {
        End::Broken { code, text } => connection.close(VarInt::from_u32(u32::from(code.0)), text.as_bytes()),
        End::Asked | End::Closed { .. } | End::Lost(_) | End::Store(_) => connection.close(VarInt::from_u32(0), b""),
    }
}

/// Alerts of TLS come as transport errors with these codes (RFC 9001, section 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

fn handshake_failed(error: ConnectionError) -> Attempt {
    match error {
        ConnectionError::TransportError(ref transport) if CRYPTO_ERRORS.contains(&u64::from(transport.code)) => {
            Attempt::Tls(error.into())
        }
        ConnectionError::ConnectionClosed(ref close) if CRYPTO_ERRORS.contains(&u64::from(close.error_code)) => {
            Attempt::Tls(error.into())
        }
        other => Attempt::End(other.into()),
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.minimum_change(limits::MTU_CHANGE_BYTES_MIN);
    let keep_alive_ms = limits::KEEP_ALIVE_FIRST_MS + random::u64() % limits::KEEP_ALIVE_SPREAD_MS;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::LANES_MAX))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_RECEIVE_BYTES))
        .receive_window(VarInt::from_u32(limits::CONNECTION_RECEIVE_BYTES))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(limits::IDLE_TIMEOUT_MS))))
        .mtu_discovery_config(Some(discovery))
        .keep_alive_interval(Some(Duration::from_millis(keep_alive_ms)))
        .datagram_receive_buffer_size(Some(limits::DATAGRAMS_RECEIVE_BYTES));
    transport
}
