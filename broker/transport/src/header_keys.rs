//! Header protection by AES-128 with keys that are half as large.
//!
//! QUIC protects headers by encrypting alone, in both directions (RFC 9001 section 5.4.3). The provider's key of 504 bytes can decrypt as
//! well, and a connection has two of them for as long as it lives: the halves that nobody uses were 3 % of an idle session's memory.
//! No safe function of the provider makes an encrypting key alone, so this calls its C library.
#![allow(unsafe_code, reason = "aws-lc-rs has no AES key that only encrypts")]

use std::ffi::c_void;
use std::sync::LazyLock;

use aws_lc_sys::{AES_KEY, AES_encrypt, AES_set_encrypt_key, OPENSSL_cleanse};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey};
use rustls::{Error, SupportedCipherSuite, Tls13CipherSuite};

const KEY_BITS: u32 = 128;
const KEY_BYTES: usize = 16;
/// A block of AES, and the sample of a packet that makes its mask.
const SAMPLE_BYTES: usize = 16;

/// The provider's suite with this module's header keys.
static SUITE: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    let base = base();
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = base.common;
    Tls13CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider, confidentiality_limit },
        hkdf_provider: base.hkdf_provider,
        aead_alg: base.aead_alg,
        quic: Some(&SlimHeaders),
    }
});

fn base() -> &'static Tls13CipherSuite {
    TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3")
}

/// The provider (aws-lc-rs) with keys of half the size for the headers of packets, where the suite is AES-128.
pub fn with_slim_header_keys(mut provider: CryptoProvider) -> CryptoProvider {
    for suite in &mut provider.cipher_suites {
        if suite.suite() == TLS13_AES_128_GCM_SHA256.suite() {
            *suite = SupportedCipherSuite::Tls13(&SUITE);
        }
    }
    provider
}

/// The provider's keys for the payloads of packets, this module's for their headers.
struct SlimHeaders;

impl SlimHeaders {
    fn base() -> &'static dyn Algorithm {
        base().quic.expect("the provider has it for QUIC")
    }
}

impl Algorithm for SlimHeaders {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        Self::base().packet_key(key, iv)
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        let key = key.as_ref().try_into().expect("rustls gives a key as long as the suite's");
        SlimHeaderKey::boxed(key)
    }

    fn aead_key_len(&self) -> usize {
        KEY_BYTES
    }
}

/// The schedule for encrypting.
struct SlimHeaderKey(AES_KEY);

/// It is to fit the size of allocators below the provider's key.
const _: () = assert!(size_of::<SlimHeaderKey>() <= 256);

impl SlimHeaderKey {
    /// In its place from the beginning: a copy would not be wiped.
    fn boxed(key: &[u8; KEY_BYTES]) -> Box<Self> {
        let mut made = Box::new(Self(AES_KEY { rd_key: [0; 60], rounds: 0 }));
        // SAFETY: `key` has as many bits as are read, and the schedule is writable for as long as the call takes.
        let refused = unsafe { AES_set_encrypt_key(key.as_ptr(), KEY_BITS, &raw mut made.0) };
        assert_eq!(refused, 0, "AES has keys of 128 bits");
        made
    }

    /// RFC 9001 section 5.4.3: the mask is the sample, encrypted.
    fn mask(&self, sample: &[u8]) -> Result<[u8; SAMPLE_BYTES], Error> {
        if sample.len() != SAMPLE_BYTES {
            return Err(Error::General(format!("a sample of {} bytes, not of {SAMPLE_BYTES}", sample.len())));
        }
        let mut mask = [0; SAMPLE_BYTES];
        // SAFETY: both blocks have the 16 bytes that are read and written, and the schedule was made by `AES_set_encrypt_key`.
        unsafe { AES_encrypt(sample.as_ptr(), mask.as_mut_ptr(), &raw const self.0) };
        Ok(mask)
    }

    /// RFC 9001 section 5.4.1. The length of the packet number is read from the first byte while that is plain.
    fn apply(&self, sample: &[u8], first: &mut u8, number: &mut [u8], is_protected: bool) -> Result<(), Error> {
        const LONG_HEADER: u8 = 0x80;
        let mask = self.mask(sample)?;
        if number.len() > NUMBER_BYTES_MAX {
            return Err(Error::General(format!("a packet number of {} bytes", number.len())));
        }
        let covered = if *first & LONG_HEADER == 0 { 0x1f } else { 0x0f };
        let other = *first ^ (mask[0] & covered);
        let plain = if is_protected { other } else { *first };
        *first = other;
        let number_bytes = usize::from(plain & 0x03) + 1;
        for (byte, mask) in number.iter_mut().zip(&mask[1..]).take(number_bytes) {
            *byte ^= mask;
        }
        Ok(())
    }
}

