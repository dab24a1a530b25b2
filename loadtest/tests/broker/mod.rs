//! A broker in the process of the test.

use std::sync::Arc;

use carillon::dings::DingPolicies;
use carillon::dings::rates::Rates;
use carillon::material::{Material, SERVER_NAME};
use carillon::server::{Options, Server};
use carillon::tls;
use carillon_loadtest::target::Target;
use tempfile::TempDir;

/// A broker that serves until it is dropped.
pub(crate) struct Broker {
    server: Option<Server>,
    pub(crate) material: Material,
    _directory: TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with_ding_rates(Rates::TRIAL)
    }

    pub(crate) fn with_ding_rates(rates: Rates) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let material = Material::ensure(directory.path()).expect("certificates and keys");
        let tls = tls::server_config(&material.certificate, &material.key).expect("a certificate");
        let token_keys = vec![tls::token_key(&material.token_public_key).expect("a token key")];
        let options = Options {
            edges: 2,
            dings: Arc::new(DingPolicies::at(rates)),
            ..Options::new(directory.path().to_owned(), ([127, 0, 0, 1], 0).into(), tls, token_keys)
        };
        Self { server: Some(Server::start(options).expect("the broker starts")), material, _directory: directory }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            address: self.server.as_ref().expect("it runs").address(),
            server_name: SERVER_NAME.into(),
            ca: self.material.ca.clone(),
            token_key: self.material.token_key.clone(),
            tenant: "test".into(),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let stopped = self.server.take().expect("it runs").stop();
        assert!(std::thread::panicking() || stopped.is_ok(), "the broker failed: {stopped:?}");
    }
}
