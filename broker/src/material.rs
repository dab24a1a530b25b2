//! Development material: a certificate authority, a certificate for loopback and a key that signs tokens, made once in a
//! directory. Never for production: whoever reads the directory can be anybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use thiserror::Error;

use crate::edge::auth::{AUDIENCE, Claims};

/// The name the development certificate is for.
pub const SERVER_NAME: &str = "localhost";

/// Where the material of a directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The authority's certificate, which clients trust.
    pub ca: PathBuf,
    /// The broker's certificate.
    pub certificate: PathBuf,
    /// The broker's key.
    pub key: PathBuf,
    /// The private key that signs tokens.
    pub token_key: PathBuf,
    /// Its public half, which the broker believes.
    pub token_public_key: PathBuf,
}

/// Why there is no material or no token. Files written before stay.
#[derive(Debug, Error)]
pub enum MaterialError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key could not be made.
    #[error("could not make a certificate or key: {0}")]
    Generate(#[from] rcgen::Error),
    /// The signing key is not an Ed25519 private key, or signing failed.
    #[error("{path} cannot sign a token: {source}")]
    Sign {
        /// The key.
        path: PathBuf,
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
}

impl Material {
    /// The paths in a directory.
    pub fn at(directory: &Path) -> Self {
        let file = |name: &str| directory.join(name);
        Self {
            ca: file("ca.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
            token_key: file("token.key"),
            token_public_key: file("token.pub"),
        }
    }

    /// Makes what is missing in a directory.
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn ensure(directory: &Path) -> Result<Self, MaterialError> {
        let material = Self::at(directory);
        fs::create_dir_all(directory).map_err(|source| MaterialError::Io { path: directory.to_owned(), source })?;
        // The last file written says that the others are there: an interrupted start makes all of them anew.
        if !material.certificate.exists() {
            material.make_certificates()?;
        }
        if !material.token_public_key.exists() {
            let key = KeyPair::generate_for(&PKCS_ED25519)?;
            write(&material.token_key, &key.serialize_pem())?;
            write(&material.token_public_key, &key.public_key_pem())?;
        }
        Ok(material)
    }

    fn make_certificates(&self) -> Result<(), MaterialError> {
        let ca_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "Carillon development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&ca_key)?;
        let key = KeyPair::generate()?;
        let names = [SERVER_NAME, "127.0.0.1", "::1"].map(String::from);
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name.push(DnType::CommonName, "Carillon development broker");
        let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key))?;
        write(&self.ca, &ca.pem())?;
        write(&self.key, &key.serialize_pem())?;
        write(&self.certificate, &leaf.pem())
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), MaterialError> {
    let temporary = path.with_added_extension("new");
    let written = (|| {
        // What an interrupted start left behind may have another mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| MaterialError::Io { path: path.to_owned(), source })
}

/// Whom a token is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// The user's handle.
    pub handle: &'a str,
    /// `user`, `service` or `admin`.
    pub role: &'a str,
    /// Seconds since the Unix epoch at which it ends.
    pub expires_at_s: u64,
}

/// Signs a token with an Ed25519 private key in PEM.
///
/// # Errors
/// [`MaterialError`] names the key.
pub fn sign_token(key: &Path, grant: &Grant<'_>) -> Result<String, MaterialError> {
    let pem = fs::read(key).map_err(|source| MaterialError::Io { path: key.to_owned(), source })?;
    let claims = Claims {
        tenant: grant.tenant.into(),
        sub: grant.handle.into(),
        role: grant.role.into(),
        exp: grant.expires_at_s,
        aud: AUDIENCE.into(),
    };
    EncodingKey::from_ed_pem(&pem)
        .and_then(|encoding| jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &encoding))
        .map_err(|source| MaterialError::Sign { path: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn material_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("server.key.new"), "left behind").unwrap();
        let material = Material::ensure(directory.path()).unwrap();
        let files =
            [&material.ca, &material.certificate, &material.key, &material.token_key, &material.token_public_key];
        let read = |file: &&PathBuf| fs::read_to_string(file).unwrap();
        let before: Vec<String> = files.iter().map(read).collect();
        for file in files {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        Material::ensure(directory.path()).unwrap();
        assert_eq!(files.iter().map(read).collect::<Vec<_>>(), before);
    }

    #[test]
    fn a_missing_key_is_named() {
        let grant = Grant { tenant: "acme", handle: "ann", role: "user", expires_at_s: 1 };
        let error = sign_token(Path::new("/nowhere/token.key"), &grant).unwrap_err().to_string();
        assert!(error.contains("/nowhere/token.key"), "{error}");
    }
}
