//! What only the machine can tell of a configuration: whether what it names is there and fits.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::Access;

use super::Config;
use crate::clock::Clock;
use crate::tls::{self, Presented};

/// A certificate that ends sooner is warned of.
const EXPIRES_SOON_S: i64 = 14 * 86_400;

/// How a thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// A broker starts with it, but somebody should look.
    Doubtful,
    /// A broker would not start with it, or nobody could connect.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key of the configuration.
    pub key: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and the remedy.
    pub text: String,
}

fn found(key: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { key, verdict, text: text.into() }
}

/// Looks at everything the configuration names. Changes nothing, and may be asked while a broker serves with it.
pub fn check(config: &Config, clock: &dyn Clock) -> Vec<Finding> {
    let mut findings = vec![data(&config.data), udp(config.listen)];
    findings.push(match Presented::load(&config.tls.certificate, &config.tls.key) {
        Ok(presented) => expiry(&presented, clock),
        Err(error) => found("tls", Verdict::Bad, error.to_string()),
    });
    findings.extend(secret("tls.key", &config.tls.key));
    for path in &config.tokens.keys {
        findings.push(match tls::token_key(path) {
            Ok(_) => found("tokens.keys", Verdict::Good, format!("{} is an Ed25519 public key", path.display())),
            Err(error) => found("tokens.keys", Verdict::Bad, error.to_string()),
        });
    }
    findings.extend(config.http.listen.map(tcp));
    for (name, outlet) in &config.outlet {
        findings.push(match outlet.open(name) {
            Ok(options) => found("outlet", Verdict::Good, format!("{name} calls {}", options.target)),
            Err(error) => found("outlet", Verdict::Bad, error.to_string()),
        });
        findings.extend(outlet.secret_files.iter().filter_map(|path| secret("outlet", path)));
    }
    let callbacks = |address| bound("callbacks.listen", "TCP", address, TcpListener::bind(address).err());
    findings.extend(config.callbacks.listen.map(callbacks));
    findings
}

/// The directory can be written to, or made.
fn data(path: &Path) -> Finding {
    let shown = path.display();
    // The nearest that exists: what is missing below it is made at the start.
    // The last ancestor of a relative path is empty, and means where we are.
    let here = |ancestor: &'_ Path| ancestor.as_os_str().is_empty();
    let mut ancestors = path.ancestors().map(|ancestor| if here(ancestor) { Path::new(".") } else { ancestor });
    let Some(existing) = ancestors.find(|ancestor| ancestor.exists()) else {
        return found("data", Verdict::Bad, format!("{shown}: nothing of this path exists: name another directory"));
    };
    if !existing.is_dir() {
        let text = format!("{} is no directory: name another one, or move it away", existing.display());
        return found("data", Verdict::Bad, text);
    }
    match rustix::fs::access(existing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if existing == path => found("data", Verdict::Good, format!("{shown} can be written to")),
        Ok(()) => found("data", Verdict::Good, format!("{shown} will be made")),
        Err(error) => {
            let text = format!(
                "{} cannot be written to by this user: {}; run this as the broker's user, or `chown` it",
                existing.display(),
                io::Error::from(error)
            );
            found("data", Verdict::Bad, text)
        }
    }
}

fn udp(address: SocketAddr) -> Finding {
    bound("listen", "UDP", address, UdpSocket::bind(address).err())
}

fn tcp(address: SocketAddr) -> Finding {
    let finding = bound("http.listen", "TCP", address, TcpListener::bind(address).err());
    if finding.verdict == Verdict::Good && !address.ip().is_loopback() {
        let text = format!("TCP {address} is no loopback address: see that only your monitoring reaches it");
        return found("http.listen", Verdict::Doubtful, text);
    }
    finding
}

fn bound(key: &'static str, protocol: &str, address: SocketAddr, error: Option<io::Error>) -> Finding {
    match error {
        None => found(key, Verdict::Good, format!("{protocol} {address} can be bound")),
        Some(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let text = format!("{protocol} {address} is taken: by a broker that runs, or by somebody else");
            found(key, Verdict::Doubtful, text)
        }
        Some(error) => {
            let text = format!("{protocol} {address} cannot be bound: {error}; give an address of this machine");
            found(key, Verdict::Bad, text)
        }
    }
}

fn expiry(presented: &Presented, clock: &dyn Clock) -> Finding {
    let Some(ends_s) = presented.ends_at_s() else {
        return found("tls", Verdict::Doubtful, "certificate and key fit; when the certificate ends cannot be read");
    };
    let left_s = ends_s - i64::try_from(clock.wall().0 / 1_000).unwrap_or(i64::MAX);
    let days = left_s / 86_400;
    if left_s < 0 {
        return found("tls", Verdict::Bad, format!("the certificate ended {} days ago: get a new one", -days));
    }
    if left_s < EXPIRES_SOON_S {
        return found("tls", Verdict::Doubtful, format!("the certificate ends in {days} days: renew it"));
    }
    found("tls", Verdict::Good, format!("certificate and key fit; the certificate ends in {days} days"))
}

