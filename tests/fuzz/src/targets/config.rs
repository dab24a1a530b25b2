//! The configuration: any text is refused with its place, or is a configuration that is written and read again as the same.
//!
//! Input: a file.

use std::path::Path;

use carillon::config::{Config, ConfigError, EXAMPLE};

use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "config",
    run,
    // The library makes a table of each part of a dotted key, a name is not needed: up to 1,105 bytes for a dot, linear in them. Else its
    // tokens and values are up to 100 times as large as their text.
    budget: Budget { per_byte: 1_280, fixed_bytes: 128 * 1024 },
    input_bytes_max: 12 * 1024,
    seeds,
    words: &[
        b"data = ",
        b"[tls]",
        b"[ding]",
        b"[tenant.\"x\"]",
        b"[[ding.steps]]",
        b"[outlet.sms]",
        b"url = \"http://x/\"",
        b"listen = \"[::]:0\"",
        b"18446744073709551615",
        b"-1",
        b"nan",
        b"1979-05-27T07:32:00Z",
        b"\"\"\"",
        b"'''",
        b"{ }",
        b"[]",
        b"\\u0000",
        b"\\U0010ffff",
        b"\xe2\x80\xae",
    ],
    short_inputs: 6_000,
};

const PATH: &str = "/etc/carillon/carillon.toml";

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new(PATH);
    match Config::parse(text, path) {
        Ok(config) => {
            let again = Config::parse(&config.to_toml(), path).expect("what was written can be read");
            assert_eq!(again, config);
        }
        Err(ConfigError::Parse { line, column, .. }) => {
            assert!((1..=1 + text.matches('\n').count()).contains(&line), "line {line}");
            assert!((1..=text.len() + 1).contains(&column), "column {column}");
        }
        Err(error) => panic!("no file was read: {error}"),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let uncommented: String = EXAMPLE.lines().filter_map(uncommented).collect();
    let small = "data = \"d\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n[tokens]\nkeys = [\"t\"]\n";
    let outlet = "[outlet.sms]\nid = 2\nurl = \"https://sms.example/call\"\nsecret_files = [\"s\"]\n";
    let whole = Config::parse(&uncommented, Path::new(PATH));
    assert!(whole.is_ok(), "the example without its marks: {whole:?}");
    let other = with_other_numbers(&uncommented);
    vec![small.into(), format!("{small}{outlet}").into(), uncommented.into(), EXAMPLE.into(), other.into()]
}

/// A line that says something, its comment's mark taken away.
fn uncommented(line: &str) -> Option<String> {
    let line = line.trim_start_matches(['#', ' ']);
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let says = line.starts_with('[') || line.split_once(" = ").is_some_and(|(name, _)| is_name(name));
    says.then(|| format!("{line}\n"))
}

/// Each number that may be another one made so: what is written as its default may not be written at all, and nobody would see it.
fn with_other_numbers(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for nth in 0..lines.len() {
        let line = lines[nth].clone();
        let Some((name, number)) = line.split_once(" = ") else { continue };
        let Ok(number) = number.split(' ').next().unwrap_or_default().parse::<u64>() else { continue };
        for other in [number + 1, number.saturating_sub(1), number * 2] {
            lines[nth] = format!("{name} = {other}");
            if Config::parse(&lines.join("\n"), Path::new(PATH)).is_ok() {
                break;
            }
            lines[nth].clone_from(&line);
        }
    }
    lines.join("\n")
}
