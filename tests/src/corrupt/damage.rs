//! What is done to a file: bits that flip, runs that are garbage, ends that are missing, pages that are zero or in the place of
//! another.

use std::fmt;
use std::fs;
use std::path::Path;

use super::files::listing;
use super::pristine::BatchAt;
use crate::sim::rng::Rng;

/// What a file is to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A segment of the journal.
    Segment,
    /// A snapshot of the state.
    Snapshot,
    /// Of the index.
    Index,
    /// The segment that was made in advance.
    Spare,
    /// What is noted of how far the journal was durable, and of where it begins.
    Note,
}

impl Class {
    /// The class of a file, by its path below the data directory.
    pub fn of(name: &str) -> Option<Self> {
        let extension = name.rsplit('.').next().unwrap_or_default();
        match extension {
            _ if name.starts_with("index/") => Some(Self::Index),
            _ if NOTES.contains(&name) => Some(Self::Note),
            "journal" => Some(Self::Segment),
            "snapshot" => Some(Self::Snapshot),
            "ready" => Some(Self::Spare),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Snapshot => "snapshot",
            Self::Index => "index",
            Self::Spare => "spare",
            Self::Note => "note",
        }
    }
}

/// How a file is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Flip {
        bit: u64,
    },
    Garbage {
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        to: usize,
    },
    Zero {
        at: usize,
        page: usize,
    },
    /// Of this file, or with another of the same class.
    Swap {
        at: usize,
        other: String,
        other_at: usize,
        page: usize,
    },
}

/// Damage in one place, or in two that were swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    class: Class,
    name: String,
    how: How,
    /// As after a loss of power in the last commit: it is the last batch that is damaged, and it is not noted as durable.
    unproven: bool,
}

/// Where it is noted how far the journal was durable, and where it begins.
const NOTES: [&str; 2] = [super::judge::NOTE, "journal/begin"];

/// What a disk writes at once, and what the kernel does.
const PAGES: [usize; 2] = [512, 4_096];

impl Damage {
    /// Some damage to a file below the directory.
    ///
    /// # Panics
    /// If there are no files.
    pub(crate) fn draw(rng: &mut Rng, directory: &Path, last: &BatchAt) -> Self {
        if rng.percent(5) {
            return Self::of_the_last_batch(rng, last);
        }
        let files = listing(directory);
        let weights =
            [(Class::Segment, 55), (Class::Snapshot, 15), (Class::Index, 22), (Class::Spare, 4), (Class::Note, 4)];
        loop {
            let class = weights[rng.weighted(&weights.map(|(_, weight)| weight))].0;
            let names: Vec<_> =
                files.iter().filter(|(name, bytes)| Class::of(name) == Some(class) && !bytes.is_empty()).collect();
            if names.is_empty() {
                continue;
            }
            let (name, bytes) = names[rng.below(names.len())];
            let how = Self::how(rng, bytes, &names);
            return Self { class, name: name.clone(), how, unproven: false };
        }
    }

    fn of_the_last_batch(rng: &mut Rng, last: &BatchAt) -> Self {
        let (begin, end) = (last.offset, last.end);
        let length = usize::try_from(end - begin).expect("a batch is small");
        // Not at its very begin: nothing would be left that is torn.
        let at = usize::try_from(begin).expect("a segment is small") + 1 + rng.below(length - 1);
        let how = match rng.below(3) {
            0 => How::Flip { bit: at as u64 * 8 + rng.below(8) as u64 },
            1 => How::Truncate { to: at },
            _ => How::Zero { at, page: length - 1 },
        };
        Self { class: Class::Segment, name: last.segment.clone(), how, unproven: true }
    }

