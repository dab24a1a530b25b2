//! The bounds of the loop that no configuration changes, each with its derivation.

use std::time::Duration;

/// Connection ids we issue: byte 0 tells the owner, 7 random bytes make 2^56 guesses.
pub(crate) const CONNECTION_ID_BYTES: usize = 8;

/// Endpoints of a group: byte 0 of a connection id modulo this must tell them apart, with at least
/// four values for each so that ids of one owner differ there too.
pub(crate) const THREADS_MAX: usize = 64;

/// Messages of one `recvmmsg`: quinn-udp's `BATCH_SIZE`.
pub(crate) const RECEIVE_BATCH: usize = quinn_udp::BATCH_SIZE;

/// Receive buffer of one message: the largest datagram that GRO builds (a 16-bit IP length).
pub(crate) const RECEIVE_BYTES_MAX: usize = 65_536;

/// What is asked of a connection's memory before its turn: all of its 6,336 bytes with quinn-proto 0.11.19, in 99 lines. `docs/PERFORMANCE.md`
/// has what less of it and more, its keys, were worth.
pub(crate) const PREFETCH_BYTES: usize = 8_192;

/// Batches received in one `poll`: 512 messages, about 2 ms of work, before the caller's turn.
pub(crate) const RECEIVE_BATCHES_MAX: usize = 16;

/// Handshakes begin with clients that have not proved their address once in so long, and this many at once after a pause; the further ones
/// must (a Retry, which costs less than a tenth). At some 270 µs each a flood of first packets takes half of the thread, and stalls it for 2 ms,
/// until so many run that everybody must: an eighth of a second. 2,000 a second is more than a core can finish, so that who comes
/// back in a crowd is seldom asked.
pub(crate) const UNPROVED_EVERY: Duration = Duration::from_micros(500);
pub(crate) const UNPROVED_AT_ONCE_MAX: u32 = 8;

/// Polls in a row that may leave the receive queue undrained before timers fire regardless: 64 of
/// 2 ms are an eighth of a second, so that a flood delays a loss probe and does not stop it.
pub(crate) const POLLS_UNDRAINED_MAX: u32 = 64;

/// Messages of one `sendmmsg`; more gains nothing measurable.
pub(crate) const SEND_BATCH: usize = 64;

/// Datagrams of one message by GSO: 10 of 1,452 bytes stay far below the kernel's 64 KiB and 64
/// segments, and bound a burst of one connection.
pub(crate) const GSO_SEGMENTS_MAX: usize = 10;

/// How long one wait for room in the socket's send buffer lasts, and how many are made for a batch:
/// 20 ms in all, less than a loss probe; what then does not fit is dropped and counted.
pub(crate) const SEND_WAIT_MS: i32 = 5;
pub(crate) const SEND_WAITS_MAX: u32 = 4;

/// Packets queued for one endpoint by its neighbours: a NAT rebinding moves one connection, so that
/// this covers a flight of each of a hundred; beyond it UDP may lose. At most 1.5 MiB.
pub(crate) const HANDOVER_QUEUE_MAX: usize = 1_024;

/// A handshake that takes longer is given up: four losses of a first flight take 333 ms × 15 = 5 s.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// One tick of the timer wheel: below the smallest deadline that matters (1 ms timer granularity of
/// RFC 9002, mostly far more), so that few wake-ups are shared by many connections.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// Buckets of the wheel, a power of two: 8,192 × 2 ms = 16.4 s; later deadlines go round again.
pub(crate) const WHEEL_BUCKETS: usize = 8_192;

/// Entries for which an empty bucket keeps its room: those of 100,000 connections with two each, and some more. 2 MiB a wheel.
pub(crate) const BUCKET_KEPT: usize = 64;

/// The least that a probe of the path's MTU may gain. Above half of what discovery could gain in all (1,452 - 1,200 bytes), so that the one
/// probe is of the most: searching took four, and QUIC reads each probe's padding byte by byte, 70 µs of a handshake's 400. A path that
/// takes less stays at 1,200.
pub(crate) const MTU_CHANGE_BYTES_MIN: u16 = 200;

/// Transport configurations that differ only in the keep-alive interval, dealt out in turn, so that
/// clients that connect together do not ping together.
pub(crate) const KEEP_ALIVE_VARIANTS: u32 = 16;

/// What a close reason is cut to, in bytes: it must fit in one packet of 1,200 bytes beside the
/// header, the frame and an acknowledgement.
pub(crate) const CLOSE_REASON_BYTES_MAX: usize = 512;
