//! Above a number of running handshakes a client proves its address first, whichever edge its packets arrive at.

use carillon_tests::harness::{Broker, connect, patiently};
use carillon_tests::proxy::Proxy;
use carillon_transport::TransportConfig;

/// On both edges, but for a chance of 2⁻¹¹.
const CLIENTS: usize = 12;

async fn clients_connect(retry_from: u32, steer_in_kernel: bool, retries: u64) {
    let mut transport = TransportConfig::server();
    transport.incoming_retry_from = retry_from;
    transport.steer_in_kernel = steer_in_kernel;
    let broker = Broker::start_with(transport);
    for nth in 0..CLIENTS {
        let proxy = Proxy::start(broker.address).await;
        let (client, _events) = connect(broker.site.config(proxy.address, &format!("client-{nth}"))).await;
        let presence = patiently(client.presence(&[client.user()])).await.expect("it is served");
        assert!(presence[0].is_some());
        assert_eq!(proxy.retries(), retries, "client {nth}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_proves_its_address_once() {
    clients_connect(0, true, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_finds_its_edge_without_the_kernels_help() {
    clients_connect(0, false, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_number_nobody_is_asked() {
    clients_connect(1, true, 0).await;
}
