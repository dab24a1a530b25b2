//! Counters of one endpoint.

/// What an endpoint has done since it was bound. All counts only grow.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// UDP datagrams received, those joined by GRO counted one by one.
    pub packets_received: u64,
    /// System calls that received at least one datagram.
    pub receives: u64,
    /// UDP datagrams sent, those joined by GSO counted one by one.
    pub packets_sent: u64,
    /// `sendmmsg` calls.
    pub sends: u64,
    /// Times the socket's send buffer was full and the endpoint waited for it.
    pub send_waits: u64,
    /// UDP datagrams dropped because the send buffer stayed full; QUIC sends their content again.
    pub send_dropped: u64,
    /// UDP datagrams that the kernel refused, oversized path probes among them.
    pub send_refused: u64,
    /// Packets handed to the endpoint of the group that owns them.
    pub handovers: u64,
    /// Packets received from other endpoints of the group.
    pub handovers_received: u64,
    /// Packets lost because the owner's hand-over queue was full.
    pub handovers_dropped: u64,
    /// Handshakes begun, in either role.
    pub handshakes_started: u64,
    /// Handshakes that ended without a connection.
    pub handshakes_failed: u64,
    /// Connection attempts refused: draining, or `connections_max` reached.
    pub connections_refused: u64,
    /// Connection attempts sent back to prove their address.
    pub retries: u64,
    /// Connection attempts dropped without an answer because `incoming_max` handshakes were running.
    pub incoming_dropped: u64,
    /// Timers that came due.
    pub timers_fired: u64,
}
