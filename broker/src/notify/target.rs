//! Where a gateway is: the URL of an outlet, taken apart once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::HeaderValue;
use axum::http::uri::{PathAndQuery, Uri};
use rustls_pki_types::ServerName;
use thiserror::Error;

/// A URL that a POST can go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: String,
    /// `https`; else `http`.
    pub secure: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port, also if it is the usual one.
    pub port: u16,
    /// Path and query, as a request has them: the path begins with `/`.
    pub path: PathAndQuery,
    /// What stands in the `Host` header.
    pub authority: HeaderValue,
    /// What the certificate of an `https` server must be for.
    pub server_name: ServerName<'static>,
}

/// Why a text is no such URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// It does not parse.
    #[error("{0:?} is no URL: give one as in \"https://gateway.example/ding\"")]
    Malformed(String),
    /// Neither `https` nor `http`.
    #[error("{0:?} begins with neither https:// nor http://")]
    Scheme(String),
    /// It carries a user's name or password.
    #[error("a URL with a user or password: leave it out, calls are signed with the outlet's secret")]
    User,
    /// It ends in a fragment, which no server ever sees.
    #[error("{0:?} has a fragment (#): leave it out")]
    Fragment(String),
}

impl Target {
    /// The host's address, if it is one and no name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the host can be nothing but this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed(text.to_owned());
        if text.contains('#') {
            return Err(TargetError::Fragment(text.to_owned()));
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(TargetError::Scheme(text.to_owned())),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::User);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // A port that is none is no port to the library.
        let port = match &authority.as_str()[authority.host().len()..] {
            "" if secure => 443,
            "" => 80,
            _ => authority.port().map(|port| port.as_u16()).filter(|port| *port > 0).ok_or_else(malformed)?,
        };
        let server_name = ServerName::try_from(host.clone()).map_err(|_| malformed())?;
        let path = path(&uri).ok_or_else(malformed)?;
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| malformed())?;
        Ok(Self { url: text.to_owned(), secure, host, port, path, authority, server_name })
    }
}

/// A URL may have a query without a path, a request may not.
fn path(uri: &Uri) -> Option<PathAndQuery> {
    let text = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if text.starts_with('/') { text.parse().ok() } else { format!("/{text}").parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, (secure, host, port, path): (bool, &str, u16, &str)) {
        let target: Target = text.parse().unwrap();
        let found = (target.secure, target.host.as_str(), target.port, target.path.as_str());
        assert_eq!(found, (secure, host, port, path), "{text}");
        assert_eq!(target.to_string(), text);
    }

    #[test]
    fn a_url_is_taken_apart() {
        check("https://gateway.example/ding", (true, "gateway.example", 443, "/ding"));
        check("https://gateway.example", (true, "gateway.example", 443, "/"));
        check("http://127.0.0.1:8080/a?b=c", (false, "127.0.0.1", 8080, "/a?b=c"));
        check("https://gateway.example?token=x", (true, "gateway.example", 443, "/?token=x"));
        check("https://gateway.example:8443?", (true, "gateway.example", 8443, "/?"));
        check("https://[2001:db8::1]:8443/x", (true, "2001:db8::1", 8443, "/x"));
    }

    #[test]
    fn what_no_post_can_go_to_is_refused_with_what_to_write() {
        let refused = |text: &str| text.parse::<Target>().unwrap_err().to_string();
        // The last two are ways to write 127.0.0.1 that only some resolvers understand.
        for text in [
            "",
            "https://",
            "https://:443/",
            "https://a b/",
            "https://a:0/",
            "https://a:99999/",
            "https://a:/",
            "/ding",
            "http://2130706433/",
            "http://127.1/",
        ] {
            let error = refused(text);
            assert!(error.contains("is no URL") || error.contains("neither https"), "{text:?}: {error}");
        }
        assert!(refused("ftp://a/").contains("neither https"));
        assert!(refused("gateway.example").contains("neither https"));
        assert!(refused("https://user:password@a/").contains("leave it out"));
        assert!(refused("https://a/#b").contains("fragment"));
    }

    #[test]
    fn only_what_names_this_machine_is_loopback() {
        for (text, is) in [
            ("http://localhost:1/", true),
            ("http://127.0.0.1:1/", true),
            ("http://[::1]:1/", true),
            ("http://localhost.example:1/", false),
            ("http://10.0.0.1:1/", false),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().is_loopback(), is, "{text}");
        }
    }
}
