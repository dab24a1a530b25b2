//! What bounds a run, each with its derivation.

use std::time::Duration;

use carillon_protocol::limits::PRODUCER_WINDOW;

/// Sessions of a run: about 20 KB each make 10 GB. One endpoint has room for 100,000, so that more need more sockets.
pub const SESSIONS_MAX: u32 = 500_000;

/// Messages of a run: a bit and a moment each are kept, and numbered by a `u32`.
pub const MESSAGES_MAX: u32 = 1_000_000;

/// Members of the group of a storm, connected or not: what the broker allows a group.
pub const MEMBERS_MAX: u32 = 1_000_000;

/// Online authors of a storm: each writes a message that goes to every session.
pub const AUTHORS_MAX: u32 = 100;

/// Groups that the probe of a storm publishes into, with one listener each.
pub const LISTENERS_MAX: u32 = 1_000;

/// Devices that get a backlog and DINGs at the same time, and sessions that send DINGs.
pub const DEVICES_MAX: u32 = 1_000;

/// Things that a probe sends a second, so that a run of minutes stays within what is kept of each, 20 bytes.
pub const RATE_MAX: u32 = 200_000;

/// Sockets: each is polled in every turn.
pub const SOCKETS_MAX: u16 = 64;

/// Handshakes at once: the broker asks for a proof of address from 256 on, and drops first packets above 4,096.
pub const CONNECTING_MAX: u32 = 2_000;

/// Messages after which a session acknowledges: the SDK's.
pub const ACK_MESSAGES: u32 = 100;

/// Milliseconds from one acknowledgement to the next: the SDK's.
pub const ACK_MS: u32 = 5_000;

/// A payload begins with the number of the run and that of the message, 8 bytes each.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// Marks sent in a turn, so that what comes in is looked at in between.
pub(crate) const MARKS_A_TURN: usize = 512;

/// How often the broker tells an author of a large conversation how many have read, as docs/RECEIPTS.md has it.
pub(crate) const COUNTS_EVERY: Duration = Duration::from_millis(200);

/// Members up to which a conversation names its readers live, as docs/RECEIPTS.md has it.
pub(crate) const NAMED_MEMBERS_MAX: u32 = 200;

/// What a DING must keep at p99 on loopback while a backlog streams to the same device.
pub(crate) const DING_GOAL: Duration = Duration::from_millis(20);

/// Taken from a stream at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Publishes encoded and handed to the stream at once; the next ones follow when they are taken.
pub(crate) const PUBLISH_BYTES_A_WRITE: usize = 64 * 1024;

/// Publishes of a person without an answer: as many as the protocol lets, so that it is never the window that holds them back.
pub(crate) const AUTHOR_WINDOW: u32 = 1_024;

/// Publishes without an answer, as the protocol has it.
pub(crate) const WINDOW: u64 = PRODUCER_WINDOW;

/// What was refused as too much at once is sent again after this.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// The longest sleep when nothing happens: so late a run may see that it is over.
pub(crate) const IDLE_WAIT: Duration = Duration::from_millis(1);

/// How often the broker's resident memory is looked at.
pub(crate) const RESIDENT_EVERY: Duration = Duration::from_secs(1);

/// How soon after an overload everything must be as before.
pub(crate) const BACK_TO_NORMAL: Duration = Duration::from_secs(30);

/// "As before" is nine of ten within so many times what 99 of 100 took before.
pub(crate) const NORMAL_FACTOR: f64 = 2.0;

/// What is looked at together for it, so that one hiccup of the machine is not taken for the strain's.
pub(crate) const NORMAL_WINDOW: Duration = Duration::from_secs(5);

/// What a flood of handshakes may do to the p99 of others.
pub(crate) const FLOOD_P99_FACTOR: f64 = 2.0;

/// First packets that are made and sent again and again: at 20,000 a second each comes once in 0.2 s.
pub(crate) const FIRST_PACKETS: usize = 4_096;

/// Those made by one client endpoint: what a socket's receive buffer of 212 kB surely holds.
pub(crate) const FIRST_PACKETS_AT_ONCE: usize = 64;

/// Sockets that a flood comes from.
pub(crate) const FLOOD_SOCKETS: usize = 16;

/// Messages that hoarders ask for, and their size: more than two pages of history hold, of which there is none without them.
pub(crate) const HOARD_MESSAGES: u32 = 64;
pub(crate) const HOARD_PAYLOAD_BYTES: usize = 4_096;

