//! Certificate and token keys, renewed while the broker serves.
//!
//! The files are read by whoever asks (a signal, a timer), never by an edge: edges see the new ones by a swapped pointer.
//! What cannot be read changes nothing, half by half: a bad certificate does not keep a good token key out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config;
use crate::edge::auth::Authenticator;
use crate::report::Causes;
use crate::tls::{self, Presented, TlsError};

/// What tells a written file from what it was: inode, bytes, and when it was changed. `None`: it is not there.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The files, and where what they hold is used.
pub struct Renewal {
    presented: Arc<Presented>,
    authenticator: Arc<Authenticator>,
    tls: config::Tls,
    tokens: config::Tokens,
    stamps: Vec<Stamp>,
}

/// What became of both halves.
#[derive(Debug)]
pub struct Renewed {
    /// The certificate and its key.
    pub certificate: Result<(), TlsError>,
    /// The token keys; how many there are now.
    pub token_keys: Result<usize, TlsError>,
}

impl Renewal {
    /// Watches the files from now on; they were just read.
    pub fn new(
        tls: config::Tls,
        tokens: config::Tokens,
        presented: Arc<Presented>,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        let mut renewal = Self { presented, authenticator, tls, tokens, stamps: Vec::new() };
        renewal.stamps = renewal.stamps_now();
        renewal
    }

    /// Reads from other files from now on.
    pub fn set_files(&mut self, tls: config::Tls, tokens: config::Tokens) {
        (self.tls, self.tokens) = (tls, tokens);
    }

    /// Reads the files, and uses what is good. Logs what became of it.
    pub fn renew(&mut self) -> Renewed {
        // Before the files are read: what is written meanwhile is seen the next time.
        self.stamps = self.stamps_now();
        let certificate = self.presented.replace(&self.tls.certificate, &self.tls.key);
        match &certificate {
            Ok(()) => {
                let ends_at = self.presented.ends_at_s().and_then(|s| jiff::Timestamp::from_second(s).ok());
                let ends_at = ends_at.map_or("unknown".to_owned(), |time| time.to_string());
                tracing::info!(ends_at, "new connections see the certificate anew")
            }
            Err(error) => {
                tracing::error!(error = %Causes(error), "the new certificate is refused; the old one is presented on");
            }
        }
        let keys: Result<Vec<_>, _> = self.tokens.keys.iter().map(|path| tls::token_key(path)).collect();
        let token_keys = keys.map(|keys| {
            let count = keys.len();
            self.authenticator.replace_keys(keys);
            count
        });
        match &token_keys {
            Ok(keys) => tracing::info!(keys, "token keys read anew"),
            Err(error) => {
                tracing::error!(error = %Causes(error), "the new token keys are refused; the old ones are believed on");
            }
        }
        Renewed { certificate, token_keys }
    }

    /// As [`Renewal::renew`], if one of the files is another one than the last time.
    pub fn renew_if_changed(&mut self) -> Option<Renewed> {
        (self.stamps_now() != self.stamps).then(|| self.renew())
    }

    fn stamps_now(&self) -> Vec<Stamp> {
        let files = [&self.tls.certificate, &self.tls.key];
        files.into_iter().chain(&self.tokens.keys).map(|path: &PathBuf| stamp(path)).collect()
    }
}

fn stamp(path: &Path) -> Stamp {
    let of = fs::metadata(path).ok()?;
    Some((of.ino(), of.size(), of.ctime(), of.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Tls, Tokens};
    use crate::material::Material;

    /// What is watched, in a directory, and what could replace it.
    struct World {
        renewal: Renewal,
        presented: Arc<Presented>,
        material: Material,
        other: Material,
        _directories: [tempfile::TempDir; 2],
    }

    impl World {
        fn new() -> Self {
            let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let [material, other] = [0, 1].map(|nth| Material::ensure(directories[nth].path()).unwrap());
            let presented = Presented::load(&material.certificate, &material.key).unwrap();
            let authenticator = Arc::new(Authenticator::new(Vec::new()));
            let tls = Tls { certificate: material.certificate.clone(), key: material.key.clone() };
            let tokens = Tokens { keys: vec![material.token_public_key.clone()] };
            let renewal = Renewal::new(tls, tokens, presented.clone(), authenticator);
            Self { renewal, presented, material, other, _directories: directories }
        }

        fn shown(&self) -> Vec<u8> {
            self.presented.certificate()
        }
    }

    #[test]
    fn files_are_read_again_only_when_they_were_written() {
        let mut world = World::new();
        assert!(world.renewal.renew_if_changed().is_none());
        let before = world.shown();
        fs::rename(&world.other.certificate, &world.material.certificate).unwrap();
        fs::rename(&world.other.key, &world.material.key).unwrap();
        let renewed = world.renewal.renew_if_changed().unwrap();
        assert!(renewed.certificate.is_ok() && renewed.token_keys.is_ok(), "{renewed:?}");
        assert_ne!(world.shown(), before);
        assert!(world.renewal.renew_if_changed().is_none());
    }

    #[test]
    fn half_a_renewal_keeps_the_old_certificate_until_the_other_half_is_there() {
        let mut world = World::new();
        let before = world.shown();
        fs::rename(&world.other.certificate, &world.material.certificate).unwrap();
        let renewed = world.renewal.renew_if_changed().unwrap();
        assert!(matches!(renewed.certificate, Err(TlsError::Unfit { .. })), "{renewed:?}");
        assert!(renewed.token_keys.is_ok(), "{renewed:?}");
        assert_eq!(world.shown(), before);
        fs::rename(&world.other.key, &world.material.key).unwrap();
        assert!(world.renewal.renew_if_changed().unwrap().certificate.is_ok());
        assert_ne!(world.shown(), before);
    }

    #[test]
    fn a_missing_token_key_keeps_the_old_ones() {
        let mut world = World::new();
        fs::remove_file(&world.material.token_public_key).unwrap();
        let renewed = world.renewal.renew_if_changed().unwrap();
        assert!(renewed.certificate.is_ok());
        assert!(matches!(renewed.token_keys, Err(TlsError::Read { .. })), "{renewed:?}");
        assert!(world.renewal.renew_if_changed().is_none(), "told once");
    }
}
