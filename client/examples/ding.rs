//! Sends a DING to the users with these handles and waits until all have confirmed; without handles, confirms what comes.
//!
//! `CARILLON_ADDRESS=localhost:4433 CARILLON_CA=ca.pem CARILLON_TOKEN=… cargo run --example ding -- alice bob`
#![allow(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::env;
use std::time::Duration;

use carillon_client::{Client, Config, Ding, DingState, Event, MessageKind, Outlet, Recipients, Roots, Step};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new(env::var("CARILLON_ADDRESS")?, env::var("CARILLON_TOKEN")?)
        .roots(Roots::File(env::var("CARILLON_CA")?.into()));
    let device = config.device;
    let (client, mut events) = Client::connect(config).await?;

    let mut users = Vec::new();
    for handle in env::args().skip(1) {
        users.push(client.find_user(&handle).await?);
    }
    let mut sent = None;
    if !users.is_empty() {
        // It rings every half minute. Without steps it would follow the tenant's plan.
        let ring = Step::after(Outlet::APP, Duration::ZERO).repeated(20, Duration::from_secs(30));
        let ding = Ding::new(Recipients::Users(users), MessageKind::TEXT, "please confirm")
            .expires_after(Duration::from_mins(10))
            .step(ring);
        let created = client.ding(ding).await?;
        println!("DING {} is on its way to {}", created.ding, created.recipients);
        sent = Some(created.ding);
    }

    while let Some(event) = events.next().await {
        match event {
            Event::Ding(ding) if sent.is_none() => {
                println!("DING from {}: {}", ding.sender, String::from_utf8_lossy(&ding.payload));
                println!("confirmed at {}", client.confirm(ding.ding).await?);
            }
            // The sender is told how far it has come, without asking.
            Event::DingProgress(progress) if Some(progress.ding) == sent => {
                let (delivered, confirmed, all) = (progress.delivered, progress.confirmed, progress.recipients);
                println!("{confirmed} of {all} have confirmed, {delivered} more have it");
                if progress.state != DingState::SENT {
                    break;
                }
            }
            _ => {}
        }
    }
    // A device of its own for each run would use up the user's sixteen. The session may end before the answer is here.
    client.retire_device(device).await.ok();
    client.close().await;
    Ok(())
}
