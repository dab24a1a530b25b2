//! What stands in for the machine: a clock that is set, a waker that notes, a reader that is late, and people with tokens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use carillon::clock::{Clock, SystemClock};
use carillon::edge::ReadBodies;
use carillon::edge::auth::{AUDIENCE, Authenticator, Claims};
use carillon::journal::{ReadJob, ReadRequest, Reader};
use carillon::sequencer::Wake;
use carillon_protocol::ids::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ED25519};

/// When every run begins.
const START_MS: u64 = 1_767_225_600_000;

/// Tenant, handle and role of everybody. Two tenants, so that the same user number means two people.
pub(super) const PEOPLE: [(&str, &str, &str); 8] = [
    ("acme", "robot", "service"),
    ("acme", "ada", "user"),
    ("acme", "bob", "user"),
    ("acme", "cyd", "user"),
    ("acme", "dan", "user"),
    ("umbra", "robot", "service"),
    ("umbra", "ada", "user"),
    ("umbra", "eve", "user"),
];

/// Time passes when it is told to.
pub(super) struct SimClock {
    start: Instant,
    passed_ms: AtomicU64,
    /// By how much the wall's clock was set back.
    set_back_ms: AtomicU64,
}

impl SimClock {
    pub(super) fn new() -> Self {
        let start = carillon_transport::Clock::now(&SystemClock);
        Self { start, passed_ms: AtomicU64::new(0), set_back_ms: AtomicU64::new(0) }
    }

    /// The wall's clock shows what it showed so long ago.
    pub(super) fn set_back(&self, ms: u64) {
        self.set_back_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn passed_ms(&self) -> u64 {
        self.passed_ms.load(Ordering::Relaxed)
    }
}

impl carillon_transport::Clock for SimClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms())
    }
}

impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        Timestamp(START_MS + self.passed_ms() - self.set_back_ms.load(Ordering::Relaxed))
    }
}

/// Notes that it was woken.
#[derive(Default)]
pub(super) struct SimWake(AtomicBool);

impl SimWake {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Wake for SimWake {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a late reader has yet to do.
enum Late {
    Read(ReadRequest),
    Job(ReadJob),
}

/// Reads from the journal when it is told to, whichever request it is told to, and takes few of them.
pub(super) struct LateReader {
    reader: Reader,
    room: usize,
    waiting: Mutex<Vec<Late>>,
}

impl LateReader {
    pub(super) fn new(reader: Reader, room: usize) -> Self {
        Self { reader, room, waiting: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Late>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Answers the nth request that waits.
    pub(super) fn answer(&self, nth: usize) {
        let late = self.queue().swap_remove(nth);
        match late {
            Late::Read(request) => (request.done)(self.reader.read(&request.positions, request.bytes_max)),
            Late::Job(job) => job(),
        }
    }
}

impl ReadBodies for LateReader {
    fn submit(&self, request: ReadRequest) -> Result<(), ReadRequest> {
        let mut queue = self.queue();
        if queue.len() >= self.room {
            return Err(request);
        }
        queue.push(Late::Read(request));
        Ok(())
    }

    fn run(&self, job: ReadJob) -> Result<(), ReadJob> {
        let mut queue = self.queue();
        if queue.len() >= self.room {
            return Err(job);
        }
        queue.push(Late::Job(job));
        Ok(())
    }
}

/// A key and what it signed, made once.
pub(super) struct Tokens {
    pub(super) authenticator: Arc<Authenticator>,
    /// By person.
    pub(super) tokens: Vec<String>,
}

/// The tokens of everybody.
pub(super) fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let signing = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).expect("an Ed25519 key");
        let public = DecodingKey::from_ed_pem(key.public_key_pem().as_bytes()).expect("its public half");
        let sign = |(tenant, handle, role): &(&str, &str, &str)| {
            let claims = Claims {
                tenant: (*tenant).into(),
                sub: (*handle).into(),
                role: (*role).into(),
                exp: START_MS / 1_000 + 1_000_000,
                aud: AUDIENCE.into(),
            };
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &signing).expect("a token")
        };
        let tokens = PEOPLE.iter().map(sign).collect();
        Tokens { authenticator: Arc::new(Authenticator::new(vec![public])), tokens }
    })
}
