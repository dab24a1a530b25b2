//! Ends: closed, refused, timed out, reset, stale.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::support::{LOCALHOST, Peer, World, bind_client, bind_group};
use crate::limits::UNPROVED_AT_ONCE_MAX;
use crate::{
    CloseReason, ConfigRefused, ConnectError, Endpoint, Event, Link, LinkKey, Room, StreamClosed, TransportConfig,
};

#[test]
fn the_code_and_the_reason_reach_the_peer() {
    let mut world = World::new();
    let (client, server) = world.connected();
    assert_eq!((world.client.endpoint.links_open(), world.server.endpoint.links_open()), (1, 1));
    world.server.endpoint.link(server).unwrap().close(42, "slow, resume");
    let mut link = world.server.endpoint.link(server).unwrap();
    link.close(43, "again");
    let stream = crate::StreamId(3);
    assert_eq!(link.write(stream, &mut Bytes::from_static(b"x"), Room::Shared), Err(StreamClosed::Gone));
    assert_eq!(link.open_uni(0), None);
    world.until(|world| world.client.closed(client).is_some() && world.server.closed(server).is_some());
    let reason = CloseReason::ByPeer { code: 42, reason: "slow, resume".into() };
    assert_eq!(world.client.closed(client), Some(reason));
    assert_eq!(world.server.closed(server), Some(CloseReason::ByUs));
    assert!(world.client.endpoint.link(client).is_none());
    assert!(world.server.endpoint.link(server).is_none());
    assert_eq!((world.client.endpoint.links_open(), world.server.endpoint.links_open()), (0, 0));
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let mut world = World::new();
    let (client, server) = world.connected();
    world.server.endpoint.link(server).unwrap().close(1, &"é".repeat(5_000));
    world.until(|world| world.client.closed(client).is_some());
    let Some(CloseReason::ByPeer { reason, .. }) = world.client.closed(client) else { panic!() };
    assert_eq!(reason, "é".repeat(256));
}

#[test]
fn closing_all_closes_each_once() {
    let mut world = World::new();
    let links: Vec<_> = (0..5).map(|_| world.connected()).collect();
    world.server.endpoint.close_all(9, "going away");
    world.server.endpoint.close_all(10, "twice");
    world.until(|world| links.iter().all(|(client, _)| world.client.closed(*client).is_some()));
    for (client, server) in links {
        let reason = CloseReason::ByPeer { code: 9, reason: "going away".into() };
        assert_eq!(world.client.closed(client), Some(reason));
        assert_eq!(world.server.closed(server), Some(CloseReason::ByUs));
    }
}

#[test]
fn a_key_outlives_its_connection_without_harm() {
    let mut world = World::new();
    let (old, _) = world.connected();
    world.client.endpoint.link(old).unwrap().close(0, "");
    world.until(|world| world.client.closed(old).is_some());
    // quinn-proto answers late packets for three probe timeouts; then the place is free.
    world.until(|world| {
        world.clock.advance(Duration::from_millis(100));
        world.client.endpoint.quic.open_connections() == 0
    });
    assert_eq!(world.client.endpoint.connections.shelves_held(), 0, "an empty shelf is given back");
    let (new, _) = world.connected();
    assert_eq!(new.index, old.index);
    assert_ne!(new.generation, old.generation);
    assert!(world.client.endpoint.link(old).is_none());
    assert!(world.client.endpoint.link(new).is_some());
}

#[test]
fn an_unknown_protocol_is_refused() {
    let mut world = World::new();
    let mut tls = world.tls.client();
    tls.alpn_protocols = vec![b"other/1".to_vec()];
    let config = TransportConfig::client();
    let client = Endpoint::client(LOCALHOST.parse().unwrap(), Arc::new(tls), config, world.clock.clone());
    world.client = Peer::new(client.unwrap());
    let link = world.connect();
    world.until(|world| world.client.closed(link).is_some());
    assert!(matches!(world.client.closed(link), Some(CloseReason::HandshakeFailed(_))), "{:?}", world.client.events);
    assert_eq!(world.server.events, []);
}

#[test]
fn a_wrong_name_fails_the_handshake() {
    let mut world = World::new();
    let address = world.server.endpoint.local_address();
    let link = world.client.endpoint.connect(address, "elsewhere.example").unwrap();
    world.until(|world| world.client.closed(link).is_some());
    assert!(matches!(world.client.closed(link), Some(CloseReason::HandshakeFailed(_))));
    world.until(|world| {
        world.clock.advance(Duration::from_secs(1));
        world.server.endpoint.stats().handshakes_failed == 1
    });
    assert_eq!(world.server.events, []);
}

