//! Session tickets (RFC 8446 section 4.6.1) whose keys outlive the process and are forgotten in time.
//!
//! A ticket saves both sides a certificate and its signature when a client comes back, after a restart above all, when all
//! come at once; the broker keeps nothing a session for it. Two keys are in the file: tickets are sealed with the newer one and
//! opened by either. A key is replaced after twelve hours and erased after twenty-four, so a ticket is good for twelve hours at
//! least. On a disk without room the new key is used all the same: what it seals opens until a restart, unless the file was written
//! by then.
//!
//! ```text
//! file     one record a key, the newer first: u64 LE milliseconds since 1970 when it was made, 32 bytes of key
//! ticket   u64 LE that time of its key, 12 bytes of nonce, the sealed session (AES-256-GCM over all before it), 16 bytes of tag
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use carillon_protocol::ids::Timestamp;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::PacketKey;
use rustls::server::ProducesTickets;

use super::write_secret;
use crate::clock::Clock;
use crate::journal::is_no_room;

const KEY_BYTES: usize = 32;
const RECORD_BYTES: usize = 8 + KEY_BYTES;
const NONCE_BYTES: usize = 12;
const HEADER_BYTES: usize = 8 + NONCE_BYTES;

/// A key seals for so long. Twice it: a key opens for so long.
const KEY_MS: u64 = 12 * 3_600 * 1_000;

/// How often a running broker looks whether a key's time is over.
const LOOK_EVERY: Duration = Duration::from_mins(10);

/// Only the newer one seals.
#[derive(Clone)]
struct Key {
    made_at: Timestamp,
    bytes: [u8; KEY_BYTES],
}

impl Key {
    fn new(made_at: Timestamp) -> io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self { made_at, bytes })
    }

    fn opens_at(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.made_at.0) < 2 * KEY_MS
    }

    /// The AEAD under a nonce that is used once.
    fn cipher(&self, nonce: [u8; NONCE_BYTES]) -> Box<dyn PacketKey> {
        let suite = TLS13_AES_256_GCM_SHA384.tls13().expect("it is a suite of TLS 1.3");
        let quic = suite.quic.expect("it serves QUIC");
        quic.packet_key(AeadKey::from(self.bytes), Iv::from(nonce))
    }
}

/// Makes and opens tickets.
pub struct Tickets {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// The newer first; one at least.
    keys: ArcSwap<Vec<Key>>,
    /// Whether the file has them. Relaxed: one thread writes it, after the one that starts.
    saved: AtomicBool,
    write: Write,
}

