//! The sessions' tokens: signed here, one a user.

use std::path::Path;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::failure::Failure;

/// What the `aud` claim says, as `docs/PROTOCOL.md` wants it of a broker's configuration.
const AUDIENCE: &str = "carillon";

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A person.
    User,
    /// A backend.
    Service,
}

#[derive(Serialize)]
struct Claims<'a> {
    tenant: &'a str,
    sub: &'a str,
    role: &'a str,
    exp: u64,
    aud: &'a str,
}

/// Signs tokens of one tenant.
pub(crate) struct Signer {
    key: EncodingKey,
    tenant: String,
    expires_at_s: u64,
}

impl Signer {
    /// A signer with an Ed25519 private key in PEM; its tokens end at this time since the Unix epoch.
    pub(crate) fn new(key: &Path, tenant: &str, expires_at: Duration) -> Result<Self, Failure> {
        let pem = std::fs::read(key).map_err(|source| Failure::Read { path: key.to_owned(), source })?;
        let unfit = |error| Failure::Usage(format!("{}: not an Ed25519 private key in PEM: {error}", key.display()));
        let key = EncodingKey::from_ed_pem(&pem).map_err(unfit)?;
        Ok(Self { key, tenant: tenant.to_owned(), expires_at_s: expires_at.as_secs() })
    }

    /// A token of this user.
    pub(crate) fn token(&self, handle: &str, role: Role) -> Result<String, Failure> {
        let role = match role {
            Role::User => "user",
            Role::Service => "service",
        };
        let claims = Claims { tenant: &self.tenant, sub: handle, role, exp: self.expires_at_s, aud: AUDIENCE };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key)
            .map_err(|error| Failure::Usage(format!("a token could not be signed: {error}")))
    }
}
