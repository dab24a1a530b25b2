//! The context file: where a broker is, how it proves who it is, and how this user proves who they are.
//!
//! ```toml
//! address = "127.0.0.1:4455"     # host:port
//! server_name = "localhost"      # what its certificate is for
//! ca = "ca.pem"                  # who vouches for it
//! tenant = "dev"
//! token_key = "token.key"        # development: the command signs its own tokens, for any user and role…
//! # token_file = "alice.jwt"     # …or a token that somebody signed,
//! # token = "eyJ…"               # …or that token itself
//! state = "state"                # where slots are kept
//! # user = "alice"               # who one is without --user
//! ```
//!
//! Paths are relative to the file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carillon::edge::auth::Claims;
use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure};

/// Where `carillon dev` puts everything unless told otherwise.
pub(crate) const DATA_DEFAULT: &str = "carillon-data";

/// The context's name in a data directory.
pub(crate) const FILE_NAME: &str = "context.toml";

/// A context, its paths resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `host:port` of the broker.
    pub(crate) address: String,
    /// What its certificate is for.
    pub(crate) server_name: String,
    /// Who vouches for it, PEM.
    pub(crate) ca: PathBuf,
    /// The organisation.
    pub(crate) tenant: String,
    /// The private key that signs tokens, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_key: Option<PathBuf>,
    /// A file that holds a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// A token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Where slots are kept.
    pub(crate) state: PathBuf,
    /// Who one is without `--user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
}

/// How a user of the context proves who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The command signs tokens with this key.
    Key(PathBuf),
    /// Somebody else signed this one.
    Token(String),
}

impl Context {
    /// The context that was named, or the one of `carillon dev` in this directory.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let default = Path::new(DATA_DEFAULT).join(FILE_NAME);
        let path = match named {
            Some(path) if path.is_dir() => path.join(FILE_NAME),
            Some(path) => path.to_owned(),
            None => default,
        };
        Self::load(&path)
    }

    /// The context in this file.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::caused(
                Exit::Usage,
                format!(
                    "there is no context at {}: run `carillon dev` in another terminal first, or name a context with \
                     --context or CARILLON_CONTEXT",
                    path.display()
                ),
                error,
            ),
            _ => Failure::caused(Exit::Usage, format!("cannot read the context {}: {error}", path.display()), error),
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let mut context: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            let text = format!("{}, line {line}: {}", path.display(), error.message());
            Failure::caused(Exit::Usage, text, error)
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let files = [Some(&mut context.ca), Some(&mut context.state)];
        for file in files.into_iter().chain([context.token_key.as_mut(), context.token_file.as_mut()]).flatten() {
            *file = base.join(&*file);
        }
        Ok(context)
    }

    /// Writes the context, whole or not at all. Only its owner may read it: with the key beside it, one can be anybody.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let temporary = path.with_extension("toml.new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        writeln!(file, "# Written by `carillon dev` each time it starts. Other commands find the broker by it.")?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }

    /// How to prove who one is.
    pub(crate) fn credential(&self) -> Result<Credential, Failure> {
        match (&self.token_key, &self.token_file, &self.token) {
            (Some(key), None, None) => Ok(Credential::Key(key.clone())),
            (None, Some(file), None) => {
                let token = fs::read_to_string(file).map_err(|error| {
                    Failure::caused(Exit::Usage, format!("cannot read the token {}: {error}", file.display()), error)
                })?;
                Ok(Credential::Token(token.trim().to_owned()))
            }
            (None, None, Some(token)) => Ok(Credential::Token(token.clone())),
            _ => Err(Failure::usage("the context must have one of token_key, token_file and token")),
        }
    }
}

/// What a token says about itself. Not verified: the broker does that.
pub(crate) fn claims(token: &str) -> Result<Claims, Failure> {
    let middle = token.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims = middle.and_then(|json| serde_json::from_slice(&json).ok());
    claims.ok_or_else(|| Failure::usage("the context's token is no JWT with the claims tenant, sub, role, exp and aud"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            address: "127.0.0.1:4455".into(),
            server_name: "localhost".into(),
            ca: "ca.pem".into(),
            tenant: "dev".into(),
            token_key: Some("token.key".into()),
            token_file: None,
            token: None,
            state: "state".into(),
            user: None,
        }
    }

    #[test]
    fn what_is_saved_is_found_with_its_paths_resolved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        context().save(&path).unwrap();
        for named in [path.as_path(), directory.path()] {
            let found = Context::find(Some(named)).unwrap();
            assert_eq!(found.ca, directory.path().join("ca.pem"));
            assert_eq!(found.credential().unwrap(), Credential::Key(directory.path().join("token.key")));
            assert_eq!(found.user, None);
        }
    }

    #[test]
    fn a_missing_context_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let failure = Context::find(Some(&directory.path().join("none.toml"))).unwrap_err();
        assert!(failure.report(false).unwrap().contains("run `carillon dev` in another terminal first"));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let text = toml::to_string(&context()).unwrap().replace("tenant", "tenat");
        let report = Context::parse(&text, Path::new("x/context.toml")).unwrap_err().report(false).unwrap();
        assert!(report.contains("x/context.toml, line 4: unknown field `tenat`"), "{report}");
    }

    #[test]
    fn one_credential_is_wanted() {
        let both = Context { token: Some("x".into()), ..context() };
        assert!(both.credential().is_err());
        assert!(Context { token_key: None, ..context() }.credential().is_err());
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let json = r#"{"tenant":"t","sub":"alice","role":"user","exp":1,"aud":"carillon"}"#;
        let token = format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(json));
        assert_eq!(claims(&token).unwrap().sub, "alice");
        assert!(claims("nonsense").is_err());
    }
}