#[test]
fn a_full_server_refuses() {
    let mut config = TransportConfig::server();
    config.connections_max = 1;
    let mut world = World::with(TransportConfig::client(), config);
    let (first, _) = world.connected();
    let second = world.connect();
    world.until(|world| world.client.closed(second).is_some());
    assert_eq!(world.client.closed(second), Some(CloseReason::Refused));
    assert_eq!(world.client.closed(first), None);
    assert_eq!(world.server.endpoint.stats().connections_refused, 1);
}

#[test]
fn a_draining_server_refuses_and_serves_on() {
    let mut world = World::new();
    let (first, server) = world.connected();
    world.server.endpoint.stop_accepting();
    let second = world.connect();
    world.until(|world| world.client.closed(second).is_some());
    assert_eq!(world.client.closed(second), Some(CloseReason::Refused));
    let stream = world.server.endpoint.link(server).unwrap().open_uni(0).unwrap();
    world.server.send(server, stream, Bytes::from_static(b"still here"));
    world.until(|world| world.client.is_finished(first, stream));
}

#[test]
fn silence_ends_a_connection_on_both_sides() {
    let mut config = TransportConfig::client();
    config.keep_alive_ms = None;
    let mut world = World::with(config, TransportConfig::server());
    let (client, server) = world.connected();
    world.until(|world| {
        world.clock.advance(Duration::from_secs(1));
        world.client.closed(client).is_some() && world.server.closed(server).is_some()
    });
    assert_eq!(world.client.closed(client), Some(CloseReason::TimedOut));
    assert_eq!(world.server.closed(server), Some(CloseReason::TimedOut));
}

#[test]
fn keep_alives_hold_an_idle_connection() {
    let mut world = World::new();
    let (client, server) = world.connected();
    for _ in 0..60 {
        world.clock.advance(Duration::from_secs(2));
        let heard = world.server.endpoint.stats().packets_received;
        let mut turns = 0;
        world.until(|world| {
            turns += 1;
            turns > 20 || world.server.endpoint.stats().packets_received > heard
        });
    }
    assert_eq!((world.client.closed(client), world.server.closed(server)), (None, None));
}

#[test]
fn a_handshake_that_nobody_answers_is_given_up() {
    let mut config = TransportConfig::server();
    config.incoming_max = 0;
    let mut world = World::with(TransportConfig::client(), config);
    let link = world.connect();
    world.until(|world| world.server.endpoint.stats().incoming_dropped > 0);
    assert_eq!(world.client.closed(link), None);
    world.clock.advance(Duration::from_secs(11));
    world.until(|world| world.client.closed(link).is_some());
    assert_eq!(world.client.closed(link), Some(CloseReason::TimedOut));
}

#[test]
fn a_server_restarted_with_the_same_key_resets_its_old_connections() {
    let mut config = TransportConfig::server();
    config.reset_key = Some([3; 64]);
    let mut world = World::with(TransportConfig::client(), config.clone());
    let (client, _) = world.connected();
    let address = world.server.endpoint.local_address();
    // The old one is gone before the new one binds.
    world.server = Peer::new(bind_client(LOCALHOST.parse().unwrap(), &world.tls, config.clone(), &world.clock));
    world.server = Peer::new(bind_group(address, 1, &world.tls, config, &world.clock).pop().unwrap());
    let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
    world.client.send(client, stream, Bytes::from(vec![1; 500]));
    world.until(|world| world.client.closed(client).is_some());
    assert_eq!(world.client.closed(client), Some(CloseReason::Reset));
}

#[test]
fn a_client_proves_its_address_when_asked() {
    let mut config = TransportConfig::server();
    config.incoming_retry_from = 0;
    let mut world = World::with(TransportConfig::client(), config);
    world.connected();
    assert_eq!(world.server.endpoint.stats().retries, 1);
}

/// A client was asked to prove its address, and does so to a server with another key or the same: is it connected, or asked
/// again?
fn prove_to_a_restarted_server(key_of_the_second: u8) -> (usize, u64) {
    let config = |key| {
        let mut config = TransportConfig::server();
        config.incoming_retry_from = 0;
        config.reset_key = Some([key; 64]);
        config
    };
    let mut world = World::with(TransportConfig::client(), config(3));
    world.connect();
    world.client.endpoint.flush();
    while world.server.endpoint.stats().retries == 0 {
        world.server.turn(Some(Duration::from_millis(1)));
    }
    // The old one is gone before the new one binds; the client has not looked at its socket yet.
    let address = world.server.endpoint.local_address();
    world.server =
        Peer::new(bind_client(LOCALHOST.parse().unwrap(), &world.tls, TransportConfig::client(), &world.clock));
    let again = bind_group(address, 1, &world.tls, config(key_of_the_second), &world.clock).pop().unwrap();
    world.server = Peer::new(again);
    world.until(|world| !world.server.connected().is_empty() || world.server.endpoint.stats().retries > 0);
    (world.server.connected().len(), world.server.endpoint.stats().retries)
}

