//! A new token before the old one's time is over.

use std::convert::Infallible;
use std::time::Duration;

use carillon_protocol::session::Welcome;
use serde::Deserialize;

use super::end::End;
use crate::clock;
use crate::config::TokenSource;
use crate::limits::{REFRESH_EARLY_MAX_MS, REFRESH_RETRY_MS};
use crate::shared::Shared;

/// Refreshes the session's token in time, for ever. A refresh that fails is tried again until the broker ends the session.
pub(super) async fn keep_fresh(shared: &Shared, mut token: String, welcome: &Welcome) -> Result<Infallible, End> {
    let welcomed = clock::now();
    loop {
        let expires_ms = match (&shared.config.token, expires_ms(&token)) {
            (TokenSource::Callback(_), Some(expires_ms)) => expires_ms,
            // There is no other token, or it does not say when its time is over.
            _ => return std::future::pending().await,
        };
        // By the broker's time, which is never behind the clock by which it decides.
        let passed_ms = u64::try_from(welcomed.elapsed().as_millis()).unwrap_or(u64::MAX);
        let left_ms = expires_ms.saturating_sub(welcome.time.0.saturating_add(passed_ms));
        let early_ms = (left_ms / 4).min(REFRESH_EARLY_MAX_MS);
        // A source of tokens that are over already is not asked without pause. One that was taken nevertheless is so because the
        // broker's time is ahead of the clock by which it judges tokens.
        let pause_ms = if left_ms == 0 { REFRESH_RETRY_MS } else { REFRESH_RETRY_MS.min(left_ms.max(1_000)) };
        let wait_ms = (left_ms - early_ms).max(pause_ms);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        token = loop {
            match shared.refresh().await {
                Ok(token) => break token,
                Err(error) => tracing::warn!(%error, "the token was not refreshed"),
            }
            tokio::time::sleep(Duration::from_millis(REFRESH_RETRY_MS)).await;
        };
    }
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
}

/// When the time of a JWT is over, in milliseconds since 1970: claim `exp` of its middle part (RFC 7519). Nothing is verified,
/// the broker does that.
fn expires_ms(token: &str) -> Option<u64> {
    let claims = base64url(token.split('.').nth(1)?)?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    exp.checked_mul(1000)
}

/// Base64 with the URL alphabet and without padding (RFC 4648, section 5).
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for symbol in text.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            let [_, _, _, byte] = (bits >> held).to_be_bytes();
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_token_is_read() {
        // {"tenant":"acme","exp":1700000000,"aud":"carillon"}
        let claims = "eyJ0ZW5hbnQiOiJhY21lIiwiZXhwIjoxNzAwMDAwMDAwLCJhdWQiOiJjYXJpbGxvbiJ9";
        assert_eq!(expires_ms(&format!("e30.{claims}.c2ln")), Some(1_700_000_000_000));
        for none in ["", "a", "e30.e30.c2ln", "e30.!!.c2ln"] {
            assert_eq!(expires_ms(none), None, "{none}");
        }
    }

    #[test]
    fn base64url_has_its_own_alphabet() {
        assert_eq!(base64url("-_8").as_deref(), Some(&[0xfb, 0xff][..]));
        assert_eq!(base64url("+/8"), None);
    }
}
