//! What is read of packets and tickets before, or beside, the QUIC library: which thread owns a packet; whether a session ticket is
//! ours.
//!
//! Input: a packet, or a ticket; sealed, what a ticket of ours holds, of which a byte is then changed.

use std::sync::{Arc, OnceLock};

use carillon::clock::SystemClock;
use carillon::tls::Tickets;
use carillon_transport::owner_of;
use rustls::server::ProducesTickets;

use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "packets",
    run,
    budget: Budget::fixed(4 * 1024),
    input_bytes_max: 2 * 1024,
    seeds,
    words: &[],
    short_inputs: 50_000,
};

/// As many endpoints as there may be: what a byte can tell apart.
const THREADS_MAX: usize = 64;

fn tickets() -> &'static Tickets {
    static TICKETS: OnceLock<Arc<Tickets>> = OnceLock::new();
    TICKETS.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        Tickets::open(&directory.path().join("ticket.keys"), Arc::new(SystemClock)).unwrap()
    })
}

fn run(input: &[u8]) {
    for threads in 1..=THREADS_MAX {
        if let Some(owner) = owner_of(input, threads) {
            assert!(owner < threads && input.len() > 1);
        }
    }
    assert_eq!(tickets().decrypt(input), None, "nobody knows the key");
    let mut sealed = tickets().encrypt(input).unwrap();
    assert_eq!(tickets().decrypt(&sealed).as_deref(), Some(input));
    let at = input.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())) % sealed.len();
    sealed[at] ^= 1 << (at % 8);
    assert_eq!(tickets().decrypt(&sealed), None, "byte {at} is another");
    sealed[at] ^= 1 << (at % 8);
    sealed.truncate(at);
    assert_eq!(tickets().decrypt(&sealed), None, "cut at {at}");
}

fn seeds() -> Vec<Vec<u8>> {
    let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 8], &[0; 40]].concat();
    vec![initial, [&[0x43][..], &[9; 30]].concat(), vec![0xff], b"session".to_vec()]
}