#[test]
fn a_proof_of_address_holds_over_a_restart_with_the_same_key() {
    assert_eq!(prove_to_a_restarted_server(3), (1, 0));
    assert_eq!(prove_to_a_restarted_server(4), (0, 1));
}

#[test]
fn addresses_are_proved_from_a_number_of_running_handshakes_on() {
    let mut config = TransportConfig::server();
    config.incoming_retry_from = 2;
    let mut world = World::with(TransportConfig::client(), config);
    // First packets whose senders go no further: two run, the others must prove their address.
    let silent: Vec<Peer> = (0..5)
        .map(|_| {
            let endpoint = bind_client(LOCALHOST.parse().unwrap(), &world.tls, TransportConfig::client(), &world.clock);
            let mut peer = Peer::new(endpoint);
            peer.endpoint.connect(world.server.endpoint.local_address(), "localhost").unwrap();
            peer.endpoint.flush();
            peer
        })
        .collect();
    while world.server.endpoint.stats().retries < 3 {
        world.server.turn(Some(Duration::from_millis(1)));
    }
    assert_eq!(world.server.endpoint.stats().handshakes_started, 2);
    // Who does gets in all the same.
    world.connected();
    assert_eq!(world.server.endpoint.stats().retries, 4);
    drop(silent);
}

#[test]
fn addresses_are_proved_when_many_begin_at_once() {
    let mut world = World::with(TransportConfig::client(), TransportConfig::server());
    let many = 3 * UNPROVED_AT_ONCE_MAX as usize;
    let address = world.server.endpoint.local_address();
    let clients: Vec<LinkKey> =
        (0..many).map(|_| world.client.endpoint.connect(address, "localhost").unwrap()).collect();
    // All first packets wait in the server's socket when it looks.
    world.client.endpoint.flush();
    world.server.turn(Some(Duration::from_secs(10)));
    let stats = world.server.endpoint.stats();
    assert!(stats.handshakes_started <= u64::from(UNPROVED_AT_ONCE_MAX), "{stats:?}");
    // All get in all the same.
    world.until(|world| world.client.connected().len() == clients.len());
    assert!(world.server.endpoint.stats().retries > 0);
}

#[test]
fn nobody_proves_an_address_where_that_is_never_asked() {
    let mut config = TransportConfig::server();
    config.incoming_retry_from = config.incoming_max;
    let mut world = World::with(TransportConfig::client(), config);
    let address = world.server.endpoint.local_address();
    let many = 3 * UNPROVED_AT_ONCE_MAX as usize;
    for _ in 0..many {
        world.client.endpoint.connect(address, "localhost").unwrap();
    }
    world.client.endpoint.flush();
    world.until(|world| world.client.connected().len() == many);
    assert_eq!(world.server.endpoint.stats().retries, 0);
}

#[test]
fn a_connect_that_cannot_be_begun_says_why() {
    let mut world = World::new();
    let remote = "[::1]:9".parse().unwrap();
    let local = world.client.endpoint.local_address();
    assert_eq!(world.client.endpoint.connect(remote, "localhost"), Err(ConnectError::Address { remote, local }));
    let remote = "127.0.0.1:0".parse().unwrap();
    assert_eq!(world.client.endpoint.connect(remote, "localhost"), Err(ConnectError::Address { remote, local }));
    let remote = "127.0.0.1:9".parse().unwrap();
    let name = "no name".to_owned();
    assert_eq!(world.client.endpoint.connect(remote, &name), Err(ConnectError::ServerName(name)));
    assert_eq!(world.server.endpoint.connect(remote, "localhost"), Err(ConnectError::NotAClient));
    world.client.endpoint.config.connections_max = 0;
    assert_eq!(world.client.endpoint.connect(remote, "localhost"), Err(ConnectError::Full));
}

