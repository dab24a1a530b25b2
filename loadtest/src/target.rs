//! Which broker, and how to be let in: from flags, or from the context file of `carillon dev`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::Failure;
use crate::peers::{Peer, PeerTarget};

/// Where `carillon dev` puts its context unless told otherwise.
const CONTEXT_DEFAULT: &str = "carillon-data/context.toml";

/// The name in the certificate of a development broker.
const SERVER_NAME_DEFAULT: &str = "localhost";

/// Which broker the run is for. What a flag does not say, the context does.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TargetArgs {
    /// The context file that `carillon dev` wrote; default: ./carillon-data/context.toml, unless all of --address, --ca,
    /// --token-key and --tenant are given
    #[arg(long, env = "CARILLON_CONTEXT", value_name = "FILE")]
    pub context: Option<PathBuf>,
    /// The broker, host:port (UDP; a peer: TCP)
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// The name in its certificate
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Who vouches for its certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The private key (Ed25519, PEM) that signs the sessions' tokens
    #[arg(long, value_name = "FILE")]
    pub token_key: Option<PathBuf>,
    /// The organisation that the sessions belong to
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Let the broker be on another machine; without this, anything but loopback is refused
    #[arg(long)]
    pub allow_remote: bool,
}

/// A broker and how to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    /// Who vouches for it.
    pub ca: PathBuf,
    /// What signs tokens.
    pub token_key: PathBuf,
    /// The organisation.
    pub tenant: String,
}

/// The part of a context file that matters here; the rest is the command's.
#[derive(Debug, Default, Deserialize)]
struct Context {
    address: Option<String>,
    server_name: Option<String>,
    ca: Option<PathBuf>,
    token_key: Option<PathBuf>,
    tenant: Option<String>,
}

impl TargetArgs {
    /// The broker that was meant.
    ///
    /// # Errors
    /// [`Failure`] says which flag or key is missing or wrong.
    pub fn resolve(&self) -> Result<Target, Failure> {
        let context = self.read_context()?;
        let missing = |what: &str| {
            Failure::Usage(format!("say --{what}, or name a context that has it with --context (see --help)"))
        };
        let address = self.address.clone().or(context.address).ok_or_else(|| missing("address"))?;
        let server_name = self.server_name.clone().or(context.server_name);
        Ok(Target {
            address: self.resolve_address(&address)?,
            server_name: server_name.unwrap_or_else(|| SERVER_NAME_DEFAULT.to_owned()),
            ca: self.ca.clone().or(context.ca).ok_or_else(|| missing("ca"))?,
            token_key: self.token_key.clone().or(context.token_key).ok_or_else(|| missing("token-key"))?,
            tenant: self.tenant.clone().or(context.tenant).ok_or_else(|| missing("tenant"))?,
        })
    }

    /// The server of a peer that was meant. Nothing is taken from a context, which is Carillon's.
    ///
    /// # Errors
    /// [`Failure`] says which flag is missing or wrong.
    pub fn resolve_peer(&self, peer: Peer) -> Result<PeerTarget, Failure> {
        let missing = |what: &str| Failure::Usage(format!("say --{what}: a peer has no context"));
        let address = self.address.as_ref().ok_or_else(|| missing("address"))?;
        Ok(PeerTarget {
            peer,
            address: self.resolve_address(address)?,
            server_name: self.server_name.clone().unwrap_or_else(|| SERVER_NAME_DEFAULT.to_owned()),
            ca: self.ca.clone().ok_or_else(|| missing("ca"))?,
        })
    }

    fn read_context(&self) -> Result<Context, Failure> {
        let is_complete =
            self.address.is_some() && self.ca.is_some() && self.token_key.is_some() && self.tenant.is_some();
        let path = match &self.context {
            Some(path) if path.is_dir() => path.join("context.toml"),
            Some(path) => path.clone(),
            None if is_complete || !Path::new(CONTEXT_DEFAULT).exists() => return Ok(Context::default()),
            None => PathBuf::from(CONTEXT_DEFAULT),
        };
        let text = std::fs::read_to_string(&path).map_err(|source| Failure::Read { path: path.clone(), source })?;
        let mut context: Context = toml::from_str(&text)
            .map_err(|error| Failure::Usage(format!("the context {}: {error}", path.display())))?;
        let base = path.parent().unwrap_or(Path::new(""));
        for file in [context.ca.as_mut(), context.token_key.as_mut()].into_iter().flatten() {
            *file = base.join(&*file);
        }
        Ok(context)
    }

    fn resolve_address(&self, address: &str) -> Result<SocketAddr, Failure> {
        let unknown = |why: String| Failure::Usage(format!("{address:?} is no address of the form host:port: {why}"));
        let found = address.to_socket_addrs().map_err(|error| unknown(error.to_string()))?.next();
        let found = found.ok_or_else(|| unknown("the name has none".to_owned()))?;
        if !found.ip().is_loopback() && !self.allow_remote {
            return Err(Failure::Usage(format!(
                "{found} is another machine: a load test can take a broker down. --allow-remote if you may do that"
            )));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(address: &str) -> TargetArgs {
        TargetArgs {
            address: Some(address.into()),
            ca: Some("ca.pem".into()),
            token_key: Some("token.key".into()),
            tenant: Some("dev".into()),
            ..TargetArgs::default()
        }
    }

    #[test]
    fn another_machine_is_refused_unless_it_is_meant() {
        assert!(complete("127.0.0.1:4455").resolve().is_ok());
        assert!(complete("[::1]:4455").resolve().is_ok());
        let refused = complete("192.0.2.1:4455").resolve().unwrap_err();
        assert!(refused.to_string().contains("--allow-remote"), "{refused}");
        assert!(TargetArgs { allow_remote: true, ..complete("192.0.2.1:4455") }.resolve().is_ok());
    }

    #[test]
    fn a_context_says_what_the_flags_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context.toml");
        let text = "address = \"127.0.0.1:1\"\nserver_name = \"here\"\nca = \"ca.pem\"\ntenant = \"dev\"\n\
                    token_key = \"token.key\"\nstate = \"state\"\n";
        std::fs::write(&path, text).unwrap();
        for context in [path.as_path(), directory.path()] {
            let args =
                TargetArgs { context: Some(context.to_owned()), tenant: Some("other".into()), ..TargetArgs::default() };
            let target = args.resolve().unwrap();
            assert_eq!((target.server_name.as_str(), target.tenant.as_str()), ("here", "other"));
            assert_eq!(target.token_key, directory.path().join("token.key"));
        }
    }
}
