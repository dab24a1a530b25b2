//! Changes that were not synced, and what a crash makes of them.

use std::collections::BTreeMap;

/// A disk writes this many bytes at once.
const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
pub(super) enum DirectoryChange {
    Create(String, u64),
    Remove(String),
    /// Of this file, whatever else bears or bore the names.
    Rename(String, String, u64),
}

impl DirectoryChange {
    pub(super) fn apply(&self, directory: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, id) => {
                directory.insert(name.clone(), *id);
            }
            Self::Remove(name) => {
                directory.remove(name);
            }
            Self::Rename(from, to, id) => {
                if directory.get(from) == Some(id) {
                    directory.remove(from);
                }
                directory.insert(to.clone(), *id);
            }
        }
    }
}

impl Change {
    pub(super) fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write_into(contents, *offset, bytes),
            Self::Length(length) => contents.resize(*length, 0),
        }
    }

    /// Lets a part of the change reach the disk, sector by sector.
    pub(super) fn apply_randomly(&self, contents: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { offset, bytes } = self else {
            if random.below(2) == 0 {
                self.apply(contents);
            }
            return;
        };
        let mut begin = 0;
        while begin < bytes.len() {
            let sector_left = SECTOR_BYTES - (offset + begin) % SECTOR_BYTES;
            let end = bytes.len().min(begin + sector_left);
            let part = &bytes[begin..end];
            match random.below(8) {
                0..3 => write_into(contents, offset + begin, part),
                3..6 => {}
                6 => write_into(contents, offset + begin, &part[..random.below(part.len())]),
                _ => {
                    let garbage: Vec<u8> = part.iter().map(|byte| byte ^ random.byte()).collect();
                    write_into(contents, offset + begin, &garbage);
                }
            }
            begin = end;
        }
    }
}

fn write_into(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("it is below a usize")
    }
}
