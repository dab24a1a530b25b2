//! Tokens: whatever comes, one is believed only if it was signed with the key, and says what it said.
//!
//! Input: a token; taken again as the two JSON texts of one, header and claims, which are then signed.

use std::sync::OnceLock;

use carillon::edge::auth::{AUDIENCE, Authenticator, Identity};
use carillon_protocol::ids::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde::Deserialize;

use crate::input::{Input, put_piece};
use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "token",
    run,
    // A text that stands where the header should be is quoted in the library's error, a control character as six, in a string that
    // grows; the broker looks at 4 KiB at most.
    budget: Budget { per_byte: 24, fixed_bytes: 16 * 1024 },
    input_bytes_max: 6 * 1024,
    seeds,
    words: &[
        b"\"alg\":",
        b"\"EdDSA\"",
        b"\"none\"",
        b"\"HS256\"",
        b"\"typ\"",
        b"\"kid\"",
        b"\"crit\"",
        b"\"jwk\"",
        b"\"exp\":",
        b"\"aud\":",
        b"\"sub\":",
        b"\"nbf\":",
        b"\"tenant\":",
        b"\"role\":",
        b"\"admin\"",
        b"\"carillon\"",
        b"null",
        b"[]",
        b"1e999",
        b"\\u0000",
        b"\\ud800",
    ],
    short_inputs: 20_000,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// An Ed25519 key for tests alone (RFC 8410, section 10.3), and its public half.
pub(super) const SECRET: &[u8] = b"-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----";
pub(super) const PUBLIC: &[u8] = b"-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----";

struct Keys {
    signing: EncodingKey,
    authenticator: Authenticator,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        signing: EncodingKey::from_ed_pem(SECRET).unwrap(),
        authenticator: Authenticator::new(vec![DecodingKey::from_ed_pem(PUBLIC).unwrap()]),
    })
}

fn run(input: &[u8]) {
    if let Ok(token) = std::str::from_utf8(input) {
        check(token);
    }
    let mut input = Input::new(input);
    let header = input.piece();
    let token = sign(header, input.rest());
    let believed = check(&token);
    // Any other bit in the signature, and it is nobody's.
    let end = token.len() - 2;
    let other = if token.as_bytes()[end - 40] == b'A' { "B" } else { "A" };
    let forged = [&token[..end - 40], other, &token[end - 39..]].concat();
    assert!(keys().authenticator.verify(&forged, NOW).is_err(), "a signature of nobody is believed");
    if let Some(identity) = believed {
        let claims: Claims = serde_json::from_slice(input.rest()).expect("what is believed has its claims");
        assert!(*claims.sub == *identity.handle && claims.exp > NOW.0 / 1_000, "{identity:?} of {claims:?}");
    }
}

/// What must be there. Other claims are not read, whatever is in their texts.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

/// Whose it is, if it is believed.
fn check(token: &str) -> Option<Identity> {
    let identity = keys().authenticator.verify(token, NOW).ok()?;
    assert!(identity.expires_at > NOW, "a token that has ended is believed");
    Some(identity)
}

fn sign(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = crypto::sign(message.as_bytes(), &keys().signing, Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        let letters = (0..=chunk.len()).map(|nth| LETTERS[(bits >> (18 - 6 * nth)) as usize & 63]);
        text.extend(letters.map(char::from));
    }
    text
}

fn seeds() -> Vec<Vec<u8>> {
    let header = r#"{"typ":"JWT","alg":"EdDSA"}"#;
    let claims = |audience: &str| {
        format!(r#"{{"tenant":"acme","sub":"ann","role":"service","exp":1800000000,"aud":{audience}}}"#)
    };
    let parts = |claims: &str| {
        let mut seed = Vec::new();
        put_piece(&mut seed, header.as_bytes());
        seed.extend(claims.as_bytes());
        seed
    };
    let (one, list) = (claims(&format!("{AUDIENCE:?}")), claims(&format!("[\"x\",{AUDIENCE:?}]")));
    vec![parts(&one), parts(&list), sign(header.as_bytes(), one.as_bytes()).into_bytes()]
}
