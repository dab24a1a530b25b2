//! The configuration: any text is refused with its place, or is a configuration that is written and read again as the same.
//!
//! Input: a file.

use std::path::Path;

use carillon::config::{Config, ConfigError, EXAMPLE};

use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "config",
    run,
    // The library's tree of tokens and values is some times as large as its text; so is a small error's copy of the text.
    budget: Budget { per_byte: 96, fixed_bytes: 128 * 1024 },
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

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new("/etc/carillon/carillon.toml");
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
    let uncommented: String =
        EXAMPLE.lines().map(|line| line.strip_prefix("#").unwrap_or(line)).fold(String::new(), |text, line| {
            if line.contains('=') || line.starts_with('[') { text + line + "\n" } else { text }
        });
    let small = "data = \"d\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n[tokens]\nkeys = [\"t\"]\n";
    let outlet = "[outlet.sms]\nid = 2\nurl = \"https://sms.example/call\"\nsecret_files = [\"s\"]\n";
    vec![small.into(), format!("{small}{outlet}").into(), uncommented.into(), EXAMPLE.into()]
}
