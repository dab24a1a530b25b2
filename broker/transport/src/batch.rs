//! Sending: one `sendmmsg` for the packets of many connections, GSO within one connection's.
//!
//! The buffers belong to the batch and are shared by all connections: one kept by each would cost 16 KB a
//! connection. QUIC repeats what is lost, so that an error here is counted and never returned.
#![allow(unsafe_code, reason = "neither std nor quinn-udp 0.5 has sendmmsg over many destinations")]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use quinn_proto as quic;
use socket2::SockAddr;

use crate::limits::{GSO_SEGMENTS_MAX, SEND_BATCH, SEND_WAIT_MS, SEND_WAITS_MAX};
use crate::stats::Stats;

/// Room for the three control messages that one packet can need: IP_TOS or IPV6_TCLASS (24 bytes),
/// UDP_SEGMENT (24) and IPV6_PKTINFO (40).
const CONTROL_BYTES_MAX: usize = 88;
/// Control messages are aligned like a `size_t` (`CMSG_ALIGN`).
const CONTROL_ALIGN: usize = align_of::<libc::cmsghdr>();

/// The ancillary data of one message: `cmsghdr` records end to end.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    used: usize,
}

impl Control {
    /// Appends one record: length (`size_t`), level and type (`int`), data, padding.
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let header_bytes = size_of::<libc::cmsghdr>();
        let record_bytes = header_bytes + data.len();
        let record = &mut self.bytes[self.used..self.used + record_bytes];
        record[..size_of::<usize>()].copy_from_slice(&record_bytes.to_ne_bytes());
        record[header_bytes - 8..header_bytes - 4].copy_from_slice(&level.to_ne_bytes());
        record[header_bytes - 4..header_bytes].copy_from_slice(&kind.to_ne_bytes());
        record[header_bytes..].copy_from_slice(data);
        self.used += record_bytes.next_multiple_of(CONTROL_ALIGN);
    }
}

/// One message: a datagram, or several of one size (the last may be shorter) for one destination.
struct Message {
    payload: Vec<u8>,
    destination: SocketAddr,
    segment_bytes: Option<u16>,
    control: Control,
}

impl Message {
    fn packets(&self) -> u64 {
        let segment_bytes = self.segment_bytes.map_or(self.payload.len(), usize::from).max(1);
        self.payload.len().div_ceil(segment_bytes) as u64
    }

    /// Describes how the payload in the buffer is to be sent.
    fn address(&mut self, transmit: &quic::Transmit) {
        debug_assert_eq!(transmit.size, self.payload.len());
        self.destination = transmit.destination;
        self.segment_bytes = transmit
            .segment_size
            .filter(|segment| *segment < transmit.size)
            .map(|segment| u16::try_from(segment).expect("a datagram has at most 65,527 bytes"));
        self.control.used = 0;
        if transmit.ecn != Some(quic::EcnCodepoint::Ect0) {
            // All else is the socket's own mark.
            let mark = transmit.ecn.map_or(0, |ecn| ecn as i32).to_ne_bytes();
            if is_ipv4(transmit.destination.ip()) {
                self.control.push(libc::IPPROTO_IP, libc::IP_TOS, &mark);
            } else {
                self.control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark);
            }
        }
        if let Some(segment_bytes) = self.segment_bytes {
            self.control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment_bytes.to_ne_bytes());
        }
        match transmit.src_ip {
            // struct in_pktinfo: interface index, the source address, an address that only receipt fills.
            Some(IpAddr::V4(source)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&source.octets());
                self.control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            // struct in6_pktinfo: the source address, interface index.
            Some(IpAddr::V6(source)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&source.octets());
                self.control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
    }
}

fn is_ipv4(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    }
}

/// Packets that wait for one system call.
pub(crate) struct Batch {
    messages: Vec<Message>,
    filled: usize,
    segments_max: usize,
}

impl Batch {
    /// A batch for a socket whose kernel joins at most `segments_max` datagrams.
    pub(crate) fn new(segments_max: usize) -> Self {
        let messages = (0..SEND_BATCH)
            .map(|_| Message {
                payload: Vec::new(),
                destination: SocketAddr::from(([0, 0, 0, 0], 0)),
                segment_bytes: None,
                control: Control { bytes: [0; CONTROL_BYTES_MAX], used: 0 },
            })
            .collect();
        Self { messages, filled: 0, segments_max: segments_max.min(GSO_SEGMENTS_MAX) }
    }