/// RFC 9000 section 17.1.
const NUMBER_BYTES_MAX: usize = 4;

impl Drop for SlimHeaderKey {
    fn drop(&mut self) {
        // SAFETY: the schedule is writable, has this size, and zeroes are a value of it.
        unsafe { OPENSSL_cleanse((&raw mut self.0).cast::<c_void>(), size_of::<AES_KEY>()) };
    }
}

impl HeaderProtectionKey for SlimHeaderKey {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) -> Result<(), Error> {
        self.apply(sample, first, packet_number, false)
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) -> Result<(), Error> {
        self.apply(sample, first, packet_number, true)
    }

    fn sample_len(&self) -> usize {
        SAMPLE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use rustls::Side;
    use rustls::quic::{Keys, Version};

    use super::*;

    /// RFC 9001 appendix A.2, the client's first packet.
    #[test]
    fn the_example_of_the_standard_is_protected_as_it_says() {
        let key = SlimHeaderKey::boxed(&0x9f50_449e_04a0_e810_283a_1e99_33ad_edd2_u128.to_be_bytes());
        let sample = 0xd1b1_c98d_d768_9fb8_ec11_d242_b123_dc9b_u128.to_be_bytes();
        let (mut first, mut number) = (0xc3, [0, 0, 0, 2]);
        key.encrypt_in_place(&sample, &mut first, &mut number).unwrap();
        assert_eq!((first, number), (0xc0, [0x7b, 0x9a, 0xec, 0x34]));
        key.decrypt_in_place(&sample, &mut first, &mut number).unwrap();
        assert_eq!((first, number), (0xc3, [0, 0, 0, 2]));
    }

    /// The keys of first packets follow from an id.
    fn first_keys(suite: &'static Tls13CipherSuite, id: u8) -> Keys {
        suite.quic_suite().expect("it has keys for QUIC").keys(&[id; 8], Side::Server, Version::V1)
    }

    #[test]
    fn it_does_to_every_header_what_the_providers_key_does() {
        for seed in 0..=255 {
            let (theirs, ours) = (first_keys(base(), seed), first_keys(&SUITE, seed));
            let pairs = [(theirs.local.header, ours.local.header), (theirs.remote.header, ours.remote.header)];
            for (at, (theirs, ours)) in pairs.iter().enumerate() {
                assert_eq!(ours.sample_len(), theirs.sample_len());
                let sample = [seed ^ 0x5a; SAMPLE_BYTES];
                let length = (usize::from(seed) + at) % NUMBER_BYTES_MAX + 1;
                let (mut a, mut b) = ((seed, vec![seed; length]), (seed, vec![seed; length]));
                theirs.encrypt_in_place(&sample, &mut a.0, &mut a.1).unwrap();
                ours.encrypt_in_place(&sample, &mut b.0, &mut b.1).unwrap();
                assert_eq!(a, b);
                ours.decrypt_in_place(&sample, &mut b.0, &mut b.1).unwrap();
                assert_eq!(b, (seed, vec![seed; length]));
                theirs.decrypt_in_place(&sample, &mut a.0, &mut a.1).unwrap();
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn what_no_packet_has_is_refused_and_left_as_it_is() {
        let key = SlimHeaderKey::boxed(&[7; KEY_BYTES]);
        let (mut first, mut number) = (0x43, [1, 2, 3, 4, 5]);
        assert!(key.encrypt_in_place(&[0; 15], &mut first, &mut number[..4]).is_err());
        assert!(key.encrypt_in_place(&[0; 17], &mut first, &mut number[..4]).is_err());
        assert!(key.decrypt_in_place(&[0; 16], &mut first, &mut number).is_err());
        assert_eq!((first, number), (0x43, [1, 2, 3, 4, 5]));
    }

    #[test]
    fn the_suite_is_the_providers_but_for_the_headers() {
        let plain = rustls::crypto::aws_lc_rs::default_provider();
        let slim = with_slim_header_keys(plain.clone());
        let names = |provider: &CryptoProvider| -> Vec<_> {
            provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect()
        };
        assert_eq!(names(&plain), names(&slim));
        let suites = slim.cipher_suites.iter().filter_map(SupportedCipherSuite::tls13);
        assert_eq!(suites.filter(|suite| std::ptr::eq(*suite, &raw const *SUITE)).count(), 1);
    }
}
