//! Copies of a directory, and what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// Contents by path below the directory, with `/` between the parts.
pub type Listing = BTreeMap<String, Vec<u8>>;

/// Makes `to` a copy of `from`, whatever was there.
///
/// # Panics
/// If it cannot.
pub fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("an old copy can be removed");
    }
    copy_into(from, to);
}

fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a directory can be listed") {
        let entry = entry.expect("a directory can be listed");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_into(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file can be copied");
        }
    }
}

/// Removes what is in a directory.
///
/// # Panics
/// If it cannot.
pub fn empty(directory: &Path) {
    fs::remove_dir_all(directory).and_then(|()| fs::create_dir(directory)).expect("a directory can be emptied");
}

/// What is in a directory.
///
/// # Panics
/// If it cannot be read.
pub fn listing(directory: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut open = vec![directory.to_owned()];
    while let Some(inside) = open.pop() {
        for entry in fs::read_dir(&inside).expect("a directory can be listed") {
            let path = entry.expect("a directory can be listed").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("it is below").to_string_lossy().into_owned();
                listing.insert(name, fs::read(path).expect("a file can be read"));
            }
        }
    }
    listing
}

/// The bytes that a file differs in: where the first is and behind the last; to its old end if it is shorter.
pub type Changed = BTreeMap<String, Vec<Range<u64>>>;

/// Which files differ from what they were, and where; `None`: none.
///
/// # Panics
/// If they cannot be read.
pub fn changed(before: &Listing, directory: &Path) -> Option<Changed> {
    let mut changed = Changed::new();
    for (name, old) in before {
        let new = fs::read(directory.join(name)).unwrap_or_default();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let differs = (0..old.len().max(new.len())).filter(|at| old.get(*at) != new.get(*at));
        for at in differs.map(|at| at as u64) {
            match ranges.last_mut() {
                Some(range) if range.end == at => range.end = at + 1,
                _ => ranges.push(at..at + 1),
            }
        }
        if !ranges.is_empty() {
            changed.insert(name.clone(), ranges);
        }
    }
    (!changed.is_empty()).then_some(changed)
}