/// Writes a file for its owner alone.
type Write = fn(&Path, &[u8]) -> io::Result<()>;

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tickets {
    /// The keys of a file, which is made if it is not there. One that must be renewed and cannot be, for want of room, is renewed
    /// later: a broker starts on a full disk.
    ///
    /// # Errors
    /// It cannot be read or written, or holds something else.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> io::Result<Arc<Self>> {
        Self::open_by(path, clock, write_secret)
    }

    fn open_by(path: &Path, clock: Arc<dyn Clock>, write: Write) -> io::Result<Arc<Self>> {
        let (keys, saved) = match fs::read(path) {
            Ok(bytes) => (parse(&bytes)?, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
            Err(error) => return Err(error),
        };
        let (path, keys) = (path.to_owned(), ArcSwap::from_pointee(keys));
        let tickets = Self { path, clock, keys, saved: AtomicBool::new(saved), write };
        match tickets.renew() {
            Err(error) if is_no_room(&error) => tickets.tell(&error),
            renewed => renewed?,
        }
        Ok(Arc::new(tickets))
    }

    /// Makes a new key if the newer one's time is over, and forgets what opens no ticket any more; writes the file if it has other
    /// keys.
    ///
    /// # Errors
    /// There is no randomness, and the keys are as before; or the file was not written: it will be when this is called again.
    pub fn renew(&self) -> io::Result<()> {
        let now = self.clock.wall();
        let mut keys = Vec::clone(&self.keys.load());
        keys.retain(|key| key.opens_at(now));
        let seals = keys.first().is_some_and(|key| now.0.saturating_sub(key.made_at.0) < KEY_MS);
        if !seals {
            keys.insert(0, Key::new(now)?);
            keys.truncate(2);
        }
        if !seals || keys.len() < self.keys.load().len() {
            self.saved.store(false, Ordering::Relaxed);
            self.keys.store(Arc::new(keys));
        }
        if !self.saved.load(Ordering::Relaxed) {
            self.save()?;
            self.saved.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn save(&self) -> io::Result<()> {
        let mut file = Vec::new();
        for key in &**self.keys.load() {
            file.extend(key.made_at.0.to_le_bytes());
            file.extend(key.bytes);
        }
        (self.write)(&self.path, &file)
    }

    fn tell(&self, error: &io::Error) {
        let path = self.path.display();
        tracing::error!(%error, %path, "the keys of session tickets are not in their file, and what was erased still is; tried again");
    }
}

fn parse(bytes: &[u8]) -> io::Result<Vec<Key>> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if records.is_empty() || records.len() > 2 || !rest.is_empty() {
        return Err(io::Error::other("expected one or two keys for session tickets: remove the file"));
    }
    let key = |record: &[u8; RECORD_BYTES]| {
        let (made_at, bytes) = record.split_first_chunk::<8>().expect("a record has more");
        let made_at = Timestamp(u64::from_le_bytes(*made_at));
        Key { made_at, bytes: bytes.try_into().expect("the rest of the record") }
    };
    Ok(records.iter().map(key).collect())
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(KEY_MS / 1_000).expect("twelve hours")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let mut header = key.made_at.0.to_le_bytes().to_vec();
        header.extend(nonce);
        let mut sealed = plain.to_vec();
        let tag = key.cipher(nonce).encrypt_in_place(0, &header, &mut sealed).ok()?;
        Some([&header[..], &sealed, tag.as_ref()].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (header, sealed) = ticket.split_at_checked(HEADER_BYTES)?;
        let (made_at, nonce) = header.split_first_chunk::<8>()?;
        let now = self.clock.wall();
        let keys = self.keys.load();
        let is_its = |key: &&Key| key.made_at.0.to_le_bytes() == *made_at && key.opens_at(now);
        let key = keys.iter().find(is_its)?;
        let mut sealed = sealed.to_vec();
        let plain = key.cipher(nonce.try_into().ok()?).decrypt_in_place(0, header, &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

/// Renews the keys while the broker runs: on a thread of its own, because that writes a file. Ends with the value.
#[derive(Debug)]
pub(crate) struct Renewing {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewing {
    /// Starts the thread.
    pub(crate) fn start(tickets: Arc<Tickets>) -> io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let run = move || renew_in_time(&tickets, &stopped);
        let thread = std::thread::Builder::new().name("tickets".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so; the keys it leaves go on working.
            let _panicked = thread.join();
        }
    }
}

fn renew_in_time(tickets: &Tickets, stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
        if let Err(error) = tickets.renew() {
            tickets.tell(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::clock::SystemClock;

    #[derive(Default)]
    struct Wall(AtomicU64);

    impl Wall {
        fn pass_hours(&self, hours: u64) {
            self.0.fetch_add(hours * 3_600_000, Ordering::Relaxed);
        }
    }

    impl carillon_transport::Clock for Wall {
        fn now(&self) -> Instant {
            carillon_transport::Clock::now(&SystemClock)
        }
    }

    impl Clock for Wall {
        fn wall(&self) -> Timestamp {
            Timestamp(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_ticket_opens_over_a_restart_for_twelve_hours_and_not_after_its_key_is_erased() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ticket.keys");
        let clock = Arc::new(Wall::default());
        let open = || Tickets::open(&path, clock.clone()).unwrap();
        let ticket = open().encrypt(b"session").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&path).unwrap();
        clock.pass_hours(11);
        let running = open();
        assert_eq!(running.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(fs::read(&path).unwrap(), first);
        let late = running.encrypt(b"late").unwrap();
        clock.pass_hours(2);
        running.renew().unwrap();
        let newer = running.encrypt(b"newer").unwrap();
        assert_ne!(newer[..8], late[..8], "sealed with the new key");
        for tickets in [&running, &open()] {
            assert_eq!(tickets.decrypt(&late).as_deref(), Some(&b"late"[..]), "eleven hours are left of its key");
            assert_eq!(tickets.decrypt(&newer).as_deref(), Some(&b"newer"[..]));
        }
        clock.pass_hours(11);
        assert_eq!(running.decrypt(&late), None, "whether it was erased yet or not");
        running.renew().unwrap();
        let kept = fs::read(&path).unwrap();
        assert!(!kept.windows(KEY_BYTES).any(|bytes| bytes == &first[8..]), "the old key is gone from the file");
        assert_eq!(open().decrypt(&newer).as_deref(), Some(&b"newer"[..]));
    }

    #[test]
    fn a_key_that_finds_no_room_is_used_and_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ticket.keys");
        let clock = Arc::new(Wall::default());
        let old = Tickets::open(&path, clock.clone()).unwrap().encrypt(b"old").unwrap();
        let first = fs::read(&path).unwrap();
        clock.pass_hours(13);
        let full: Write = |path, bytes| match path.with_extension("full").exists() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => write_secret(path, bytes),
        };
        fs::write(path.with_extension("full"), b"").unwrap();
        let running = Tickets::open_by(&path, clock.clone(), full).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        let new = running.encrypt(b"new").unwrap();
        assert_ne!(new[..8], old[..8], "not sealed with a key whose time is over");
        assert_eq!(running.decrypt(&old).as_deref(), Some(&b"old"[..]));
        assert!(running.renew().is_err());
        fs::remove_file(path.with_extension("full")).unwrap();
        running.renew().unwrap();
        let again = Tickets::open(&path, clock).unwrap();
        assert_eq!(again.decrypt(&new).as_deref(), Some(&b"new"[..]));
        let refused: Write = |_, _| Err(io::ErrorKind::PermissionDenied.into());
        assert!(Tickets::open_by(&directory.path().join("other"), Arc::new(SystemClock), refused).is_err());
    }

    #[test]
    fn what_is_not_a_ticket_of_ours_does_not_open() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name| Tickets::open(&directory.path().join(name), Arc::new(Wall::default())).unwrap();
        let (ours, others) = (open("ours"), open("others"));
        let ticket = ours.encrypt(b"session").unwrap();
        assert_ne!(ticket, ours.encrypt(b"session").unwrap());
        assert_eq!(others.decrypt(&ticket), None);
        for length in 0..ticket.len() {
            assert_eq!(ours.decrypt(&ticket[..length]), None);
            let mut changed = ticket.clone();
            changed[length] ^= 1;
            assert_eq!(ours.decrypt(&changed), None);
        }
        fs::write(directory.path().join("ours"), b"short").unwrap();
        assert!(Tickets::open(&directory.path().join("ours"), Arc::new(SystemClock)).is_err());
    }
}
