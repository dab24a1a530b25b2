//! Tokens: which are believed, what becomes of a session whose token is refused, refreshed or over.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;

use carillon::edge::auth::AUDIENCE;
use carillon::material::{Grant, Material, sign_token};
use carillon::server::Server;
use carillon_protocol::Frame;
use carillon_protocol::control::UserFind;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::limits::{ERROR_TEXT_BYTES_MAX, HANDLE_BYTES_MAX, TOKEN_BYTES_MAX};
use carillon_protocol::session::{Hello, Refresh};
use carillon_tests::ahead::{AheadClock, serve_by};
use carillon_tests::harness::{Broker, Site, TENANT};
use carillon_tests::raw::{Dial, Session, hello};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A broker, and how tokens for it are made.
struct World {
    broker: Broker,
    dial: Dial,
    now_s: u64,
}

impl World {
    fn start() -> Self {
        let broker = Broker::start();
        let dial = Dial::new(&broker.site, broker.address);
        Self { broker, dial, now_s: AheadClock::default().wall_s() }
    }

    /// The claims of a good token.
    fn claims(&self) -> Value {
        claims(self.now_s + 3_600)
    }

    /// The claims of a good token but for one, which `Null` leaves out.
    fn claims_with(&self, claim: &str, value: Value) -> Value {
        let mut claims = self.claims();
        let object = claims.as_object_mut().unwrap();
        object.remove(claim);
        if !value.is_null() {
            object.insert(claim.into(), value);
        }
        claims
    }

    fn sign(&self, claims: &Value) -> String {
        sign(&self.broker.site, claims)
    }

    fn hello(&self, token: &str) -> Hello {
        Hello { token: token.into(), ..hello(&self.broker.site, "mallory", 1) }
    }

    /// Asserts that a token is refused with this code, and that the broker serves others as before.
    fn check_refused(&self, what: &str, token: &str, code: ErrorCode) {
        self.dial.refused(&self.hello(token)).check(code, what);
        let mut good = self.dial.attach(&hello(&self.broker.site, "alice", 1)).unwrap();
        check_served(&mut good);
        good.raw.close();
    }
}

fn claims(exp: u64) -> Value {
    json!({ "tenant": TENANT, "sub": "mallory", "role": "user", "exp": exp, "aud": AUDIENCE })
}

fn sign(site: &Site, claims: &Value) -> String {
    sign_as(&Header::new(Algorithm::EdDSA), claims, &token_key(&site.material))
}

fn sign_as(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn token_key(material: &Material) -> EncodingKey {
    EncodingKey::from_ed_pem(&std::fs::read(&material.token_key).unwrap()).unwrap()
}

/// Base64url without padding (RFC 4648 section 5), for tokens that no library would make.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}

fn check_served(session: &mut Session) {
    let answer = session.request(&UserFind { request: 7, create: 0, handle: session.welcome.handle.clone() }).unwrap();
    assert!(matches!(&answer, Frame::UserFound(found) if found.user == session.welcome.user), "{answer:?}");
}

#[test]
fn the_good_token_these_tests_vary_is_good() {
    let world = World::start();
    for role in ["user", "service", "admin"] {
        let token = world.sign(&world.claims_with("role", json!(role)));
        check_served(&mut world.dial.attach(&world.hello(&token)).unwrap());
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let world = World::start();
    let good = world.sign(&world.claims());
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = good.split_once('.').unwrap();
    let other_body = base64url(&serde_json::to_vec(&world.claims_with("sub", json!("root"))).unwrap());
    let flipped = format!("{rest}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    for (what, token) in [
        ("none", ""),
        ("garbage", "let me in"),
        ("garbage that is long", &"x".repeat(TOKEN_BYTES_MAX)),
        ("control characters", "a\0b\nc.\u{7}.\u{1b}[31m"),
        ("dots", ".."),
        ("no signature", rest),
        ("an empty signature", &format!("{rest}.")),
        ("half a signature", &format!("{rest}.{}", &signature[..40])),
        ("a signature with a changed bit", &flipped),
        ("another body under the signature", &format!("{header}.{other_body}.{signature}")),
        ("a fourth part", &format!("{good}.{signature}")),
        ("blanks around it", &format!(" {good} ")),
        ("a scheme before it", &format!("Bearer {good}")),
    ] {
        world.check_refused(what, token, ErrorCode::UNAUTHENTICATED);
    }
    world.check_refused("too long", &"x".repeat(TOKEN_BYTES_MAX + 1), ErrorCode::MALFORMED);
}

#[test]
fn forged_algorithms_and_keys_are_refused() {
    let world = World::start();
    let claims = world.claims();
    let body = base64url(&serde_json::to_vec(&claims).unwrap());
    for alg in ["none", "None", "NONE", "", "EDDSA", "Ed25519"] {
        let header = base64url(&serde_json::to_vec(&json!({ "alg": alg, "typ": "JWT" })).unwrap());
        world.check_refused(alg, &format!("{header}.{body}."), ErrorCode::UNAUTHENTICATED);
    }
    // The public key taken for a shared secret: what is public would sign.
    let public = std::fs::read(&world.broker.site.material.token_public_key).unwrap();
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for secret in [&public[..], b"", b"secret"] {
            let token = sign_as(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret));
            world.check_refused("a shared secret", &token, ErrorCode::UNAUTHENTICATED);
        }
    }
    let elsewhere = Site::new();
    let token = sign(&elsewhere, &claims);
    world.check_refused("another key", &token, ErrorCode::UNAUTHENTICATED);
    // A token that brings its own key, or says where to find one.
    let mut header = Header::new(Algorithm::EdDSA);
    header.jku = Some("https://mallory.example/keys".into());
    header.kid = Some("../../../../dev/null".into());
    let token = sign_as(&header, &claims, &token_key(&elsewhere.material));
    world.check_refused("a key of its own", &token, ErrorCode::UNAUTHENTICATED);
}

