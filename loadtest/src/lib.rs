//! Carillon's load generator: thousands of sessions in one thread, against a broker that runs elsewhere.
//!
//! Owns its sessions from the first packet to the last, on the broker's own transport in the client role: no task and no
//! thread a session. It speaks the protocol as any client must (`Hello`, lanes, acknowledgements, keep-alives) and
//! checks what it gets: a delivery that is missing, repeated or out of order makes the run fail, however fast it was.
//! Knows nothing of the broker's inside; what a run costs the broker it reads from `/proc`.
//!
//! Invariants: a run is bounded in sessions, messages and time and ends by itself. Load is open: messages are due by a
//! schedule, and a latency counts from there, so that a broker that stalls is not asked less.

mod admission;
mod authors;
mod backlog;
pub mod basis;
pub mod broadcast;
mod channel;
pub mod clock;
pub mod connect;
mod crew;
pub mod ding;
mod ding_frames;
mod dinger;
pub mod failure;
pub mod fanout;
mod fleet;
pub mod idle;
mod inboxes;
mod kernel;
pub mod latency;
pub mod limits;
pub mod mixed;
pub mod others;
pub mod pairwise;
pub mod peers;
pub mod phases;
mod probe;
pub mod process;
pub mod publish;
mod publisher;
mod pushes;
pub mod receipts;
pub mod reconnect;
pub mod report;
mod requests;
mod rig;
pub mod samples;
mod schedule;
mod session;
pub mod strain;
pub mod summary;
pub mod table;
pub mod target;
mod tickets;
mod tls;
mod token;
mod watch;
