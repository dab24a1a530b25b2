//! Randomness from the operating system: ids, keys and jitter.

/// A random number above 0: ids use 0 for "none".
pub(crate) fn nonzero_u64() -> u64 {
    loop {
        let number = u64();
        if number != 0 {
            return number;
        }
    }
}

/// A random number.
///
/// # Panics
/// When the operating system has no randomness; nothing on it works then, TLS included.
pub(crate) fn u64() -> u64 {
    getrandom::u64().expect("the operating system has randomness")
}

/// A random number from 0 to 1.
#[allow(clippy::cast_precision_loss, reason = "jitter needs no 64 bits")]
pub(crate) fn fraction() -> f64 {
    (u64() >> 11) as f64 / (1u64 << 53) as f64
}
