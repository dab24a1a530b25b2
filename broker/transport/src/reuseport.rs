//! Tells the kernel how to choose among the sockets of a group: the rule of `steer`, as a classic BPF
//! program attached to the `SO_REUSEPORT` group.
#![allow(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF takes a raw program; no safe wrapper exists")]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use crate::steer::{LONG_HEADER_BIT, LONG_ID_OFFSET, SHORT_ID_OFFSET};

/// The program: `packet[packet[0] & 0x80 ? 6 : 1] % sockets`, with offset 0 at the UDP payload. A packet too
/// short for its load ends the program with 0, the first socket, which drops it.
#[expect(clippy::cast_possible_truncation, reason = "operation codes fit in the kernel's 16 bits")]
fn program(sockets: u32) -> [libc::sock_filter; 7] {
    let load_byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    [
        step(load_byte, 0, 0, 0),
        // Long header: on to the next step; short header: over two.
        step((libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, 0, 2, LONG_HEADER_BIT.into()),
        step(load_byte, 0, 0, LONG_ID_OFFSET.into()),
        step((libc::BPF_JMP | libc::BPF_JA) as u16, 0, 0, 1),
        step(load_byte, 0, 0, SHORT_ID_OFFSET.into()),
        step((libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16, 0, 0, sockets),
        step((libc::BPF_RET | libc::BPF_A) as u16, 0, 0, 0),
    ]
}

/// Attaches the program to the group that `socket` belongs to. Sockets count in the order in which they were
/// bound, so all must be bound, in the order of their owners.
///
/// # Errors
///
/// The kernel refused, for instance because it is older than 4.6 or the call is filtered. The group then works
/// by hand-over alone.
pub(crate) fn attach(socket: &UdpSocket, sockets: u32) -> io::Result<()> {
    let mut steps = program(sockets);
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).expect("the program has seven steps"),
        filter: steps.as_mut_ptr(),
    };
    let program_bytes = libc::socklen_t::try_from(size_of_val(&program)).expect("a sock_fprog has 16 bytes");
    // SAFETY: the descriptor is open as long as `socket` is borrowed; `program` is a valid `sock_fprog` of the
    // stated size, and points at `len` instructions in `steps`, which outlives the call. The kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            program_bytes,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::steer::owner_of;

    /// Every first byte of an id, in both headers, arrives at the socket that `owner_of` names.
    #[test]
    fn the_kernel_and_the_hand_over_agree() {
        const THREADS: usize = 3;
        let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut sockets = Vec::new();
        for _ in 0..THREADS {
            let socket = crate::socket::bind(address, true).unwrap();
            address = socket.local_addr().unwrap();
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            sockets.push(socket);
        }
        attach(&sockets[0], u32::try_from(THREADS).unwrap()).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for id in 0..=u8::MAX {
            for packet in [vec![0x40, id, 9, 9], vec![0xc0, 0, 0, 0, 1, 8, id, 9]] {
                sender.send_to(&packet, address).unwrap();
                let mut received = [0; 16];
                let owner = owner_of(&packet, THREADS).unwrap();
                let length = sockets[owner].recv(&mut received).unwrap();
                assert_eq!(received[..length], packet);
            }
        }
    }
}
