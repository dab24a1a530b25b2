//! What bounds the outlets. What an operator may set is in `config::outlets`, with its defaults from here.

use std::time::Duration;

/// Outlets of a configuration: five are named, some more are an operator's own. Each is one task with the bounds below.
pub const OUTLETS_MAX: usize = 32;

/// Starts that one outlet holds, from the hand-over by the sequencer until their result was taken back: those that wait for
/// their turn, are under way, or back off. When they are this many, the sequencer gets no room and keeps the rest in the shard's
/// state. At 10 calls a second a minute and a half of work. A call holds some 300 bytes beside the payload, which is the DING's own.
pub const STARTS_MAX: usize = 1_024;

/// Cancels that one outlet holds, counted apart: a queue full of starts must not keep out what would end them.
pub const CANCELS_MAX: usize = 1_024;

/// Starts that one outlet holds and is told to try no more, on the way to it: every one that it holds can be.
pub const CALL_OFFS_MAX: usize = STARTS_MAX;

/// Results that wait for room in the shard's queue are offered again after this long.
pub const RESULTS_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Secrets of one outlet: the old one and the new one while they are exchanged, and one more.
pub const SECRETS_MAX: usize = 3;

/// Signatures of a callback that are looked at, the first ones: more than a gateway that exchanges its secret sends.
pub const SIGNATURES_MAX: usize = 8;

/// Resolutions of one outlet under way at once. The system's resolver blocks a thread, for as long as it likes: with as many as this a
/// name server that takes a third of a second still lets ten calls a second out.
pub const LOOKUPS_MAX: usize = 4;

/// Addresses of one name that are tried, one after the other.
pub const ADDRESSES_MAX: usize = 4;

/// Bytes of an answer's head: more than any gateway has reason to send. hyper takes no less than 8 KiB.
pub const ANSWER_HEAD_BYTES: usize = 16 * 1024;

/// Bytes of an answer's body: one short JSON object.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The longest that a gateway's `Retry-After` is followed. Longer than any rate limit of a provider; a DING cannot wait for more.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// The first pause after a try that failed; each later one is twice as long, give or take a half.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest pause: a gateway that is back is called a minute and a half later at most.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// For how long one call is tried: a gateway that is restarted, or a provider's outage of some minutes, loses no step.
pub const TRIES_FOR_DEFAULT: Duration = Duration::from_secs(900);

/// Tries of one call. With the pauses above some twenty fit into [`TRIES_FOR_DEFAULT`], 35 if all of them are short.
pub const TRIES_DEFAULT: u32 = 100;

/// From the resolution of the name to the end of the answer.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// For the connection alone, TLS included.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// POSTs of one outlet under way at once.
pub const CONCURRENCY_DEFAULT: usize = 8;

/// POSTs of one outlet a second.
pub const CALLS_A_SECOND_DEFAULT: u32 = 10;

/// When the broker stops, what is still being resolved is not waited for any longer.
pub const STOP_WITHIN: Duration = Duration::from_millis(500);

/// How far a callback's timestamp may be from the broker's clock, either way: what the Standard Webhooks libraries allow.
pub const TOLERANCE_S: u64 = 300;

/// Bytes of a callback's body: a type, a time and a key.
pub const CALLBACK_BYTES_MAX: usize = 16 * 1024;

/// Connections of gateways at once. Further ones wait in the kernel's backlog.
pub const CALLBACK_CONNECTIONS_MAX: usize = 64;

/// From a callback's connection to its end, whatever it does: gateways connect anew.
pub const CALLBACK_CONNECTION_LASTS: Duration = Duration::from_secs(30);

/// How long a callback waits for the shard before it is told to come again: some commits of a slow disk.
pub const CALLBACK_WITHIN: Duration = Duration::from_secs(10);
