//! The faults by which the simulation is tried (`tests/faults/run`) fit the code as it is now.

use std::fs;
use std::path::{Path, PathBuf};

/// The least number of faults that the simulation is tried by.
const FAULTS_MIN: usize = 12;

fn patches() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults");
    let entries = fs::read_dir(&directory).expect("the faults");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let patches: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|is| is == "patch")).collect();
    let read = |path: &PathBuf| (path.display().to_string(), fs::read_to_string(path).expect("a patch"));
    patches.iter().map(read).collect()
}

/// The lines that a hunk wants to find, and whether it changes any.
fn wanted<'a>(hunk: impl Iterator<Item = &'a str>) -> (Vec<&'a str>, bool) {
    let (mut wanted, mut changes) = (Vec::new(), false);
    for line in hunk {
        match line.split_at_checked(1) {
            Some((" ", text)) => wanted.push(text),
            Some(("-", text)) => {
                wanted.push(text);
                changes = true;
            }
            Some(("+", _)) => changes = true,
            _ => {}
        }
    }
    (wanted, changes)
}

fn check(name: &str, patch: &str) {
    let (why, diff) = patch.split_once("\n\n--- a/").unwrap_or_else(|| panic!("{name} says what it breaks, then how"));
    assert!(why.ends_with('.') && !why.contains('\n'), "{name} says in a sentence what it breaks");
    let (path, _) = diff.split_once('\n').expect("a path");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name} changes {}: {error}", path.display()));
    let source: Vec<&str> = text.lines().collect();
    let hunks = diff.split("\n@@ ").skip(1);
    let mut count = 0;
    for hunk in hunks {
        let (wanted, changes) = wanted(hunk.lines().skip(1));
        let found = source.windows(wanted.len()).filter(|lines| *lines == wanted).count();
        assert!(changes && found == 1, "{name} does not fit {}: make it anew for the code as it is", path.display());
        count += 1;
    }
    assert!(count > 0, "{name} changes nothing");
}

#[test]
fn every_fault_fits_the_code() {
    let patches = patches();
    assert!(patches.len() >= FAULTS_MIN, "{} faults", patches.len());
    for (name, patch) in &patches {
        check(name, patch);
    }
}
