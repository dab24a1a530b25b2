//! The keys for stateless resets and Retry tokens, derived from one secret by the TLS provider's own
//! primitives, so that the process has one crypto provider and no further dependency.
//!
//! Tokens need an AEAD and a key derivation; the provider's QUIC packet keys and its HKDF are these.

use std::sync::Arc;

use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey as CipherKey, Iv};
use rustls::crypto::tls13::{HkdfExpander, OkmBlock, expand};
use rustls::{SupportedCipherSuite, Tls13CipherSuite};

use crate::config::ConfigRefused;

const SECRET_BYTES: usize = 64;
/// Bytes of the key of the AEAD that seals tokens.
const TOKEN_KEY_BYTES: usize = 32;

/// What all endpoints of a group share, so that any may answer for any connection.
pub(crate) struct GroupKeys {
    suite: &'static Tls13CipherSuite,
    reset: OkmBlock,
    tokens: Box<dyn HkdfExpander>,
}

impl GroupKeys {
    /// Derives the keys from `secret`, or from random bytes.
    pub(crate) fn new(
        provider: &CryptoProvider,
        secret: Option<[u8; SECRET_BYTES]>,
    ) -> Result<Arc<Self>, ConfigRefused> {
        let suite = provider
            .cipher_suites
            .iter()
            .filter_map(SupportedCipherSuite::tls13)
            .filter(|suite| suite.quic.is_some_and(|quic| quic.aead_key_len() == TOKEN_KEY_BYTES))
            // Each connection is given several ids, and each id a signature: SHA-256 costs a fraction of SHA-384.
            .min_by_key(|suite| suite.common.hash_provider.output_len())
            .ok_or(ConfigRefused::NoTokenSuite)?;
        let secret = match secret {
            Some(secret) => secret,
            None => {
                let mut random = [0; SECRET_BYTES];
                provider.secure_random.fill(&mut random).map_err(|_failed| ConfigRefused::NoRandomness)?;
                random
            }
        };
        let root = suite.hkdf_provider.extract_from_secret(None, &secret);
        Ok(Arc::new(Self {
            suite,
            reset: root.expand_block(&[b"carillon stateless reset"]),
            tokens: suite.hkdf_provider.expander_for_okm(&root.expand_block(&[b"carillon retry token"])),
        }))
    }
}

impl HmacKey for GroupKeys {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.suite.hkdf_provider.hmac_sign(&self.reset, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        self.tokens.hash_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = self.suite.hkdf_provider.hmac_sign(&self.reset, data);
        // Compared without leaving early, so that the time taken tells nothing.
        let expected = expected.as_ref();
        let differing = expected.iter().zip(signature).fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        if differing == 0 && expected.len() == signature.len() { Ok(()) } else { Err(CryptoError) }
    }
}

impl HandshakeTokenKey for GroupKeys {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        let key: [u8; TOKEN_KEY_BYTES] = expand(&*self.tokens, &[b"key", random_bytes]);
        let quic = self.suite.quic.expect("the suite was chosen for its QUIC algorithm");
        Box::new(TokenKey(quic.packet_key(CipherKey::from(key), Iv::from([0; 12]))))
    }
}

/// Seals one token: every token has its own key, so that the nonce may be constant.
struct TokenKey(Box<dyn rustls::quic::PacketKey>);

impl AeadKey for TokenKey {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let tag = self.0.encrypt_in_place(0, additional_data, data).map_err(|_error| CryptoError)?;
        data.extend_from_slice(tag.as_ref());
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let opened_bytes = self.0.decrypt_in_place(0, additional_data, data).map_err(|_error| CryptoError)?.len();
        Ok(&mut data[..opened_bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: Option<[u8; SECRET_BYTES]>) -> Arc<GroupKeys> {
        GroupKeys::new(&rustls::crypto::aws_lc_rs::default_provider(), secret).unwrap()
    }

    #[test]
    fn signatures_follow_from_the_secret_alone() {
        let sign = |keys: &GroupKeys| {
            let mut out = vec![0; keys.signature_len()];
            keys.sign(b"connection", &mut out);
            out
        };
        let signature = sign(&keys(Some([7; 64])));
        assert!(signature.len() >= 16);
        assert_eq!(signature, sign(&keys(Some([7; 64]))));
        assert_ne!(signature, sign(&keys(Some([8; 64]))));
        assert_ne!(sign(&keys(None)), sign(&keys(None)));
        assert!(keys(Some([7; 64])).verify(b"connection", &signature).is_ok());
        assert!(keys(Some([7; 64])).verify(b"connection", &signature[1..]).is_err());
        assert!(keys(Some([7; 64])).verify(b"Connection", &signature).is_err());
    }

    #[test]
    fn tokens_open_only_as_they_were_sealed() {
        let seal = || {
            let mut data = b"address".to_vec();
            keys(Some([7; 64])).aead_from_hkdf(b"nonce").seal(&mut data, b"aad").unwrap();
            data
        };
        let mut data = seal();
        assert_eq!(keys(Some([7; 64])).aead_from_hkdf(b"nonce").open(&mut data, b"aad").unwrap(), b"address");
        assert!(keys(Some([7; 64])).aead_from_hkdf(b"other").open(&mut seal(), b"aad").is_err());
        assert!(keys(Some([7; 64])).aead_from_hkdf(b"nonce").open(&mut seal(), b"no").is_err());
        let mut torn = seal();
        torn[0] ^= 1;
        assert!(keys(Some([7; 64])).aead_from_hkdf(b"nonce").open(&mut torn, b"aad").is_err());
    }
}
