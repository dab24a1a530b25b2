//! Tokens: JWTs signed with EdDSA (RFC 7519, RFC 8037), the only source of tenant, user and authority.

use std::sync::Arc;

use arc_swap::ArcSwap;
use carillon_core::input::Authority;
use carillon_protocol::frame::Text;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::limits::TOKEN_BYTES_MAX;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What the `aud` claim must contain.
pub const AUDIENCE: &str = "carillon";

/// The claims of a token that the command signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The tenant's name.
    pub tenant: String,
    /// The user's handle.
    pub sub: String,
    /// `user`, `service` or `admin`.
    pub role: String,
    /// Seconds since the Unix epoch at which the token ends.
    pub exp: u64,
    /// [`AUDIENCE`].
    pub aud: String,
}

/// The claims the broker reads; others are ignored. The audience is judged by the library, which takes a string or a list.
#[derive(Deserialize)]
struct Believed {
    tenant: String,
    sub: String,
    role: String,
    exp: u64,
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant's name.
    pub tenant: Text,
    /// The user's handle.
    pub handle: Text,
    /// What it may do.
    pub authority: Authority,
    /// When the token ends.
    pub expires_at: Timestamp,
}

/// Why a token is not accepted. The text goes to the client; it names no secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenRefused {
    /// Longer than any token may be.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not a JWT, signed by an unknown key, another algorithm or audience, or a claim is missing.
    #[error("the token is not acceptable: {0}")]
    Invalid(String),
    /// The role is none of the three.
    #[error("the token's role is {0:?}, not user, service or admin")]
    Role(String),
    /// Its time is over.
    #[error("the token expired {0} s ago: get a new one")]
    Expired(u64),
}

/// Checks tokens against the keys of the configuration.
pub struct Authenticator {
    keys: ArcSwap<Vec<DecodingKey>>,
    validation: Validation,
}

impl Authenticator {
    /// Accepts tokens signed by any of these Ed25519 public keys.
    pub fn new(keys: Vec<DecodingKey>) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // The library would read the machine's clock; the time is compared here, with the caller's.
        validation.validate_exp = false;
        Self { keys: ArcSwap::from_pointee(keys), validation }
    }

    /// Believes these keys from now on, and no other. Sessions that are open live on, to the end of their tokens.
    pub fn replace_keys(&self, keys: Vec<DecodingKey>) {
        self.keys.store(Arc::new(keys));
    }

    /// Whom the token speaks for.
    ///
    /// # Errors
    /// [`TokenRefused`]; nothing of the token may be believed then.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, TokenRefused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::TooLong);
        }
        let mut refused = TokenRefused::Invalid("the broker has no token key".into());
        for key in &**self.keys.load() {
            match decode::<Believed>(token, key, &self.validation) {
                Ok(data) => return identity(data.claims, now),
                Err(error) => refused = TokenRefused::Invalid(error.to_string()),
            }
        }
        Err(refused)
    }
}

fn identity(claims: Believed, now: Timestamp) -> Result<Identity, TokenRefused> {
    let authority = match claims.role.as_str() {
        "user" => Authority::User,
        "service" => Authority::Service,
        "admin" => Authority::Admin,
        _ => return Err(TokenRefused::Role(claims.role)),
    };
    let now_s = now.0 / 1_000;
    if claims.exp <= now_s {
        return Err(TokenRefused::Expired(now_s - claims.exp));
    }
    Ok(Identity {
        tenant: claims.tenant.as_str().into(),
        handle: claims.sub.as_str().into(),
        authority,
        expires_at: Timestamp(claims.exp.saturating_mul(1_000)),
    })
}