    fn how(rng: &mut Rng, bytes: &[u8], files: &[(&String, &Vec<u8>)]) -> How {
        // What was written lies in front of what was only made room for; most of the damage is to be there.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
        let end = if rng.percent(85) { used } else { bytes.len() };
        let page = rng.pick(&PAGES);
        let at_page = |rng: &mut Rng, length: usize| rng.below(length.div_ceil(page)) * page;
        match rng.weighted(&[35, 15, 15, 20, 15]) {
            0 => How::Flip { bit: rng.below(end * 8) as u64 },
            1 => {
                let length = rng.between(1, 64);
                How::Garbage { at: rng.below(end), bytes: (0..length).map(|_| rng.next().to_le_bytes()[5]).collect() }
            }
            2 => How::Truncate { to: rng.below(end) },
            3 => How::Zero { at: at_page(rng, end), page },
            _ => {
                let (other, its) = files[rng.below(files.len())];
                let (at, other_at) = (at_page(rng, end), at_page(rng, its.len()));
                How::Swap { at, other: other.clone(), other_at, page }
            }
        }
    }

    /// Does it.
    ///
    /// # Panics
    /// If the file cannot be read or written.
    pub fn apply(&self, directory: &Path) {
        let path = directory.join(&self.name);
        let mut bytes = fs::read(&path).expect("a file can be read");
        match &self.how {
            How::Flip { bit } => bytes[usize::try_from(bit / 8).expect("it is in the file")] ^= 1 << (bit % 8),
            How::Garbage { at, bytes: garbage } => {
                for (byte, garbage) in bytes[*at..].iter_mut().zip(garbage) {
                    *byte = *garbage;
                }
            }
            How::Truncate { to } => bytes.truncate(*to),
            How::Zero { at, page } => {
                let end = bytes.len().min(at + page);
                bytes[*at..end].fill(0);
            }
            How::Swap { at, other, other_at, page } if *other == self.name => {
                let mine = page_of(&bytes, *at, *page).to_vec();
                let its = page_of(&bytes, *other_at, *page).to_vec();
                put(&mut bytes, *at, &its);
                put(&mut bytes, *other_at, &mine);
            }
            How::Swap { at, other, other_at, page } => {
                let other = directory.join(other);
                let mut theirs = fs::read(&other).expect("a file can be read");
                let mine = page_of(&bytes, *at, *page).to_vec();
                let its = page_of(&theirs, *other_at, *page).to_vec();
                put(&mut bytes, *at, &its);
                put(&mut theirs, *other_at, &mine);
                fs::write(other, theirs).expect("a file can be written");
            }
        }
        fs::write(path, bytes).expect("a file can be written");
        if self.unproven {
            fs::remove_file(directory.join(super::judge::NOTE)).expect("it is noted how far the journal was durable");
        }
    }

    /// Whether it is done to a segment that was in use.
    pub fn is_of_journal(&self) -> bool {
        self.class == Class::Segment
    }

    /// Whether two pages are in the place of each other.
    pub fn is_swap(&self) -> bool {
        matches!(self.how, How::Swap { .. })
    }

    /// What a summary counts it as.
    pub fn kind(&self) -> String {
        let how = match self.how {
            How::Flip { .. } => "a bit flipped",
            How::Garbage { .. } => "garbage",
            How::Truncate { .. } => "truncated",
            How::Zero { .. } => "a page zeroed",
            How::Swap { .. } => "pages swapped",
        };
        let class = if self.unproven { "last batch, not noted as durable" } else { self.class.name() };
        format!("{class}: {how}")
    }
}

fn page_of(bytes: &[u8], at: usize, page: usize) -> &[u8] {
    &bytes[at.min(bytes.len())..bytes.len().min(at + page)]
}

/// Never beyond the end: a file keeps its length.
fn put(bytes: &mut [u8], at: usize, page: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(page) {
        *byte = *new;
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, how, unproven, .. } = self;
        f.write_str(if *unproven { "not noted as durable, " } else { "" })?;
        match how {
            How::Flip { bit } => write!(f, "{name}: bit {} of byte {} flipped", bit % 8, bit / 8),
            How::Garbage { at, bytes } => write!(f, "{name}: {} bytes of garbage at {at}", bytes.len()),
            How::Truncate { to } => write!(f, "{name}: truncated to {to} bytes"),
            How::Zero { at, page } => write!(f, "{name}: {page} bytes zeroed at {at}"),
            How::Swap { at, other, other_at, page } => {
                write!(f, "{name}: {page} bytes at {at} swapped with those at {other_at} of {other}")
            }
        }
    }
}