    /// How many datagrams one message may hold.
    pub(crate) fn segments_max(&self) -> usize {
        self.segments_max
    }

    /// Lets `build` write a message into the next buffer, and sends the batch when it is full. Returns
    /// whether `build` made one.
    pub(crate) fn fill(
        &mut self,
        socket: &UdpSocket,
        stats: &mut Stats,
        build: impl FnOnce(&mut Vec<u8>) -> Option<quic::Transmit>,
    ) -> bool {
        let message = &mut self.messages[self.filled];
        message.payload.clear();
        let Some(transmit) = build(&mut message.payload) else {
            return false;
        };
        message.payload.truncate(transmit.size);
        message.address(&transmit);
        self.filled += 1;
        if self.filled == self.messages.len() {
            self.flush(socket, stats);
        }
        true
    }

    /// Sends everything that waits. Waits for room in the socket's buffer, but not for ever: what does not fit
    /// after [`SEND_WAITS_MAX`] waits is dropped and counted.
    pub(crate) fn flush(&mut self, socket: &UdpSocket, stats: &mut Stats) {
        let mut done = 0;
        let mut waits = 0;
        while done < self.filled {
            let waiting = &self.messages[done..self.filled];
            match send_messages(socket, waiting) {
                Ok(sent) => {
                    stats.sends += 1;
                    stats.packets_sent += waiting[..sent].iter().map(Message::packets).sum::<u64>();
                    done += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if waits == SEND_WAITS_MAX {
                        stats.send_dropped += waiting.iter().map(Message::packets).sum::<u64>();
                        break;
                    }
                    waits += 1;
                    stats.send_waits += 1;
                    wait_writable(socket);
                }
                Err(error) => {
                    self.refused(done, &error, socket, stats);
                    done += 1;
                }
            }
        }
        self.filled = 0;
    }

    /// The kernel refused the message at `index`. An oversized path probe is meant to fail; a driver that cannot
    /// segment gets the datagrams one by one, and no joined ones any more.
    fn refused(&mut self, index: usize, error: &io::Error, socket: &UdpSocket, stats: &mut Stats) {
        let message = &self.messages[index];
        let segmentation_failed = matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL));
        match message.segment_bytes {
            Some(segment_bytes) if segmentation_failed => {
                tracing::info!(%error, "segmentation offload failed and is switched off");
                self.segments_max = 1;
                for datagram in message.payload.chunks(segment_bytes.into()) {
                    match socket.send_to(datagram, message.destination) {
                        Ok(_) => stats.packets_sent += 1,
                        Err(_error) => stats.send_refused += 1,
                    }
                }
            }
            _ => {
                tracing::trace!(%error, destination = %message.destination, "a packet was not sent");
                stats.send_refused += message.packets();
            }
        }
    }
}