#[test]
fn claims_that_are_wrong_or_missing_are_refused() {
    let world = World::start();
    let refused = |claim: &str, value: Value, code| {
        let what = format!("{claim} {value}");
        world.check_refused(&what, &world.sign(&world.claims_with(claim, value)), code);
    };
    for claim in ["tenant", "sub", "role", "exp", "aud"] {
        for value in [Value::Null, json!(""), json!([]), json!({}), json!(true)] {
            refused(claim, value, ErrorCode::UNAUTHENTICATED);
        }
    }
    for audience in [json!("somebody"), json!("carillon2"), json!("Carillon"), json!(["somebody"])] {
        refused("aud", audience, ErrorCode::UNAUTHENTICATED);
    }
    for role in
        [json!("root"), json!("User"), json!("user "), json!("\u{1b}[31m\0"), json!(1), json!("r".repeat(2_000))]
    {
        refused("role", role, ErrorCode::UNAUTHENTICATED);
    }
    for exp in [json!(-1), json!("4102444800"), json!(1e300)] {
        refused("exp", exp, ErrorCode::UNAUTHENTICATED);
    }
    for exp in [json!(0), json!(world.now_s - 3_600), json!(world.now_s - 1)] {
        refused("exp", exp, ErrorCode::TOKEN_EXPIRED);
    }
}

#[test]
fn names_that_cannot_be_are_refused() {
    let world = World::start();
    let too_long = "é".repeat(HANDLE_BYTES_MAX / 2) + "e";
    for claim in ["sub", "tenant"] {
        for name in ["", "\0", "a\nb", "bell\u{7}", "\u{7f}", "c1\u{85}", &too_long, &"x".repeat(2_000)] {
            let what = format!("{claim} {name:?}");
            let token = world.sign(&world.claims_with(claim, json!(name)));
            world.check_refused(&what, &token, ErrorCode::UNAUTHENTICATED);
        }
        for name in ["x", &too_long[..HANDLE_BYTES_MAX], "张伟", "a b", "'; DROP TABLE users; --"] {
            let token = world.sign(&world.claims_with(claim, json!(name)));
            check_served(&mut world.dial.attach(&world.hello(&token)).unwrap());
        }
    }
}

/// What a Refresh with this token is answered by: `None` when it is done.
fn refresh(session: &mut Session, token: &str) -> Option<Error> {
    match session.request(&Refresh { request: 5, token: token.into() }).unwrap() {
        Frame::Done(done) => {
            assert_eq!(done.request, 5);
            None
        }
        Frame::Error(error) => {
            assert_eq!(error.request, 5);
            Some(error)
        }
        other => panic!("Refresh was answered by {other:?}"),
    }
}

