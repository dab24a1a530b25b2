//! Data: in both directions and roles, by priority, blocked and reserved.

use std::time::Duration;

use bytes::Bytes;

use super::support::{Peer, World, pattern};
use crate::{DatagramRefused, Direction, Event, Link, LinkKey, Read, Room, StreamClosed, StreamId, TransportConfig};

/// Sends `bytes` on a stream that the client opens, and expects them back.
fn check_echo(mut world: World, bytes: usize) {
    let (client, server) = world.connected();
    let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
    let sent = pattern(1, bytes);
    world.client.send(client, stream, sent.clone());
    world.until_with(Peer::turn_echoing, |world| world.client.is_finished(client, stream));
    assert_eq!(world.client.received(client, stream), sent);
    assert!(world.server.has(&Event::Opened { link: server, stream, direction: Direction::Bidirectional }));
}

#[test]
fn the_server_echoes() {
    for bytes in [0, 1, 1_000, 3_000_000] {
        check_echo(World::new(), bytes);
    }
}

#[test]
fn the_path_is_probed_for_the_largest_packets_alone() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut seen = Vec::new();
    world.until(|world| {
        let client = world.client.endpoint.link(client).unwrap().connection.quic.current_mtu();
        let server = world.server.endpoint.link(server).unwrap().connection.quic.current_mtu();
        seen.extend([client, server]);
        [client, server] == [1_452; 2]
    });
    seen.dedup();
    assert!(seen.iter().all(|mtu| [1_200, 1_452].contains(mtu)), "{seen:?}");
}

#[test]
fn every_mixture_of_address_families_works() {
    for (client_at, server_at) in [("[::1]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0")] {
        let config = (TransportConfig::client(), TransportConfig::server());
        check_echo(World::at(client_at, config.0, server_at, config.1), 100_000);
    }
}

#[test]
fn a_server_on_the_unspecified_address_answers_from_the_one_it_was_called_at() {
    for (client_at, server_at, called_at) in [
        ("127.0.0.1:0", "0.0.0.0:0", "127.0.0.77"),
        ("127.0.0.1:0", "[::]:0", "127.0.0.77"),
        ("[::1]:0", "[::]:0", "::1"),
    ] {
        let mut world = World::at(client_at, TransportConfig::client(), server_at, TransportConfig::server());
        let mut address = world.server.endpoint.local_address();
        address.set_ip(called_at.parse().unwrap());
        let link = world.client.endpoint.connect(address, "localhost").unwrap();
        world.until(|world| world.client.has(&Event::Connected { link }));
        assert_eq!(world.client.endpoint.link(link).unwrap().remote_address(), address);
    }
}

#[test]
fn the_server_opens_streams_and_the_client_echoes_on_its_own() {
    let mut client_config = TransportConfig::client();
    client_config.streams_bidi_max = 1;
    let mut world = World::with(client_config, TransportConfig::server());
    let (_, server) = world.connected();
    let stream = world.server.endpoint.link(server).unwrap().open_bi(0).unwrap();
    assert!(!stream.is_opened_by_client());
    let sent = pattern(2, 300_000);
    world.server.send(server, stream, sent.clone());
    let mut world = World { client: world.server, server: world.client, ..world };
    world.until_with(Peer::turn_echoing, |world| world.client.is_finished(server, stream));
    assert_eq!(world.client.received(server, stream), sent);
}

#[test]
fn streams_beyond_the_peers_limit_are_announced_when_they_become_available() {
    let mut world = World::new();
    let (client, _) = world.connected();
    let mut link = world.client.endpoint.link(client).unwrap();
    assert_eq!(link.open_uni(0), None, "clients open no unidirectional stream");
    let first = link.open_bi(0).unwrap();
    assert!(link.open_bi(0).is_some());
    assert_eq!(link.open_bi(0), None);
    world.client.send(client, first, Bytes::from_static(b"x"));
    let available = Event::Available { link: client, direction: Direction::Bidirectional };
    world.until_with(Peer::turn_echoing, |world| world.client.has(&available));
    assert!(world.client.endpoint.link(client).unwrap().open_bi(0).is_some());
}

