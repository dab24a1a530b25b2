//! A UDP proxy between one client and a broker, as a NAT is one: the broker sees the proxy's address, and that can change
//! while packets flow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A long header (bit 7) with the fixed bit (6) of type Retry (5 and 4): RFC 9000, section 17.2.5.
const RETRY_BITS: u8 = 0xf0;

/// A proxy for one client. Ends with the value.
pub struct Proxy {
    /// Where the client connects to.
    pub address: SocketAddr,
    retries: Arc<AtomicU64>,
    rebinds: mpsc::Sender<oneshot::Sender<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the broker at this address.
    ///
    /// # Panics
    /// If there is no socket.
    pub async fn start(broker: SocketAddr) -> Self {
        let front = socket().await;
        let address = front.local_addr().expect("it is bound");
        let (rebinds, wishes) = mpsc::channel(1);
        let back = socket().await;
        let retries = Arc::<AtomicU64>::default();
        let task = tokio::spawn(forward(front, back, broker, wishes, retries.clone()));
        Self { address, retries, rebinds, task }
    }

    /// Retry packets that the broker has sent.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::SeqCst)
    }

    /// Moves to a new port towards the broker and says which. What is on its way to the old one is lost, as behind a NAT that
    /// forgot its mapping.
    ///
    /// # Panics
    /// If there is no socket.
    pub async fn rebind(&self) -> SocketAddr {
        let (done, rebound) = oneshot::channel();
        self.rebinds.send(done).await.expect("the proxy runs");
        rebound.await.expect("the proxy runs")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a socket")
}

async fn forward(
    front: UdpSocket,
    mut back: UdpSocket,
    broker: SocketAddr,
    mut wishes: mpsc::Receiver<oneshot::Sender<SocketAddr>>,
    retries: Arc<AtomicU64>,
) {
    let mut client = None;
    let (mut from_client, mut from_broker) = (vec![0; DATAGRAM_BYTES_MAX], vec![0; DATAGRAM_BYTES_MAX]);
    loop {
        tokio::select! {
            wish = wishes.recv() => {
                let Some(wish) = wish else { return };
                // The new one is bound before the old one is gone, so that it is another.
                back = socket().await;
                // Who asked may have gone.
                wish.send(back.local_addr().expect("it is bound")).ok();
            }
            Ok((bytes, from)) = front.recv_from(&mut from_client) => {
                client = Some(from);
                // UDP may lose.
                back.send_to(&from_client[..bytes], broker).await.ok();
            }
            Ok(bytes) = back.recv(&mut from_broker) => {
                if from_broker[0] & RETRY_BITS == RETRY_BITS {
                    retries.fetch_add(1, Ordering::SeqCst);
                }
                if let Some(client) = client {
                    front.send_to(&from_broker[..bytes], client).await.ok();
                }
            }
        }
    }
}