/// Nobody else should read a private key or a secret.
pub(super) fn secret(key: &'static str, path: &Path) -> Option<Finding> {
    let mode = path.metadata().ok()?.permissions().mode();
    let text = || format!("{0} can be read by everybody: `chmod o-rwx {0}`", path.display());
    (mode & 0o004 != 0).then(|| found(key, Verdict::Doubtful, text()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Http, Log, Network, Receipts, Renewal, Tls, Tokens};
    use crate::material::Material;
    use std::fs;

    /// A good configuration in a directory, and what is found after it was changed.
    fn check_after(change: impl FnOnce(&mut Config), key: &str, verdict: Verdict, says: &str) {
        let directory = tempfile::tempdir().unwrap();
        let material = Material::ensure(directory.path()).unwrap();
        let mut config = Config {
            receipts: Receipts::default(),
            data: directory.path().join("not/yet/there"),
            listen: ([127, 0, 0, 1], 0).into(),
            edges: 0,
            drain_ms: 0,
            tls: Tls { certificate: material.certificate, key: material.key },
            tokens: Tokens { keys: vec![material.token_public_key] },
            renewal: Renewal::default(),
            index: crate::config::Index::default(),
            network: Network::default(),
            journal: Default::default(),
            snapshots: Default::default(),
            retention: Default::default(),
            http: Http { listen: Some(([127, 0, 0, 1], 0).into()) },
            callbacks: Default::default(),
            outlet: Default::default(),
            ding: Default::default(),
            tenant: Default::default(),
            log: Log::default(),
        };
        change(&mut config);
        let findings = check(&config, &SystemClock);
        let matches = |f: &&Finding| f.key == key && f.verdict == verdict && f.text.contains(says);
        assert!(findings.iter().any(|f| matches(&f)), "{key} {verdict:?} {says:?} is not in {findings:#?}");
        let others = findings.iter().filter(|f| f.key != key);
        assert!(others.clone().all(|f| f.verdict == Verdict::Good), "{findings:#?}");
    }

    #[test]
    fn what_is_good_is_told_so() {
        check_after(|_| {}, "data", Verdict::Good, "will be made");
        check_after(|_| {}, "tls", Verdict::Good, "the certificate ends in");
        check_after(|_| {}, "tokens.keys", Verdict::Good, "Ed25519");
    }

    #[test]
    fn files_that_do_not_serve_are_named() {
        let missing = |config: &mut Config| config.tls.certificate = "/nowhere/server.pem".into();
        check_after(missing, "tls", Verdict::Bad, "/nowhere/server.pem");
        let swapped = |config: &mut Config| config.tls.key = config.tokens.keys[0].clone();
        check_after(swapped, "tls", Verdict::Bad, "token.pub");
        let private = |config: &mut Config| config.tokens.keys[0] = config.tls.certificate.clone();
        check_after(private, "tokens.keys", Verdict::Bad, "server.pem");
        let open = |config: &mut Config| {
            fs::set_permissions(&config.tls.key, fs::Permissions::from_mode(0o644)).unwrap();
        };
        check_after(open, "tls.key", Verdict::Doubtful, "chmod o-rwx");
    }

    #[test]
    fn an_outlet_s_files_are_read() {
        const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let with = |secret: &'static str, mode: u32| {
            move |config: &mut Config| {
                let directory = config.tls.key.parent().unwrap();
                let (path, ca) = (directory.join("sms.secret"), directory.join("ca.pem"));
                fs::write(&path, secret).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                let text = "url = \"https://gateway.example/ding\"\nsecret_files = [\"sms.secret\"]\nca = \"ca.pem\"\n";
                let mut outlet: crate::config::Outlet = toml::from_str(text).unwrap();
                (outlet.secret_files, outlet.ca) = (vec![path], ca);
                config.outlet.insert("sms".into(), outlet);
            }
        };
        check_after(with(SECRET, 0o600), "outlet", Verdict::Good, "sms calls https://gateway.example/ding");
        check_after(with(SECRET, 0o644), "outlet", Verdict::Doubtful, "chmod o-rwx");
        check_after(with("secret", 0o600), "outlet", Verdict::Bad, "sms.secret: a secret begins with \"whsec_\"");
        let missing = |config: &mut Config| {
            with(SECRET, 0o600)(config);
            config.outlet.get_mut("sms").unwrap().secret_files = vec!["/nowhere/sms.secret".into()];
        };
        check_after(missing, "outlet", Verdict::Bad, "/nowhere/sms.secret");
        let unknown_ca = |config: &mut Config| {
            with(SECRET, 0o600)(config);
            config.outlet.get_mut("sms").unwrap().ca = "/nowhere/ca.pem".into();
        };
        check_after(unknown_ca, "outlet", Verdict::Bad, "/nowhere/ca.pem");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let other = tempfile::tempdir().unwrap();
        let key = Material::ensure(other.path()).unwrap().key;
        check_after(|config| config.tls.key = key, "tls", Verdict::Bad, "server.pem");
    }

    #[test]
    fn an_authority_does_not_pass_for_a_broker() {
        let authority = |config: &mut Config| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            fs::write(&config.tls.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(&config.tls.key, key.serialize_pem()).unwrap();
        };
        check_after(authority, "tls", Verdict::Bad, "CA:TRUE");
    }

    #[test]
    fn directories_and_addresses_are_tried() {
        let relative = |config: &mut Config| config.data = "not-there".into();
        check_after(relative, "data", Verdict::Good, "will be made");
        let file = |config: &mut Config| config.data = config.tls.key.join("below");
        check_after(file, "data", Verdict::Bad, "is no directory");
        let elsewhere = |config: &mut Config| config.listen = ([192, 0, 2, 1], 4455).into();
        check_after(elsewhere, "listen", Verdict::Bad, "an address of this machine");
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        check_after(|config| config.listen = address, "listen", Verdict::Doubtful, "is taken");
        let open = |config: &mut Config| config.http.listen = Some(([0, 0, 0, 0], 0).into());
        check_after(open, "http.listen", Verdict::Doubtful, "no loopback");
        let elsewhere = |config: &mut Config| config.callbacks.listen = Some(([192, 0, 2, 1], 4457).into());
        check_after(elsewhere, "callbacks.listen", Verdict::Bad, "an address of this machine");
    }
}
