//! Signatures as Standard Webhooks 1.0.0 has them (standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`.
//!
//! Not its Rust library, which reads the system's clock itself and brings a second implementation of HMAC; the tests compare with
//! it. aws-lc-rs is the one provider of cryptography here.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use super::limits::{SECRETS_MAX, SIGNATURES_MAX, TOLERANCE_S};

/// The header that tells one message from another.
pub const ID: &str = "webhook-id";

/// The header with the time of sending, seconds since the Unix epoch.
pub const TIMESTAMP: &str = "webhook-timestamp";

/// The header with one signature a secret.
pub const SIGNATURE: &str = "webhook-signature";

/// How a secret begins, in front of base64.
const PREFIX: &str = "whsec_";

/// A secret has 24 to 64 bytes, says the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a text is no secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    #[error("a secret begins with \"whsec_\"; make one: echo whsec_$(openssl rand -base64 32)")]
    Prefix,
    /// What follows is no base64.
    #[error("what follows \"whsec_\" is no base64; make one: echo whsec_$(openssl rand -base64 32)")]
    Base64,
    /// It has too few bytes, or too many.
    #[error("a secret has 24 to 64 bytes, this one has {0}; make one: echo whsec_$(openssl rand -base64 32)")]
    Length(usize),
}

/// The secrets of one outlet. Signs with all of them and believes each, so that one can be exchanged while both sides work.
#[derive(Clone)]
pub struct Secrets(Vec<Key>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// A header is missing or no text.
    #[error("send the headers webhook-id, webhook-timestamp and webhook-signature, see standardwebhooks.com")]
    Headers,
    /// The timestamp is too far from the clock here.
    #[error(
        "webhook-timestamp is more than {TOLERANCE_S} seconds from the time here: sign when you send, and set your clock"
    )]
    Time,
    /// No signature fits any secret.
    #[error("no signature is right: sign \"<webhook-id>.<webhook-timestamp>.<body>\" with the secret of this outlet")]
    Wrong,
}

impl Secrets {
    /// Reads secrets, one a text, blanks around it ignored.
    ///
    /// # Errors
    /// [`SecretError`] of the first that is none.
    ///
    /// # Panics
    /// When there is none, or more than [`SECRETS_MAX`]: the configuration is judged before.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, SecretError> {
        let keys = texts.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        assert!((1..=SECRETS_MAX).contains(&keys.len()), "the configuration has 1 to {SECRETS_MAX} secrets");
        Ok(Self(keys))
    }

    /// The value of the signature header: `v1,<base64>`, one a secret.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let one = |key: &Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp_s}.").as_bytes());
            context.update(body);
            format!("v1,{}", BASE64.encode(context.sign()))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Whether one of the secrets signed this, lately. `header` finds a header's value.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify<'a>(
        &self,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
        now_s: u64,
    ) -> Result<(), SignatureError> {
        let header = |name| header(name).ok_or(SignatureError::Headers);
        let (id, timestamp, signatures) = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
        let sent_s: u64 = timestamp.parse().map_err(|_| SignatureError::Headers)?;
        if now_s.abs_diff(sent_s) > TOLERANCE_S {
            return Err(SignatureError::Time);
        }
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let tags: Vec<_> = self.0.iter().map(|key| hmac::sign(key, &signed)).collect();
        let given = signatures.split(' ').take(SIGNATURES_MAX);
        let mut given = given.filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?).ok());
        // In constant time, or an answer's time would tell how much of a guess is right.
        let right = given.any(|tag| tags.iter().any(|own| verify_slices_are_equal(own.as_ref(), &tag).is_ok()));
        if right { Ok(()) } else { Err(SignatureError::Wrong) }
    }
}

