//! Keys: handed on from the handshake, updated by either side, and what of the handshake is left.

use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::Side;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{ClientConfig, KeyPair, Keys, PacketKey, ServerConfig, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, TransportErrorCode};

use super::support::{Peer, Tls, World, pattern};
use crate::tls::{ServerSession, ServerTls};
use crate::{ConfigRefused, Link};

const VERSION: u32 = 1;

/// Both sides of a TLS handshake, and the keys that it came to.
struct Shaken {
    client: Box<dyn Session>,
    server: ServerSession,
    client_keys: Keys,
    server_keys: Keys,
}

/// Those that a peer has that says nothing.
fn parameters() -> TransportParameters {
    TransportParameters::read(Side::Client, &mut &[][..]).unwrap()
}

/// Hands on what a side writes of the handshake, level by level, and keeps the keys that it has come to.
fn hand_on(from: &mut dyn Session, keys: &mut Vec<Keys>, to: &mut dyn Session) {
    loop {
        let mut flight = Vec::new();
        let changed = from.write_handshake(&mut flight);
        if flight.is_empty() && changed.is_none() {
            return;
        }
        keys.extend(changed);
        if !flight.is_empty() {
            to.read_handshake(&flight).unwrap();
        }
    }
}

fn shake() -> Shaken {
    let tls = Tls::new();
    let parameters = parameters();
    let client = Arc::new(QuicClientConfig::try_from(tls.client()).unwrap());
    let mut client = client.start_session(VERSION, "localhost", &parameters).unwrap();
    let mut server = Arc::new(ServerTls::new(Arc::new(tls.server())).unwrap()).session(VERSION, &parameters);
    let (mut client_keys, mut server_keys) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() || server.has_handshake() {
        hand_on(&mut *client, &mut client_keys, &mut server);
        hand_on(&mut server, &mut server_keys, &mut *client);
    }
    Shaken { client, server, client_keys: client_keys.pop().unwrap(), server_keys: server_keys.pop().unwrap() }
}

/// What one seals the other opens, in both directions.
fn check_pair(client: &KeyPair<Box<dyn PacketKey>>, server: &KeyPair<Box<dyn PacketKey>>) {
    for (sealing, opening) in [(&client.local, &server.remote), (&server.local, &client.remote)] {
        let header = b"header";
        let mut packet = [&header[..], b"payload", &vec![0; sealing.tag_len()]].concat();
        sealing.encrypt(7, &mut packet, header.len());
        let mut payload = BytesMut::from(&packet[header.len()..]);
        assert!(opening.decrypt(7, header, &mut payload).is_ok());
        assert_eq!(&payload[..], b"payload");
        assert!(opening.decrypt(8, header, &mut BytesMut::from(&packet[header.len()..])).is_err());
    }
}

#[test]
fn a_session_lets_go_of_the_handshake_and_later_messages_are_unexpected() {
    let Shaken { mut server, client_keys, server_keys, .. } = shake();
    check_pair(&client_keys.packet, &server_keys.packet);
    assert!(!server.has_handshake());
    let error = server.read_handshake(b"more").unwrap_err();
    assert_eq!(error.code, TransportErrorCode::crypto(10));
    assert!(server.write_handshake(&mut Vec::new()).is_none());
}

#[test]
fn later_keys_follow_in_their_order_whenever_they_are_first_used() {
    let Shaken { mut client, mut server, server_keys, .. } = shake();
    let pairs: Vec<_> = (0..4).map(|_| (client.next_1rtt_keys().unwrap(), server.next_1rtt_keys().unwrap())).collect();
    for (client, server) in pairs.iter().rev() {
        let limits = |key: &dyn PacketKey| (key.tag_len(), key.confidentiality_limit(), key.integrity_limit());
        assert_eq!(limits(&*server.local), limits(&*server_keys.packet.local));
        check_pair(client, server);
    }
    // Of another pair they are not.
    let mut packet = [0; 64];
    pairs[0].0.local.encrypt(7, &mut packet, 8);
    assert!(pairs[1].1.remote.decrypt(7, &[0; 8], &mut BytesMut::from(&packet[8..])).is_err());
}

#[test]
fn the_first_keys_are_those_of_both_sides() {
    let server = Arc::new(ServerTls::new(Arc::new(Tls::new().server())).unwrap());
    let id = ConnectionId::new(&[7; 8]);
    let config: &dyn ServerConfig = &*server;
    let Ok(first) = config.initial_keys(VERSION, &id) else { panic!("version 1 is known") };
    let session = server.clone().session(VERSION, &parameters());
    check_pair(&session.initial_keys(&id, Side::Client).packet, &first.packet);
    assert!(config.initial_keys(0x0a0a_0a0a, &id).is_err());
}

#[test]
fn a_server_needs_the_suite_of_the_first_packets() {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let refused = ServerTls::new(Arc::new(Tls::new().server_with(provider))).err();
    assert_eq!(refused, Some(ConfigRefused::NoInitialSuite));
}

#[test]
fn data_flows_over_key_updates_of_either_side() {
    let mut world = World::new();
    let (client, server) = world.connected();
    for round in 0..6 {
        let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
        let sent = pattern(round, 20_000);
        world.client.send(client, stream, sent.clone());
        world.until_with(Peer::turn_echoing, |world| world.client.is_finished(client, stream));
        assert_eq!(world.client.received(client, stream), sent);
        let (peer, link) = if round % 2 == 0 { (&mut world.client, client) } else { (&mut world.server, server) };
        peer.endpoint.link(link).unwrap().connection.quic.force_key_update();
    }
}
