//! The house keeps its rooms apart: who may know whom, and what may be named where.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Dependencies of a crate, its tests' apart.
fn dependencies(krate: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    manifest["dependencies"].as_table().expect("a table").keys().cloned().collect()
}

/// Rust sources below a directory, with their text.
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("a source")));
            }
        }
    }
    assert!(!found.is_empty(), "{directory} has sources");
    found
}

#[test]
fn crates_know_only_whom_they_may() {
    let allowed: &[(&str, &[&str])] = &[
        ("protocol", &[]),
        ("broker/core", &["carillon-protocol"]),
        ("broker/transport", &[]),
        ("client", &["carillon-protocol"]),
        ("broker", &["carillon-protocol", "carillon-core", "carillon-transport", "carillon-client"]),
        ("loadtest", &["carillon-protocol", "carillon-transport", "carillon-client"]),
    ];
    for (krate, may) in allowed {
        let ours: Vec<_> = dependencies(krate).into_iter().filter(|name| name.starts_with("carillon")).collect();
        for name in ours {
            assert!(may.contains(&name.as_str()), "{krate} depends on {name}, and may not");
        }
    }
}

#[test]
fn each_library_is_named_in_its_room_alone() {
    let rooms: &[(&str, &[&str])] = &[
        ("quinn-proto", &["broker/transport"]),
        ("quinn-udp", &["broker/transport"]),
        ("aws-lc-sys", &["broker/transport"]),
        ("quinn", &["client"]),
    ];
    let crates =
        ["protocol", "broker/core", "broker/transport", "broker", "client", "bench", "loadtest", "tests", "tests/fuzz"];
    for (library, may) in rooms {
        for krate in crates {
            let depends = dependencies(krate).iter().any(|name| name == library);
            assert_eq!(depends, may.contains(&krate), "{krate} and {library}");
        }
    }
    for (name, text) in sources("broker/src") {
        assert!(!text.contains("sled::") || name.starts_with("broker/src/index/"), "{name} names sled");
    }
}

/// The transport names the C library beneath the TLS provider. Its symbols have its version: two of them would link, and one would age.
#[test]
fn there_is_one_crypto_library() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("a lock file");
    let versions = lock.lines().filter(|line| *line == "name = \"aws-lc-sys\"");
    assert_eq!(versions.count(), 1, "raise aws-lc-sys in Cargo.toml to the version that aws-lc-rs takes");
}

#[test]
fn the_pure_crates_cannot_name_a_clock_a_thread_or_a_file() {
    for krate in ["protocol", "broker/core"] {
        let lib = fs::read_to_string(root().join(krate).join("src/lib.rs")).expect("a library");
        assert!(lib.contains("#![no_std]"), "{krate} is no_std");
        for (name, text) in sources(&format!("{krate}/src")) {
            let product = text.replace("#[cfg(test)]\nextern crate std;", "");
            assert!(!product.contains("extern crate std"), "{name} brings std back");
        }
    }
}

#[test]
fn only_the_clocks_read_the_time() {
    let clocks = ["broker/src/clock.rs", "client/src/clock.rs", "loadtest/src/clock.rs"];
    for directory in ["broker/src", "client/src", "loadtest/src", "broker/transport/src"] {
        for (name, text) in sources(directory) {
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            let reads = ["Instant::now()", "SystemTime::now()"].iter().any(|call| product.contains(call));
            let test = name.contains("/tests/") || name.ends_with("tests.rs");
            assert!(!reads || test || clocks.contains(&name.as_str()), "{name} reads the time");
        }
    }
}

#[test]
fn files_have_not_become_towns() {
    for directory in
        ["protocol/src", "broker/core/src", "broker/transport/src", "broker/src", "client/src", "loadtest/src"]
    {
        for (name, text) in sources(directory) {
            let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
            let test = name.contains("/tests/") || name.ends_with("tests.rs");
            assert!(test || lines <= 500, "{name} has {lines} lines before its tests");
        }
    }
}
