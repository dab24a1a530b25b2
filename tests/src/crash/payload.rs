//! What is in a message: who sent it as their how many-eth, and bytes that follow from both, so that whoever reads it can say
//! whether it is what was sent.

use crate::sim::rng::Rng;

/// Bytes in front of the filling.
const HEAD_BYTES: usize = 10;
const MAGIC: [u8; 4] = *b"kill";

/// The filling has fewer bytes than this: with it a message has some 300 bytes, and a batch some hundred messages.
const FILLING_BYTES_BELOW: usize = 600;

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sent {
    /// Its sender, from 0.
    pub producer: u16,
    /// The sender's messages are counted from 0.
    pub ordinal: u32,
}

/// The payload of a message, in a run of this seed.
pub fn payload(seed: u64, sent: Sent) -> Vec<u8> {
    let Sent { producer, ordinal } = sent;
    let mut rng = Rng::new(seed ^ (u64::from(producer) << 32) ^ u64::from(ordinal));
    let filling = rng.below(FILLING_BYTES_BELOW);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + filling + 8);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&producer.to_le_bytes());
    bytes.extend_from_slice(&ordinal.to_le_bytes());
    while bytes.len() < HEAD_BYTES + filling {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(HEAD_BYTES + filling);
    bytes
}

/// Which message this payload is, if it is exactly as it was sent.
pub fn recognise(seed: u64, bytes: &[u8]) -> Option<Sent> {
    let head = bytes.get(..HEAD_BYTES).filter(|head| head[..4] == MAGIC)?;
    let sent = Sent {
        producer: u16::from_le_bytes(head[4..6].try_into().ok()?),
        ordinal: u32::from_le_bytes(head[6..10].try_into().ok()?),
    };
    (payload(seed, sent) == bytes).then_some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_recognised_and_nothing_else_is() {
        for ordinal in 0..200 {
            let sent = Sent { producer: 3, ordinal };
            let bytes = payload(7, sent);
            assert_eq!(recognise(7, &bytes), Some(sent));
            assert_eq!(recognise(8, &bytes).filter(|_| bytes.len() > HEAD_BYTES), None, "another run's");
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_ne!(recognise(7, &changed), Some(sent), "byte {at}");
            }
            assert_ne!(recognise(7, &bytes[..bytes.len() - 1]), Some(sent));
        }
    }
}
