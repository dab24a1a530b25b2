//! Binding: a group of server endpoints on one address, or a client's endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn_proto as quic;

use crate::config::{ConfigRefused, TransportConfig};
use crate::endpoint::{ClientRole, Endpoint, Parts, WAKE_TOKEN};
use crate::keys::GroupKeys;
use crate::limits::THREADS_MAX;
use crate::reuseport;
use crate::socket::{self, Socket};
use crate::steer::{Neighbour, OwnedIds, Steering};
use crate::waker::{Clock, Waker};

impl Endpoint {
    /// Binds `threads` endpoints to one address, one for each thread that will drive one. Each has its own socket
    /// and its own connections. With port 0 the first socket picks the port for all.
    ///
    /// `tls` brings the certificate, the protocol names (ALPN) and whether clients need a certificate. If the
    /// kernel will not steer packets, a warning says so and the endpoints hand them over among themselves.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with a [`ConfigRefused`], or what the kernel says of the sockets.
    pub fn bind_group(
        address: SocketAddr,
        threads: usize,
        tls: Arc<rustls::ServerConfig>,
        config: TransportConfig,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Vec<Self>> {
        config.check()?;
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(ConfigRefused::Threads.into());
        }
        let keys = GroupKeys::new(tls.crypto_provider(), config.reset_key)?;
        let server = Arc::new(config.server_config(tls, &keys)?);
        let sockets = bind_all(address, threads)?;
        if threads > 1 && config.steer_in_kernel {
            let count = u32::try_from(threads).expect("threads are at most 64");
            if let Err(error) = reuseport::attach(&sockets[0], count) {
                tracing::warn!(%error, "the kernel does not steer packets; they are handed over between threads");
            }
        }
        let mut pollers = Vec::with_capacity(threads);
        let mut neighbours = Vec::with_capacity(threads);
        for _ in 0..threads {
            let poll = mio::Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE_TOKEN)?;
            neighbours.push(Neighbour::new(waker.clone()));
            pollers.push((poll, waker));
        }
        let neighbours: Arc<[Neighbour]> = neighbours.into();
        let places = sockets.into_iter().zip(pollers).enumerate();
        places
            .map(|(index, (io, (poll, waker)))| {
                let socket = Socket::new(io, &config)?;
                Self::assemble(Parts {
                    quic: quic_endpoint(&keys, Some(server.clone()), &socket, index, threads),
                    socket,
                    poll,
                    waker,
                    steering: Steering::new(index, neighbours.clone()),
                    client: None,
                    config: config.clone(),
                    clock: clock.clone(),
                })
            })
            .collect()
    }

    /// Binds an endpoint from which connections are begun; many of them share its socket. `local` is mostly the
    /// unspecified address with port 0.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with a [`ConfigRefused`], or what the kernel says of the socket.
    pub fn client(
        local: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        config: TransportConfig,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        config.check()?;
        let keys = GroupKeys::new(tls.crypto_provider(), config.reset_key)?;
        let client =
            ClientRole { config: config.client_config(tls)?, variants: config.transport_variants(), connects: 0 };
        let socket = Socket::new(socket::bind(local, false)?, &config)?;
        let poll = mio::Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE_TOKEN)?;
        let alone: Arc<[Neighbour]> = Arc::new([Neighbour::new(waker.clone())]);
        Self::assemble(Parts {
            quic: quic_endpoint(&keys, None, &socket, 0, 1),
            socket,
            poll,
            waker,
            steering: Steering::new(0, alone),
            client: Some(client),
            config,
            clock,
        })
    }
}

/// Binds the sockets in the order of their owners, which is how the kernel will count them.
fn bind_all(mut address: SocketAddr, threads: usize) -> io::Result<Vec<UdpSocket>> {
    // Sockets that share their port would let another process of the same owner share it too, and the kernel would deal
    // connections out to both. One that shares nothing tells whether somebody is there.
    drop(UdpSocket::bind(address)?);
    let mut sockets = Vec::with_capacity(threads);
    for _ in 0..threads {
        let socket = socket::bind(address, threads > 1)?;
        address.set_port(socket.local_addr()?.port());
        sockets.push(socket);
    }
    Ok(sockets)
}

fn quic_endpoint(
    keys: &Arc<GroupKeys>,
    server: Option<Arc<quic::ServerConfig>>,
    socket: &Socket,
    index: usize,
    threads: usize,
) -> quic::Endpoint {
    let owner = u8::try_from(index).expect("threads are at most 64");
    let threads = u8::try_from(threads).expect("threads are at most 64");
    let mut config = quic::EndpointConfig::new(keys.clone());
    config.cid_generator(move || Box::new(OwnedIds::new(owner, threads)));
    quic::Endpoint::new(Arc::new(config), server, !socket.may_fragment(), None)
}
