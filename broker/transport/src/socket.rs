//! One UDP socket: binding with the options QUIC wants, and receiving in batches.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use quinn_proto as quic;
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

use crate::config::TransportConfig;
use crate::limits::{RECEIVE_BATCH, RECEIVE_BYTES_MAX};

/// ECT(0) of RFC 3168, which the kernel marks all packets with: cheaper than saying so with each.
const ECT0: u32 = 0b10;

/// The buffers that the kernel granted, as it counts them: on Linux twice the payload it allows for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketBuffers {
    /// Of the receive queue.
    pub receive_bytes: usize,
    /// Of the send queue.
    pub send_bytes: usize,
}

/// Binds a non-blocking UDP socket; `shared` lets further sockets bind the same address.
pub(crate) fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 too.
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A datagram within the receive buffers, with where it came from.
pub(crate) struct Received<'a> {
    pub(crate) remote: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<quic::EcnCodepoint>,
    pub(crate) bytes: &'a [u8],
}

/// A bound socket with its receive buffers.
pub(crate) struct Socket {
    pub(crate) io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// `RECEIVE_BATCH` buffers of `RECEIVE_BYTES_MAX` end to end: 2 MiB, of which only what is used becomes
    /// resident.
    buffers: Vec<u8>,
    metas: [RecvMeta; RECEIVE_BATCH],
}

impl Socket {
    pub(crate) fn new(io: UdpSocket, config: &TransportConfig) -> io::Result<Self> {
        let state = UdpSocketState::new((&io).into())?;
        let local = io.local_addr()?;
        let options = SockRef::from(&io);
        // The kernel cuts a wish to its own limit without an error.
        options.set_recv_buffer_size(config.socket_receive_buffer_bytes as usize)?;
        options.set_send_buffer_size(config.socket_send_buffer_bytes as usize)?;
        options.set_tos_v4(ECT0).or_else(|error| if local.is_ipv6() { Ok(()) } else { Err(error) })?;
        if local.is_ipv6() {
            options.set_tclass_v6(ECT0)?;
        }
        Ok(Self {
            io,
            state,
            local,
            buffers: vec![0; RECEIVE_BATCH * RECEIVE_BYTES_MAX],
            metas: [RecvMeta::default(); RECEIVE_BATCH],
        })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn buffers(&self) -> io::Result<SocketBuffers> {
        let options = SockRef::from(&self.io);
        Ok(SocketBuffers { receive_bytes: options.recv_buffer_size()?, send_bytes: options.send_buffer_size()? })
    }

    /// How many segments one message may have: 1 where the kernel has no GSO.
    pub(crate) fn gso_segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    pub(crate) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Receives what fits in one system call, and returns the number of messages; fewer than
    /// [`RECEIVE_BATCH`] mean that the queue was drained.
    pub(crate) fn receive(&mut self) -> io::Result<usize> {
        let mut chunks = self.buffers.chunks_exact_mut(RECEIVE_BYTES_MAX);
        let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] = std::array::from_fn(|_| {
            IoSliceMut::new(chunks.next().expect("there is one buffer for each message of a batch"))
        });
        self.state.recv((&self.io).into(), &mut slices, &mut self.metas)
    }

    /// The datagrams of the first `messages` of the last receipt.
    pub(crate) fn received(&self, messages: usize) -> impl Iterator<Item = Received<'_>> {
        // A socket bound to one address answers from it; the others must be told which of theirs to use.
        let answers_from_many = self.local.ip().is_unspecified();
        self.metas[..messages].iter().zip(self.buffers.chunks_exact(RECEIVE_BYTES_MAX)).flat_map(
            move |(meta, buffer)| {
                // A datagram without a byte has no stride, and a chunk of none is no chunk.
                buffer[..meta.len].chunks(meta.stride.max(1)).map(move |bytes| Received {
                    remote: meta.addr,
                    local_ip: meta.dst_ip.filter(|_| answers_from_many),
                    ecn: meta.ecn.map(ecn_of),
                    bytes,
                })
            },
        )
    }
}

fn ecn_of(ecn: quinn_udp::EcnCodepoint) -> quic::EcnCodepoint {
    match ecn {
        quinn_udp::EcnCodepoint::Ect0 => quic::EcnCodepoint::Ect0,
        quinn_udp::EcnCodepoint::Ect1 => quic::EcnCodepoint::Ect1,
        quinn_udp::EcnCodepoint::Ce => quic::EcnCodepoint::Ce,
    }
}