/// Sends the messages in order; returns how many the kernel took, at least one.
fn send_messages(socket: &UdpSocket, messages: &[Message]) -> io::Result<usize> {
    debug_assert!(!messages.is_empty() && messages.len() <= SEND_BATCH);
    // SAFETY: all three are plain C structures for which zero bytes are a valid value (null pointers, no lengths).
    let (mut headers, mut slices): ([libc::mmsghdr; SEND_BATCH], [libc::iovec; SEND_BATCH]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut addresses: [Option<SockAddr>; SEND_BATCH] = [const { None }; SEND_BATCH];
    for (index, message) in messages.iter().enumerate() {
        let address = &*addresses[index].insert(message.destination.into());
        slices[index] =
            libc::iovec { iov_base: message.payload.as_ptr().cast_mut().cast(), iov_len: message.payload.len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len();
        header.msg_iov = &raw mut slices[index];
        header.msg_iovlen = 1;
        if message.control.used > 0 {
            header.msg_control = message.control.bytes.as_ptr().cast_mut().cast();
            header.msg_controllen = message.control.used as _;
        }
    }
    let count = libc::c_uint::try_from(messages.len()).expect("a batch has 64 messages");
    // SAFETY: the descriptor is open as long as `socket` is borrowed. The first `count` headers point at addresses,
    // slices and control data of the stated lengths, in `addresses`, `slices` and `messages`, none of which moves or
    // ends before the call returns. Sending only reads through the pointers, but for `msg_len` in `headers`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// Waits until the socket takes packets again, [`SEND_WAIT_MS`] at most.
fn wait_writable(socket: &UdpSocket) {
    let mut wanted = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid `pollfd` is passed, with its count; the descriptor is open as long as `socket` is borrowed.
    // The result is not needed: whether there is room shows in the next attempt to send.
    unsafe {
        libc::poll(&raw mut wanted, 1, SEND_WAIT_MS);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn receiver(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn transmit(to: &UdpSocket, size: usize) -> quic::Transmit {
        quic::Transmit {
            destination: to.local_addr().unwrap(),
            ecn: Some(quic::EcnCodepoint::Ect0),
            size,
            segment_size: None,
            src_ip: None,
        }
    }

    /// Sends one payload and returns the datagrams that arrive, `count` of them.
    fn check(address: &str, count: usize, payload: &[u8], change: impl FnOnce(&mut quic::Transmit)) -> Vec<Vec<u8>> {
        let receiver = receiver(address);
        let sender = UdpSocket::bind(address).unwrap();
        let mut stats = Stats::default();
        let mut batch = Batch::new(64);
        let mut sent = transmit(&receiver, payload.len());
        change(&mut sent);
        assert!(batch.fill(&sender, &mut stats, |buffer| {
            buffer.extend_from_slice(payload);
            Some(sent)
        }));
        batch.flush(&sender, &mut stats);
        assert_eq!(stats.packets_sent, count as u64);
        let mut buffer = [0; 2_000];
        (0..count)
            .map(|_| {
                let length = receiver.recv(&mut buffer).unwrap();
                buffer[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn messages_arrive_in_order_over_several_system_calls() {
        let (first, second) = (receiver("127.0.0.1:0"), receiver("[::1]:0"));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender6 = UdpSocket::bind("[::1]:0").unwrap();
        let mut stats = Stats::default();
        for (sender, receiver) in [(&sender, &first), (&sender6, &second)] {
            let mut batch = Batch::new(1);
            for number in 0..150_u32 {
                batch.fill(sender, &mut stats, |buffer| {
                    buffer.extend_from_slice(&number.to_ne_bytes());
                    Some(transmit(receiver, 4))
                });
            }
            batch.flush(sender, &mut stats);
            for number in 0..150_u32 {
                let mut buffer = [0; 8];
                assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
                assert_eq!(buffer[..4], number.to_ne_bytes());
            }
        }
        assert_eq!((stats.packets_sent, stats.sends), (300, 6));
    }

    #[test]
    fn the_kernel_cuts_a_joined_message() {
        let payload: Vec<u8> = (0..3_100_u32).map(|byte| byte.to_ne_bytes()[0]).collect();
        let datagrams = check("127.0.0.1:0", 3, &payload, |sent| sent.segment_size = Some(1_200));
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [1_200, 1_200, 700]);
        assert_eq!(datagrams.concat(), payload);
    }

    #[test]
    fn every_control_message_is_accepted_by_the_kernel() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let source = address.parse::<SocketAddr>().unwrap().ip();
            let datagrams = check(address, 2, &[5; 2_000], |sent| {
                sent.ecn = None;
                sent.segment_size = Some(1_000);
                sent.src_ip = Some(source);
            });
            assert_eq!(datagrams, [vec![5; 1_000], vec![5; 1_000]]);
        }
    }

    #[test]
    fn a_refused_message_is_counted_and_does_not_hold_the_others() {
        let receiver = receiver("127.0.0.1:0");
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut stats = Stats::default();
        let mut batch = Batch::new(1);
        // More than a UDP datagram can have: EMSGSIZE, as for a path probe.
        for size in [4, 65_530, 4] {
            batch.fill(&sender, &mut stats, |buffer| {
                buffer.resize(size, 1);
                Some(transmit(&receiver, size))
            });
        }
        batch.flush(&sender, &mut stats);
        assert_eq!((stats.packets_sent, stats.send_refused), (2, 1));
        for _ in 0..2 {
            assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 4);
        }
    }
}
