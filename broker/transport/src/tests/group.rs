//! Several endpoints on one address: every byte arrives, in order, whether the kernel steers or the threads hand over.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::support::{LOCALHOST, Peer, TestClock, Tls, World, bind_client, bind_group, pattern, system_now};
use crate::{Endpoint, Event, Link, LinkKey, Stats, StreamId, TransportConfig, Waker};

/// Server threads that echo until they are dropped.
struct Echoes {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<(Waker, thread::JoinHandle<Peer>)>,
}

impl Echoes {
    fn start(endpoints: Vec<Endpoint>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = endpoints[0].local_address();
        let threads = endpoints
            .into_iter()
            .map(|endpoint| {
                let (waker, stop) = (endpoint.waker(), stop.clone());
                let run = move || {
                    let mut peer = Peer::new(endpoint);
                    while !stop.load(Ordering::SeqCst) {
                        // Without a limit: only packets, timers and the waker end the sleep.
                        peer.turn_echoing(None);
                    }
                    peer
                };
                (waker, thread::spawn(run))
            })
            .collect();
        Self { address, stop, threads }
    }

    fn finish(self) -> Vec<Peer> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads
            .into_iter()
            .map(|(waker, thread)| {
                waker.wake();
                thread.join().unwrap()
            })
            .collect()
    }
}

fn total(peers: &[Peer], count: fn(&Stats) -> u64) -> u64 {
    peers.iter().map(|peer| count(&peer.endpoint.stats())).sum()
}

/// Opens `connections` to a group of two, has `bytes` echoed on each, and returns what the servers did.
fn check(connections: usize, bytes: usize, change: fn(&mut TransportConfig)) -> Vec<(usize, Stats)> {
    let (clock, tls) = (Arc::new(TestClock::default()), Tls::new());
    let mut config = TransportConfig::server();
    change(&mut config);
    let echoes = Echoes::start(bind_group(LOCALHOST.parse().unwrap(), 2, &tls, config, &clock));
    let mut client = Peer::new(bind_client(LOCALHOST.parse().unwrap(), &tls, TransportConfig::client(), &clock));
    let links: Vec<LinkKey> =
        (0..connections).map(|_| client.endpoint.connect(echoes.address, "localhost").unwrap()).collect();
    let mut started = HashSet::new();
    let stream = StreamId(0);
    let start = system_now();
    while !links.iter().all(|link| client.is_finished(*link, stream)) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", client.endpoint.stats());
        client.turn_flowing(Some(Duration::from_millis(5)));
        for link in client.connected() {
            if started.insert(link) {
                assert_eq!(client.endpoint.link(link).unwrap().open_bi(0), Some(stream));
                client.send(link, stream, pattern(link.index as usize, bytes));
            }
        }
    }
    let mut delivered = 0;
    for link in links {
        assert_eq!(client.received(link, stream), pattern(link.index as usize, bytes));
        delivered += client.received(link, stream).len();
    }
    assert_eq!(delivered, connections * bytes);
    let mut peers = echoes.finish();
    // What was handed over last may still be on its way.
    let start = system_now();
    while total(&peers, |stats| stats.handovers) != total(&peers, |stats| stats.handovers_received) {
        assert!(start.elapsed() < Duration::from_secs(60), "what was handed over is not taken");
        for peer in &mut peers {
            peer.turn_echoing(Some(Duration::ZERO));
        }
    }
    let counts: Vec<_> = peers.iter().map(|peer| (peer.endpoint.links_open(), peer.endpoint.stats())).collect();
    assert_eq!(counts.iter().map(|(open, _)| open).sum::<usize>(), connections);
    counts
}

#[test]
fn the_kernel_steers_every_packet_to_its_owner() {
    let counts = check(200, 20_000, |_| {});
    for (open, stats) in counts {
        assert!(open > 0, "both threads have connections");
        assert_eq!((stats.handovers, stats.handovers_dropped), (0, 0));
    }
}

#[test]
fn without_steering_the_threads_hand_over() {
    let counts = check(100, 20_000, |config| config.steer_in_kernel = false);
    // All packets of one client socket arrive at one of the two.
    assert!(counts.iter().all(|(open, _)| *open > 0), "both threads have connections");
    assert!(counts.iter().any(|(_, stats)| stats.handovers > 0));
}

#[test]
fn garbage_does_no_harm() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let noise = UdpSocket::bind(LOCALHOST).unwrap();
    let targets = [world.server.endpoint.local_address(), world.client.endpoint.local_address()];
    for seed in 0..200 {
        let mut packet = pattern(seed, seed * 7).to_vec();
        // Half of them claim a long header of version 1.
        if seed % 2 == 0 && packet.len() > 5 {
            let first = 0xc0 | packet[0];
            packet[..5].copy_from_slice(&[first, 0, 0, 0, 1]);
        }
        for target in targets {
            noise.send_to(&packet, target).unwrap();
        }
    }
    let received = [&world.client, &world.server].map(|peer| peer.endpoint.stats().packets_received);
    world.until(|world| {
        world.client.endpoint.stats().packets_received >= received[0] + 199
            && world.server.endpoint.stats().packets_received >= received[1] + 199
    });
    let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
    world.client.send(client, stream, pattern(1, 50_000));
    world.until_with(Peer::turn_echoing, |world| world.client.is_finished(client, stream));
    assert_eq!(world.client.received(client, stream), pattern(1, 50_000));
    assert_eq!(world.server.closed(server), None);
    assert_eq!(world.server.endpoint.links_open(), 1);
}

#[test]
fn a_wake_ends_a_sleep_without_limit() {
    let mut world = World::new();
    let waker = world.server.endpoint.waker();
    let thread = thread::spawn(move || waker.wake());
    let mut events = Vec::new();
    world.server.endpoint.poll(None, &mut events).unwrap();
    assert_eq!(events, []);
    thread.join().unwrap();
}

#[test]
fn the_socket_buffers_granted_are_told() {
    let world = World::new();
    let buffers = world.server.endpoint.socket_buffers().unwrap();
    assert!(buffers.receive_bytes > 0 && buffers.send_bytes > 0);
}

#[test]
fn a_client_that_moves_keeps_its_connection() {
    let mut world = World::new();
    let (client, server) = world.connected();
    let before = world.server.endpoint.link(server).unwrap().remote_address();
    // A NAT rebinding, as the server sees it: the same connection from another port.
    let moved = crate::socket::bind(LOCALHOST.parse().unwrap(), false).unwrap();
    world.client.endpoint.rebind(moved).unwrap();
    let stream = world.client.endpoint.link(client).unwrap().open_bi(0).unwrap();
    world.client.send(client, stream, pattern(9, 30_000));
    world.until_with(Peer::turn_echoing, |world| world.client.is_finished(client, stream));
    assert_eq!(world.client.received(client, stream), pattern(9, 30_000));
    assert_ne!(world.server.endpoint.link(server).unwrap().remote_address(), before);
    assert!(!world.server.events.iter().any(|event| matches!(event, Event::Closed { .. })));
}

#[test]
fn a_second_group_does_not_share_the_address_of_the_first() {
    let (clock, tls) = (Arc::new(TestClock::default()), Tls::new());
    let first = bind_group(LOCALHOST.parse().unwrap(), 2, &tls, TransportConfig::server(), &clock);
    let again = |threads| {
        let (address, server) = (first[0].local_address(), Arc::new(tls.server()));
        Endpoint::bind_group(address, threads, server, TransportConfig::server(), clock.clone()).map(drop)
    };
    for threads in [1, 2] {
        assert_eq!(again(threads).unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "{threads} threads");
    }
}
