//! `[outlet.<name>]` and `[callbacks]`: the gateways of DINGs, and where they call back.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::value;
use crate::notify::limits::{self, OUTLETS_MAX, SECRETS_MAX};
use crate::notify::signature::{SecretError, Secrets};
use crate::notify::{NAMED, OutletId, OutletOptions, Target};
use crate::tls::{self, TlsError};

/// The first number that is free for an operator's own outlets.
const OWN_ID_MIN: u8 = 64;

/// A name is a part of a path and a label of metrics.
const NAME_BYTES_MAX: usize = 32;

/// `[callbacks]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Callbacks {
    /// Where gateways call back, TCP; `None`, an empty text in the file: nowhere.
    #[serde(deserialize_with = "value::address_or_none", serialize_with = "value::write_address_or_none")]
    pub listen: Option<SocketAddr>,
}

/// `[outlet.<name>]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outlet {
    /// Its number; 0: the one that its name has.
    #[serde(default, deserialize_with = "value::between::<0, 255, _, _>")]
    pub id: u8,
    /// Where calls are POSTed.
    #[serde(deserialize_with = "target", serialize_with = "shown")]
    pub url: Target,
    /// Files with one secret each, `whsec_…`. Relative to the file.
    #[serde(deserialize_with = "secret_files")]
    pub secret_files: Vec<PathBuf>,
    /// Authorities in PEM that vouch for the gateway; empty: those of the system. Relative to the file.
    #[serde(default)]
    pub ca: PathBuf,
    /// Ranges that may be called beside public addresses.
    #[serde(default, deserialize_with = "ranges", serialize_with = "all_shown")]
    pub allow: Vec<IpNet>,
    /// Whether `http://` may leave this machine.
    #[serde(default)]
    pub plain: bool,
    /// POSTs under way at once.
    #[serde(default = "concurrency", deserialize_with = "value::between::<1, 256, _, _>")]
    pub concurrency: usize,
    /// POSTs a second.
    #[serde(default = "calls_a_second", deserialize_with = "value::between::<1, 10_000, _, _>")]
    pub calls_a_second: u32,
    /// Tries of one call.
    #[serde(default = "tries_max", deserialize_with = "value::between::<1, 1_000, _, _>")]
    pub tries_max: u32,
    /// For how long one call is tried.
    #[serde(default = "tries_for_s", deserialize_with = "value::between::<1, 86_400, _, _>")]
    pub tries_for_s: u64,
    /// For a whole try.
    #[serde(default = "timeout_ms", deserialize_with = "value::between::<100, 60_000, _, _>")]
    pub timeout_ms: u64,
    /// For the connection alone.
    #[serde(default = "connect_timeout_ms", deserialize_with = "value::between::<100, 60_000, _, _>")]
    pub connect_timeout_ms: u64,
}

fn concurrency() -> usize {
    limits::CONCURRENCY_DEFAULT
}

fn calls_a_second() -> u32 {
    limits::CALLS_A_SECOND_DEFAULT
}

fn tries_max() -> u32 {
    limits::TRIES_DEFAULT
}

fn tries_for_s() -> u64 {
    limits::TRIES_FOR_DEFAULT.as_secs()
}

fn timeout_ms() -> u64 {
    millis(limits::TIMEOUT_DEFAULT)
}

fn connect_timeout_ms() -> u64 {
    millis(limits::CONNECT_TIMEOUT_DEFAULT)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn shown<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn secret_files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let files = Vec::<PathBuf>::deserialize(deserializer)?;
    if !(1..=SECRETS_MAX).contains(&files.len()) {
        let text = format!("name 1 to {SECRETS_MAX} files with one secret each: echo whsec_$(openssl rand -base64 32)");
        return Err(D::Error::custom(text));
    }
    if files.iter().any(|file| file.as_os_str().is_empty()) {
        return Err(D::Error::custom("an empty path: name a file"));
    }
    Ok(files)
}

fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let parse = |text: String| {
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no range: write one as in \"10.1.0.0/16\"")))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

fn all_shown<S: Serializer>(values: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(IpNet::to_string))
}

/// All outlets, by name.
pub(super) fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Outlet>, D::Error> {
    struct Named;

    impl<'de> Visitor<'de> for Named {
        type Value = BTreeMap<String, Outlet>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table for each outlet, as in [outlet.sms]")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut outlets = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let outlet = map.next_value_seed(OneOf { name: &name, others: &outlets })?;
                outlets.insert(name, outlet);
            }
            Ok(outlets)
        }
    }

    deserializer.deserialize_map(Named)
}

/// Judges an outlet by its name and the others while it is read, so that an error names its line.
struct OneOf<'a> {
    name: &'a str,
    others: &'a BTreeMap<String, Outlet>,
}