/// What one session can make a broker hold, as docs/OPERATIONS.md has it: 8 MiB on its edge, and what the transport's windows let
/// QUIC hold.
pub(crate) const SESSION_KIB_MAX: u64 = 8 * 1_024 + 256 + 32 + 256 + 16;

/// How long the thread of a flood sleeps between what is due.
pub(crate) const FLOOD_TICK: Duration = Duration::from_millis(1);

/// From point to point of a time series: what `/proc` counts in hundredths is then right to a percent.
pub(crate) const POINT_EVERY: Duration = Duration::from_secs(1);

/// Share of the CPU that its threads can have, above which it is the generator that is measured: what is left is what the kernel
/// takes for switching.
pub(crate) const OWN_BUSY_SHARE: f64 = 0.9;

/// How late something may be sent before it is said that latencies may be the generator's own: some turns of the scheduler between
/// processes that share a core.
pub(crate) const OWN_LATE: Duration = Duration::from_millis(10);

/// Share of all cores, of broker and generator together, above which it is the machine that is measured.
pub(crate) const MACHINE_BUSY_SHARE: f64 = 0.95;

/// How often a phase that takes long says how far it is.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Tokens outlive the run by this.
pub(crate) const TOKEN_MARGIN: Duration = Duration::from_secs(600);

/// How long sessions are left alone before it counts what they cost: the wake of connecting, or of a burst, with the last acknowledgements.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);

/// A broker that has taken less of a core than this, in a look of so long, has done what the preparation left it to do; it is waited for so
/// long at most. A million memberships are on disk after some 10 s on a core of their own.
pub(crate) const SETTLED_CORE_SHARE: f64 = 0.2;
pub(crate) const SETTLED_LOOK: Duration = Duration::from_secs(1);
pub(crate) const SETTLED_MAX: Duration = Duration::from_secs(120);

/// What coming back to a hundred missed messages may take, in multiples of the bare handshakes.
pub(crate) const CAUGHT_UP_FACTOR: f64 = 3.0;

/// Pairs that write to each other: each session has two streams of its own to write on, and a message of each is under way.
pub const PAIRS_MAX: u32 = 50_000;

/// Messages a second that are due by the clock, of all authors together: more than a core can send.
pub const OFFERED_MAX: u32 = 1_000_000;

/// Members of a group at an office: what one of them keeps of the others' conversations is small.
pub const GROUP_MAX: u32 = 1_000;

/// Tickets that nobody has taken yet: two for each session of the largest run, 2 KB each. Then the oldest goes.
pub(crate) const TICKETS_MAX: usize = 2 * SESSIONS_MAX as usize;

/// What the broker gets to let go of sessions that have left, before something is measured: some round trips on loopback, and the time
/// in which it drains their connections.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// Turns spent on telling the broker that the sessions end.
pub(crate) const FAREWELL_TURNS: u32 = 100;

/// Requests on their way to the thread of a probe: the run makes no more than four.
pub(crate) const COMMANDS_MAX: usize = 8;

/// The largest latency that is told apart, in microseconds: ten minutes. Larger ones count as this.
pub(crate) const LATENCY_US_MAX: u64 = 600_000_000;

/// What a peer may send before its meaning is clear: a payload of 64 KiB with its head, and the greeting of NATS with the
/// addresses of a large cluster, many times over.
pub(crate) const PEER_LINE_BYTES_MAX: usize = 1_024 * 1_024;

/// Messages of one MQTT connection without an acknowledgement: their identifiers are 16 bits, and never 0.
pub(crate) const PEER_WINDOW_MAX: u32 = 65_535;

/// What is read of a peer's connection at once: a TLS record.
pub(crate) const PEER_READ_BYTES: usize = 16 * 1024;

/// How far ahead of a due time the thread stops to sleep and begins to look: timers count whole milliseconds and round up.
pub(crate) const PEER_AWAKE: Duration = Duration::from_millis(2);

/// How often a run looks at what has become of it, with nothing due.
pub(crate) const PEER_LOOK: Duration = Duration::from_millis(10);

/// What a run leaves on the disk of a peer while it lasts: half a minute of 200,000 small messages a second; then the oldest go.
pub(crate) const PEER_STREAM_BYTES_MAX: u64 = 1_024 * 1_024 * 1_024;

/// Producers of a run, with a connection each.
pub const PRODUCERS_MAX: u32 = 1_000;