#[test]
fn a_refresh_with_another_token_is_refused_and_the_session_lives() {
    let world = World::start();
    let mut session = world.dial.attach(&world.hello(&world.sign(&world.claims()))).unwrap();
    let long_header = format!("{{\"alg\":\"{}\"}}", "é".repeat(1_200));
    let body = base64url(&serde_json::to_vec(&world.claims()).unwrap());
    let tokens = [
        ("another user", world.sign(&world.claims_with("sub", json!("alice"))), ErrorCode::UNAUTHENTICATED),
        ("another tenant", world.sign(&world.claims_with("tenant", json!("globex"))), ErrorCode::UNAUTHENTICATED),
        ("a higher role", world.sign(&world.claims_with("role", json!("admin"))), ErrorCode::UNAUTHENTICATED),
        ("no role", world.sign(&world.claims_with("role", json!("r".repeat(2_000)))), ErrorCode::UNAUTHENTICATED),
        ("no token", String::new(), ErrorCode::UNAUTHENTICATED),
        ("an absurd one", format!("{}.{body}.x", base64url(long_header.as_bytes())), ErrorCode::UNAUTHENTICATED),
        ("an expired one", world.sign(&claims(world.now_s - 10)), ErrorCode::UNAUTHENTICATED),
        ("another key's", sign(&Site::new(), &world.claims()), ErrorCode::UNAUTHENTICATED),
        ("one too long", "x".repeat(TOKEN_BYTES_MAX + 1), ErrorCode::TOO_LARGE),
    ];
    for (what, token, code) in tokens {
        let error = refresh(&mut session, &token).expect(what);
        assert_eq!(error.code, code, "{what}: {}", &*error.text);
        let bytes = error.text.len();
        assert!((8..=ERROR_TEXT_BYTES_MAX).contains(&bytes), "{what}: a text of {bytes} bytes");
        check_served(&mut session);
    }
    assert_eq!(refresh(&mut session, &world.sign(&world.claims())), None);
    check_served(&mut session);
}

/// A broker whose clock the test moves, with a session whose token ends in a minute.
struct Hourglass {
    clock: Arc<AheadClock>,
    site: Site,
    server: Server,
    start_s: u64,
}

/// How long the first token lasts.
const LASTS_S: u64 = 60;

impl Hourglass {
    fn start() -> Self {
        let (clock, site) = (Arc::new(AheadClock::default()), Site::new());
        let server = serve_by(clock.clone(), &site);
        let start_s = clock.wall_s();
        Self { clock, site, server, start_s }
    }

    fn token(&self, lasts_s: u64) -> String {
        let expires_at_s = self.start_s + lasts_s;
        let grant = Grant { tenant: TENANT, handle: "alice", role: "user", expires_at_s };
        sign_token(&self.site.material.token_key, &grant).unwrap()
    }

    fn session(&self, device: u64, lasts_s: u64) -> Session {
        let token = self.token(lasts_s).as_str().into();
        let hello = Hello { token, ..hello(&self.site, "", device) };
        Dial::new(&self.site, self.server.address()).attach(&hello).unwrap()
    }
}

#[test]
fn a_session_ends_with_its_token_unless_it_was_refreshed() {
    let world = Hourglass::start();
    let [mut left, mut refused, mut refreshed] = [1, 2, 3].map(|device| world.session(device, LASTS_S));
    assert!(refresh(&mut refused, "none").is_some());
    assert_eq!(refresh(&mut refreshed, &world.token(2 * LASTS_S)), None);
    // A refresh cannot shorten what was granted.
    assert_eq!(refresh(&mut refreshed, &world.token(LASTS_S - 20)), None);
    world.clock.advance_ms(LASTS_S * 1_000);
    left.raw.closed().check(ErrorCode::TOKEN_EXPIRED, "the session that let its token end");
    refused.raw.closed().check(ErrorCode::TOKEN_EXPIRED, "the session whose refresh was refused");
    check_served(&mut refreshed);
    let again = Hello { token: world.token(LASTS_S).as_str().into(), ..hello(&world.site, "", 1) };
    let dial = Dial::new(&world.site, world.server.address());
    dial.refused(&again).check(ErrorCode::TOKEN_EXPIRED, "the old token again");
    world.clock.advance_ms(LASTS_S * 1_000);
    refreshed.raw.closed().check(ErrorCode::TOKEN_EXPIRED, "the refreshed session");
    world.server.stop().unwrap();
}

#[test]
fn a_token_without_a_reachable_end_is_one_that_lasts() {
    let world = Hourglass::start();
    let for_ever = u64::MAX - world.start_s;
    let mut session = world.session(1, LASTS_S);
    assert_eq!(refresh(&mut session, &world.token(for_ever)), None);
    world.clock.advance_ms(100 * 365 * 86_400 * 1_000);
    let mut other = world.session(2, for_ever);
    check_served(&mut other);
    check_served(&mut session);
    world.server.stop().unwrap();
}