impl<'de> DeserializeSeed<'de> for OneOf<'_> {
    type Value = Outlet;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Outlet, D::Error> {
        let mut outlet = Outlet::deserialize(deserializer)?;
        outlet.id = self.judge(&outlet).map_err(D::Error::custom)?;
        Ok(outlet)
    }
}

impl OneOf<'_> {
    /// Its number, or what is wrong.
    fn judge(&self, outlet: &Outlet) -> Result<u8, String> {
        let Self { name, others } = *self;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            return Err(format!("{name:?} is no name: 1 to {NAME_BYTES_MAX} letters a to z, digits and hyphens"));
        }
        if others.len() == OUTLETS_MAX {
            return Err(format!("there are more than {OUTLETS_MAX} outlets"));
        }
        let id = id_of(name, outlet.id)?;
        if let Some((other, _)) = others.iter().find(|(_, other)| other.id == id) {
            return Err(format!("{name} has the id {id} of {other}: give it another"));
        }
        let stays_here = outlet.url.is_loopback() && outlet.allow.iter().any(|range| range.addr().is_loopback());
        if !outlet.url.secure && !outlet.plain && !stays_here {
            let text = "is not encrypted: write https://, set `plain = true` if all of the way is yours, or, for a gateway on \
                        this machine, `allow = [\"127.0.0.0/8\", \"::1/128\"]`";
            return Err(format!("{} {text}", outlet.url));
        }
        if outlet.connect_timeout_ms > outlet.timeout_ms {
            return Err("connect_timeout_ms is a part of timeout_ms: make it no longer".into());
        }
        Ok(id)
    }
}

fn id_of(name: &str, given: u8) -> Result<u8, String> {
    match NAMED.iter().find(|(_, known)| *known == name) {
        Some((OutletId::APP, _)) => Err("app is the broker itself, all devices: it needs no gateway".into()),
        Some((OutletId(own), _)) if given == 0 || given == *own => Ok(*own),
        Some((OutletId(own), _)) => Err(format!("{name} has the id {own}: leave `id` out")),
        None if given >= OWN_ID_MIN => Ok(given),
        None => Err(format!("{name} is an outlet of your own: give it an `id` of {OWN_ID_MIN} to 255, and keep it")),
    }
}

/// Why an outlet cannot be used.
#[derive(Debug, Error)]
pub enum OutletError {
    /// A secret could not be read.
    #[error("outlet {outlet}: cannot read the secret {path}: {source}")]
    Read {
        /// Of which.
        outlet: String,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no secret.
    #[error("outlet {outlet}, {path}: {source}")]
    Secret {
        /// Of which.
        outlet: String,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: SecretError,
    },
    /// Whom the outlet believes could not be read.
    #[error("outlet {outlet}: {source}")]
    Authorities {
        /// Of which.
        outlet: String,
        /// Why.
        source: Box<TlsError>,
    },
}

impl Outlet {
    /// With paths relative to a directory.
    pub(super) fn set_base(&mut self, base: &Path) {
        for file in &mut self.secret_files {
            *file = base.join(&*file);
        }
        if !self.ca.as_os_str().is_empty() {
            self.ca = base.join(&self.ca);
        }
    }

    /// Reads secrets and authorities.
    ///
    /// # Errors
    /// [`OutletError`] names the file.
    pub fn open(&self, name: &str) -> Result<OutletOptions, OutletError> {
        let ca = Some(self.ca.as_path()).filter(|ca| !ca.as_os_str().is_empty());
        let refused = |source| OutletError::Authorities { outlet: name.into(), source: Box::new(source) };
        let trusting = || tls::trusting(ca).map_err(refused);
        let options = OutletOptions::new(OutletId(self.id), name, self.url.clone(), self.secrets(name)?);
        Ok(OutletOptions {
            allow: self.allow.clone(),
            plain: self.plain,
            tls: self.url.secure.then(trusting).transpose()?,
            concurrency: self.concurrency,
            calls_a_second: self.calls_a_second,
            tries_max: self.tries_max,
            tries_for: Duration::from_secs(self.tries_for_s),
            timeout: Duration::from_millis(self.timeout_ms),
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            ..options
        })
    }

    fn secrets(&self, name: &str) -> Result<Secrets, OutletError> {
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path);
            let text = text.map_err(|source| OutletError::Read { outlet: name.into(), path: path.clone(), source })?;
            // Each by itself, so that an error names its file.
            let judged = Secrets::parse([text.as_str()]);
            judged.map_err(|source| OutletError::Secret { outlet: name.into(), path: path.clone(), source })?;
            Ok(text)
        };
        let texts = self.secret_files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Secrets::parse(texts.iter().map(String::as_str)).expect("each was judged by itself"))
    }
}
