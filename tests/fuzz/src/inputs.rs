//! Making inputs from others.

use crate::random::Random;

/// Numbers that are often a border.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 47, u64::MAX >> 1, u64::MAX];

/// Changes an input in one way of several.
pub fn mutate(input: &mut Vec<u8>, known: &[Vec<u8>], words: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let run = random.below(input.len() - at + 1).min(1 + random.below(24));
    match random.below(10) {
        0 => flip(input, random),
        1 => input[at..at + run].iter_mut().for_each(|byte| *byte = random.byte()),
        2 => input[at..at + run].fill(random.byte()),
        3 => drop(input.drain(at..at + run)),
        4 => {
            let bytes: Vec<u8> = (0..random.below(16)).map(|_| random.byte()).collect();
            input.splice(at..at, bytes);
        }
        5 => {
            let piece = input[at..at + run].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        6 => {
            let number = NUMBERS[random.below(NUMBERS.len())].wrapping_add(random.number() % 3).to_le_bytes();
            overwrite(input, at, &number[..1 << random.below(4)]);
        }
        7 if !words.is_empty() => {
            let word = words[random.below(words.len())];
            let gone = if random.below(2) == 0 { word.len().min(input.len() - at) } else { 0 };
            input.splice(at..at + gone, word.iter().copied());
        }
        8 if !known.is_empty() => {
            let other = &known[random.below(known.len())];
            let from = random.below(other.len() + 1);
            let to = from + random.below(other.len() - from + 1);
            input.splice(at..at + run, other[from..to].iter().copied());
        }
        _ => add(input, random),
    }
}

fn flip(input: &mut [u8], random: &mut Random) {
    let at = random.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// A little more, or less: the neighbours of a length, an id, a seq.
fn add(input: &mut [u8], random: &mut Random) {
    let at = random.below(input.len());
    let by = random.byte() % 9;
    if let Some(byte) = input.get_mut(at) {
        *byte = byte.wrapping_add(by).wrapping_sub(4);
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    let count = bytes.len().min(input.len() - at);
    input[at..at + count].copy_from_slice(&bytes[..count]);
}