fn key(text: &str) -> Result<Key, SecretError> {
    let text = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
    let bytes = BASE64.decode(text).map_err(|_| SecretError::Base64)?;
    if !SECRET_BYTES.contains(&bytes.len()) {
        return Err(SecretError::Length(bytes.len()));
    }
    Ok(Key::new(HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use standardwebhooks::Webhook;

    const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn check(signature: &str, timestamp: &str, now_s: u64, expected: Result<(), SignatureError>) {
        let secrets = Secrets::parse([OLD, NEW]).unwrap();
        let header = |name: &str| match name {
            ID => Some("msg_1"),
            TIMESTAMP => Some(timestamp),
            SIGNATURE => Some(signature),
            _ => None,
        };
        assert_eq!(secrets.verify(header, b"{}", now_s), expected, "{signature} {timestamp} {now_s}");
    }

    #[test]
    fn each_of_two_secrets_signs_and_is_believed() {
        let signed_by = |secret: &str| Webhook::new(secret).unwrap().sign("msg_1", 1_000, b"{}").unwrap();
        let both = Secrets::parse([OLD, NEW]).unwrap().sign("msg_1", 1_000, b"{}");
        assert_eq!(both, format!("{} {}", signed_by(OLD), signed_by(NEW)));
        check(&signed_by(OLD), "1000", 1_000, Ok(()));
        check(&signed_by(NEW), "1000", 1_000, Ok(()));
        check(&format!("v1a,AAAA v1,!! v1,AAAA {}", signed_by(NEW)), "1000", 1_000, Ok(()));
        check(&both, "1000", 1_300, Ok(()));
        check(&both, "1000", 700, Ok(()));
    }

    #[test]
    fn what_is_not_right_is_not_believed() {
        let both = Secrets::parse([OLD, NEW]).unwrap().sign("msg_1", 1_000, b"{}");
        check(&both, "1000", 1_301, Err(SignatureError::Time));
        check(&both, "1000", 699, Err(SignatureError::Time));
        check(&both, "1001", 1_000, Err(SignatureError::Wrong));
        check(&both, "soon", 1_000, Err(SignatureError::Headers));
        check(&both.replace("v1,", "v2,"), "1000", 1_000, Err(SignatureError::Wrong));
        check("", "1000", 1_000, Err(SignatureError::Wrong));
        check("v1,", "1000", 1_000, Err(SignatureError::Wrong));
        let behind = |others: usize| format!("{}{both}", "v1,AAAA ".repeat(others));
        check(&behind(SIGNATURES_MAX - 1), "1000", 1_000, Ok(()));
        check(&behind(SIGNATURES_MAX), "1000", 1_000, Err(SignatureError::Wrong));
        let other = Secrets::parse([format!("whsec_{}", BASE64.encode([7; 32])).as_str()]).unwrap();
        check(&other.sign("msg_1", 1_000, b"{}"), "1000", 1_000, Err(SignatureError::Wrong));
        check(&other.sign("msg_2", 1_000, b"{}"), "1000", 1_000, Err(SignatureError::Wrong));
    }

    #[test]
    fn a_text_that_is_no_secret_says_how_to_make_one() {
        let refused = |text: &str| Secrets::parse([text]).unwrap_err();
        assert_eq!(refused("secret"), SecretError::Prefix);
        assert_eq!(refused("whsec_?"), SecretError::Base64);
        assert_eq!(refused("whsec_AAAA"), SecretError::Length(3));
        assert!(refused("whsec_AAAA").to_string().contains("openssl rand"));
        assert!(Secrets::parse([format!("  {NEW}\n").as_str()]).is_ok());
    }

    proptest! {
        #[test]
        fn signatures_are_those_of_the_reference_library(id in "[a-z0-9-]{1,40}", timestamp in 0_u32.., body in ".{0,200}") {
            let ours = Secrets::parse([NEW]).unwrap().sign(&id, timestamp.into(), body.as_bytes());
            prop_assert_eq!(ours, Webhook::new(NEW).unwrap().sign(&id, timestamp.into(), body.as_bytes()).unwrap());
        }
    }
}