#[test]
fn unfit_configurations_are_refused() {
    let world = World::new();
    let address = LOCALHOST.parse().unwrap();
    let bind = |threads, early_data, change: fn(&mut TransportConfig)| {
        let (mut tls, mut config) = (world.tls.server(), TransportConfig::server());
        tls.max_early_data_size = early_data;
        change(&mut config);
        let bound = Endpoint::bind_group(address, threads, Arc::new(tls), config, world.clock.clone());
        let error = bound.err()?;
        error.into_inner()?.downcast_ref::<ConfigRefused>().copied()
    };
    assert_eq!(bind(1, 0, |_| {}), None);
    assert_eq!(bind(1, u32::MAX, |_| {}), Some(ConfigRefused::EarlyData));
    assert_eq!(bind(0, 0, |_| {}), Some(ConfigRefused::Threads));
    assert_eq!(bind(65, 0, |_| {}), Some(ConfigRefused::Threads));
    assert_eq!(bind(1, 0, |config| config.mtu_initial_bytes = 1_000), Some(ConfigRefused::Mtu));
    assert_eq!(bind(1, 0, |config| config.keep_alive_ms = Some(30_000)), Some(ConfigRefused::KeepAlive));
    let mut tls = world.tls.client();
    tls.enable_early_data = true;
    let client = Endpoint::client(address, Arc::new(tls), TransportConfig::client(), world.clock.clone());
    let refused = client.err().and_then(|error| error.into_inner()?.downcast_ref::<ConfigRefused>().copied());
    assert_eq!(refused, Some(ConfigRefused::EarlyData));
}

#[test]
fn events_of_a_connection_begin_connected_and_end_closed() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
    let mut link = world.client.endpoint.link(client).unwrap();
    link.write(stream, &mut Bytes::from_static(b"last words"), Room::Shared).unwrap();
    world.until(|world| world.server.received(server, stream) == b"last words");
    world.client.endpoint.link(client).unwrap().close(0, "");
    world.until(|world| world.server.closed(server).is_some());
    assert_eq!(world.server.events.first(), Some(&Event::Connected { link: server }));
    assert!(matches!(world.server.events.last(), Some(Event::Closed { .. })));
}

#[test]
fn what_is_not_acknowledged_tells_since_when_and_is_let_go_by_a_close() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let stream = link.open_uni(0).unwrap();
    assert_eq!(link.unacknowledged(), None);
    let said = Bytes::from(vec![7; 1_000]);
    assert_eq!(link.write(stream, &mut said.clone(), Room::Shared), Ok(1_000));
    assert_eq!(link.unacknowledged().map(|owed| owed.bytes), Some(1_000));
    world.until(|world| world.client.received(client, stream).len() == 1_000);
    world.until(|world| world.server.endpoint.link(server).unwrap().unacknowledged().is_none());
    assert!(said.is_unique());
    // More than the window, to a client that does nothing any more.
    let mut link = world.server.endpoint.link(server).unwrap();
    let unheard = Bytes::from(vec![8; 1_000_000]);
    let mut rest = unheard.clone();
    assert!(link.write(stream, &mut rest, Room::Shared).unwrap() > 0 && !rest.is_empty());
    drop(rest);
    let owed = link.unacknowledged();
    assert!(owed.is_some() && !unheard.is_unique());
    world.clock.advance(Duration::from_secs(1));
    world.server.turn(Some(Duration::ZERO));
    let mut link = world.server.endpoint.link(server).unwrap();
    assert_eq!(link.unacknowledged(), owed);
    link.close(1, "slow, resume");
    assert!(unheard.is_unique(), "nothing of it is kept until the connection is forgotten");
    // The congestion window is full, and still the peer learns why: by the packet that lies in its socket.
    while world.server.endpoint.quic.open_connections() > 0 {
        world.clock.advance(Duration::from_millis(100));
        world.server.turn(Some(Duration::ZERO));
    }
    // Nor does the reset by which a broker answers that has forgotten the connection hide why it went.
    let mut link = world.client.endpoint.link(client).unwrap();
    let question = link.open_bi(0).unwrap();
    link.write(question, &mut Bytes::from(vec![1; 500]), Room::Shared).unwrap();
    world.client.endpoint.flush();
    world.server.turn(None);
    world.until(|world| world.client.closed(client).is_some());
    let reason = CloseReason::ByPeer { code: 1, reason: "slow, resume".into() };
    assert_eq!(world.client.closed(client), Some(reason));
}

#[test]
fn what_is_queued_for_a_peer_that_closes_is_let_go_at_once() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let stream = link.open_uni(0).unwrap();
    let unheard = Bytes::from(vec![8; 100_000]);
    assert!(link.write(stream, &mut unheard.clone(), Room::Shared).unwrap() > 0);
    world.client.endpoint.link(client).unwrap().close(0, "");
    world.until(|world| world.server.closed(server).is_some());
    assert!(unheard.is_unique());
    assert_eq!(world.server.endpoint.quic.open_connections(), 1, "quinn-proto answers late packets still");
}
