//! Values that are judged where they are read: the parser adds line and column to what is said here.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// An integer within bounds.
pub(super) fn between<'de, const LOW: u64, const HIGH: u64, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let value = u64::deserialize(deserializer)?;
    let fits = (LOW..=HIGH).contains(&value).then(|| T::try_from(value).ok()).flatten();
    fits.ok_or_else(|| D::Error::custom(format!("{value} is out of bounds: give {LOW} to {HIGH}")))
}

fn parse_address<E: Error>(text: &str) -> Result<SocketAddr, E> {
    text.parse().map_err(|_| {
        E::custom(format!("{text:?} is no address: give IP and port, as in \"0.0.0.0:4455\" or \"[::]:4455\""))
    })
}

/// IP and port.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?)
}

/// IP and port, or an empty text for none.
pub(super) fn address_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { parse_address(&text).map(Some) }
}

/// As [`address_or_none`] reads it.
#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
pub(super) fn write_address_or_none<S: Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    address.map_or(String::new(), |address| address.to_string()).serialize(serializer)
}

/// A path that is not empty, which would name the directory of the file.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        return Err(D::Error::custom("an empty path: name a file or directory"));
    }
    Ok(path)
}

/// At least one path.
pub(super) fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    if paths.is_empty() {
        return Err(D::Error::custom("name at least one public key, or nobody can connect"));
    }
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(D::Error::custom("an empty path: name a file"));
    }
    Ok(paths)
}

/// What `tracing-subscriber` understands.
pub(super) fn log_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    log_filter(&text).map(|_| text).map_err(D::Error::custom)
}

/// What a log level means: a level, or levels of parts.
///
/// # Errors
/// What is wrong, and what to write. A lone word that is no level is an error too, which `tracing-subscriber` by itself takes
/// for the name of a part that alone is logged.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    // An empty text would mean `error` to the parser of levels.
    let level = |part: &str| part.contains(['=', '[']) || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    // Trimmed: to the parser of directives a blank is a part of the name before or behind it.
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    let filter = parts.iter().all(|part| level(part)).then(|| EnvFilter::try_new(parts.join(",")).ok()).flatten();
    filter.ok_or_else(|| {
        format!(
            "{text:?} is no log level: give error, warn, info, debug or trace, or parts as in \"carillon=debug,warn\""
        )
    })
}
