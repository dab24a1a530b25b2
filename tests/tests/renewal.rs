//! Certificate and token keys are renewed without a restart: new connections see the new ones, open sessions live on, and
//! what cannot be used changes nothing.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::fs;

use carillon::clock::{Clock, SystemClock};
use carillon::material::{Grant, sign_token};
use carillon_protocol::Frame;
use carillon_protocol::control::UserFind;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::session::Hello;
use carillon_tests::harness::{PATIENCE, Process, Site, TENANT};
use carillon_tests::raw::{Closed, Dial, Session, hello};
use carillon_transport::{Clock as _, CloseReason};

/// Tries until it is so.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = SystemClock.now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
    }
}

/// Who trusts this authority alone: whether the broker's certificate is of it.
fn sees_certificate_of(site: &Site, process: &Process) -> bool {
    match Dial::new(site, process.address).connect() {
        Ok(raw) => {
            raw.close();
            true
        }
        Err(CloseReason::HandshakeFailed(_)) => false,
        Err(other) => panic!("neither certificate nor refusal: {other:?}"),
    }
}

/// Opens a session with a token that `signer` signed, over a connection that trusts `trusted`.
fn attach(trusted: &Site, signer: &Site, process: &Process, device: u64) -> Result<Session, Closed> {
    let expires_at_s = SystemClock.wall().0 / 1_000 + 3_600;
    let grant = Grant { tenant: TENANT, handle: "alice", role: "user", expires_at_s };
    let token = sign_token(&signer.material.token_key, &grant).unwrap();
    Dial::new(trusted, process.address)
        .attach(&Hello { token: token.as_str().into(), ..hello(signer, "alice", device) })
}

fn check_served(session: &mut Session) {
    let answer = session.request(&UserFind { request: 7, create: 0, handle: "alice".into() }).unwrap();
    assert!(matches!(answer, Frame::UserFound(_)), "{answer:?}");
}

fn replace(process: &Process, file: &str, content: &[u8]) {
    let new = process.site.data().join("incoming");
    fs::write(&new, content).unwrap();
    fs::rename(new, process.site.data().join(file)).unwrap();
}

/// Puts a file of another site in place.
fn take_over(process: &Process, file: &str, from: &Site) {
    replace(process, file, &fs::read(from.data().join(file)).unwrap());
}

#[test]
fn a_signal_renews_certificate_and_token_keys() {
    let process = Process::start_with("[renewal]\ncheck_every_s = 0\n");
    let (old, new) = (&process.site, Site::new());
    let mut early = Dial::new(old, process.address).attach_when_served(&hello(old, "alice", 1));
    assert!(!sees_certificate_of(&new, &process));

    take_over(&process, "server.pem", &new);
    take_over(&process, "server.key", &new);
    process.signal("HUP");
    until("new connections see the new certificate", || sees_certificate_of(&new, &process));
    assert!(!sees_certificate_of(old, &process));
    check_served(&mut early);

    // A bad certificate beside a good key for tokens: the signal was heard when the key is believed.
    replace(&process, "server.pem", b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n");
    attach(&new, &new, &process, 2).err().unwrap().check(ErrorCode::UNAUTHENTICATED, "a key that is not known yet");
    take_over(&process, "token.pub", &new);
    process.signal("HUP");
    until("a token of the new key is believed", || attach(&new, &new, &process, 2).is_ok());
    assert!(sees_certificate_of(&new, &process), "the certificate that was good is presented on");
    attach(&new, old, &process, 3).err().unwrap().check(ErrorCode::UNAUTHENTICATED, "a token of the removed key");
    check_served(&mut early);
}

#[test]
fn a_signal_reads_the_names_of_keys_from_the_configuration() {
    let process = Process::start_with("[renewal]\ncheck_every_s = 0\n");
    let (old, new) = (&process.site, Site::new());
    let mut early = Dial::new(old, process.address).attach_when_served(&hello(old, "alice", 1));
    let path = process.site.data().join("carillon.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::copy(&new.material.token_public_key, process.site.data().join("second.pub")).unwrap();
    fs::write(&path, good.replace("\"token.pub\"", "\"token.pub\", \"second.pub\"")).unwrap();
    process.signal("HUP");
    until("a token of the second key is believed", || attach(old, &new, &process, 2).is_ok());
    attach(old, old, &process, 3).unwrap();
    // What cannot be read changes nothing, and ends nothing.
    fs::write(&path, good.replace("[tokens]", "[tokens")).unwrap();
    process.signal("HUP");
    attach(old, &new, &process, 2).unwrap();
    check_served(&mut early);
}

#[test]
fn changed_files_are_noticed_without_a_signal() {
    let process = Process::start_with("[renewal]\ncheck_every_s = 1\n");
    let (old, new) = (&process.site, Site::new());
    drop(Dial::new(old, process.address).attach_when_served(&hello(old, "alice", 1)));
    take_over(&process, "server.pem", &new);
    take_over(&process, "server.key", &new);
    until("new connections see the new certificate", || sees_certificate_of(&new, &process));
    take_over(&process, "token.pub", &new);
    until("a token of the new key is believed", || attach(&new, &new, &process, 2).is_ok());
}