#[test]
fn the_higher_priority_is_delivered_first() {
    const BYTES: usize = 100_000;
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let (bulk, urgent) = (link.open_uni(0).unwrap(), link.open_uni(5).unwrap());
    world.server.send(server, bulk, pattern(3, BYTES));
    world.server.send(server, urgent, pattern(4, BYTES));
    // The congestion window lets a first flight of some 14 KB go before anything is acknowledged.
    world.until(|world| !world.client.received(client, urgent).is_empty());
    assert_eq!(world.client.received(client, bulk), b"");
    world.until(|world| world.client.is_finished(client, urgent));
    world.until(|world| world.client.is_finished(client, bulk));
    assert_eq!(world.client.received(client, bulk), pattern(3, BYTES));
    assert_eq!(world.client.received(client, urgent), pattern(4, BYTES));
}

#[test]
fn a_blocked_stream_becomes_writable_and_completes() {
    let mut client_config = TransportConfig::client();
    client_config.stream_receive_window_bytes = 10_000;
    let mut server_config = TransportConfig::server();
    server_config.send_window_bytes = 4_000;
    let mut world = World::with(client_config, server_config);
    let (client, server) = world.connected();
    let stream = world.server.endpoint.link(server).unwrap().open_uni(0).unwrap();
    let mut bytes = pattern(5, 1_000_000);
    let taken = world.server.endpoint.link(server).unwrap().write(stream, &mut bytes, Room::Shared).unwrap();
    assert_eq!((taken, bytes.len()), (4_000, 996_000), "the send window bounds what is queued");
    world.server.send(server, stream, bytes);
    world.until(|world| world.client.is_finished(client, stream));
    assert_eq!(world.client.received(client, stream), pattern(5, 1_000_000));
    assert!(world.server.has(&Event::Writable { link: server, stream }));
}

/// Writes until nothing is taken; returns the count.
fn fill(peer: &mut Peer, link: LinkKey, stream: StreamId, room: Room) -> usize {
    let mut bytes = pattern(6, 1_000_000);
    let mut link = peer.endpoint.link(link).unwrap();
    let taken = link.write(stream, &mut bytes, room).unwrap();
    assert_eq!(link.write(stream, &mut bytes, room).unwrap(), 0);
    taken
}

#[test]
fn a_reserved_write_passes_a_full_send_window() {
    let server_config = TransportConfig::server();
    let (window, reserve) = (server_config.send_window_bytes, server_config.send_window_reserve_bytes);
    let mut world = World::with(TransportConfig::client(), server_config);
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let (inbox, urgent) = (link.open_uni(0).unwrap(), link.open_uni(5).unwrap());
    // The client gets no turn, so that nothing is acknowledged.
    assert_eq!(fill(&mut world.server, server, inbox, Room::Shared), window as usize);
    assert_eq!(fill(&mut world.server, server, urgent, Room::Shared), 0);
    assert_eq!(fill(&mut world.server, server, urgent, Room::Reserved), reserve as usize);
    world.until(|world| {
        world.client.received(client, urgent).len() == reserve as usize
            && world.server.has(&Event::Writable { link: server, stream: urgent })
            && world.server.has(&Event::Writable { link: server, stream: inbox })
    });
    assert_eq!(world.client.received(client, urgent), pattern(6, reserve as usize));
}

#[test]
fn an_unread_inbox_blocks_itself_alone() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let (inbox, urgent) = (link.open_uni(0).unwrap(), link.open_uni(5).unwrap());
    let unread = fill(&mut world.server, server, inbox, Room::Shared);
    // The client receives and acknowledges everything, and reads only the urgent stream.
    let mut bytes = Bytes::from_static(b"DING");
    let mut started = false;
    let start = super::support::system_now();
    while world.client.received(client, urgent) != b"DING" {
        assert!(start.elapsed() < Duration::from_secs(60));
        world.client.turn(Some(Duration::ZERO));
        world.client.read_all(client, urgent);
        world.server.turn(Some(Duration::from_millis(1)));
        if world.server.has(&Event::Writable { link: server, stream: inbox }) && !started {
            // As soon as there is room in the send window the peer's window is full.
            assert!(fill(&mut world.server, server, inbox, Room::Shared) + unread <= 256 * 1024);
        }
        let mut link = world.server.endpoint.link(server).unwrap();
        started |= link.write(urgent, &mut bytes, Room::Reserved).unwrap() > 0;
    }
    assert!(bytes.is_empty());
}

