//! What the tests share.
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the tests' own clock starts from the real time")]
pub(crate) fn system_now() -> Instant {
    Instant::now()
}