#[test]
fn stopping_and_resetting_carry_their_codes() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let (stopped, reset) = (link.open_uni(0).unwrap(), link.open_uni(0).unwrap());
    for stream in [stopped, reset] {
        link.write(stream, &mut Bytes::from_static(b"some"), Room::Shared).unwrap();
    }
    world.until(|world| world.client.received(client, reset) == b"some");
    world.client.endpoint.link(client).unwrap().stop(stopped, 7);
    world.server.endpoint.link(server).unwrap().reset(reset, 8);
    world.until(|world| world.server.has(&Event::Stopped { link: server, stream: stopped, code: 7 }));
    let mut link = world.server.endpoint.link(server).unwrap();
    let mut bytes = Bytes::from_static(b"more");
    assert_eq!(link.write(stopped, &mut bytes, Room::Shared), Err(StreamClosed::Stopped { code: 7 }));
    assert_eq!(link.write(reset, &mut bytes, Room::Reserved), Err(StreamClosed::Gone));
    assert_eq!(bytes.len(), 4);
    let mut seen = None;
    while seen.is_none() {
        world.client.turn(Some(Duration::from_millis(1)));
        world.server.turn(Some(Duration::ZERO));
        match world.client.endpoint.link(client).unwrap().read(reset, 100) {
            Ok(Read::Blocked) => {}
            other => seen = Some(other),
        }
    }
    assert_eq!(seen, Some(Err(StreamClosed::Reset { code: 8 })));
}

#[test]
fn a_read_is_never_longer_than_wanted() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let stream = world.server.endpoint.link(server).unwrap().open_uni(0).unwrap();
    world.server.send(server, stream, pattern(7, 1_000));
    world.until_with(
        |server, wait| {
            server.turn(wait);
        },
        |world| world.client.is_finished(client, stream),
    );
    let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
    world.client.send(client, stream, pattern(8, 1_000));
    let mut read = Vec::new();
    while read.len() < 1_000 {
        world.client.turn(Some(Duration::ZERO));
        world.server.turn(Some(Duration::from_millis(1)));
        while let Ok(Read::Data(bytes)) = world.server.endpoint.link(server).unwrap().read(stream, 64) {
            assert!((1..=64).contains(&bytes.len()));
            read.extend_from_slice(&bytes);
        }
    }
    assert_eq!(read, pattern(8, 1_000));
}

#[test]
fn a_stream_that_runs_the_other_way_or_never_was_is_gone() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let mut link = world.server.endpoint.link(server).unwrap();
    let outgoing = link.open_uni(0).unwrap();
    assert_eq!(link.read(outgoing, 10), Err(StreamClosed::Gone));
    let mut bytes = Bytes::from_static(b"x");
    for raw in [0, 1, 2, 3, 400, 401, 402, u64::MAX >> 2] {
        for (peer, key) in [(&mut world.client, client), (&mut world.server, server)] {
            let mut link = peer.endpoint.link(key).unwrap();
            let stream = StreamId(raw);
            if stream != outgoing {
                assert_eq!(link.write(stream, &mut bytes, Room::Shared), Err(StreamClosed::Gone), "{stream}");
            }
            assert_eq!(link.read(stream, 10), Err(StreamClosed::Gone), "{stream}");
            link.set_priority(stream, 3);
            link.stop(stream, 3);
            if stream != outgoing {
                link.finish(stream);
                link.reset(stream, 3);
            }
        }
    }
    assert_eq!(bytes.len(), 1);
}

#[test]
fn datagrams_arrive_and_oversized_ones_are_refused() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let bytes = Bytes::from_static(b"typing");
    world.client.endpoint.link(client).unwrap().send_datagram(bytes.clone()).unwrap();
    world.until(|world| world.server.has(&Event::Datagram { link: server, bytes: bytes.clone() }));
    let refused = world.server.endpoint.link(server).unwrap().send_datagram(vec![0; 5_000].into());
    let Err(DatagramRefused::TooLarge { bytes_max }) = refused else { panic!("{refused:?}") };
    assert!((1_000..1_500).contains(&bytes_max));
}

#[test]
fn datagrams_can_be_switched_off() {
    let mut client_config = TransportConfig::client();
    client_config.datagram_receive_bytes_max = None;
    let mut world = World::with(client_config, TransportConfig::server());
    let (_, server) = world.connected();
    let refused = world.server.endpoint.link(server).unwrap().send_datagram(Bytes::from_static(b"x"));
    assert_eq!(refused, Err(DatagramRefused::Unsupported));
}
