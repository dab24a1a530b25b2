//! Prints everything that comes to a user, once and in order, over restarts.
//!
//! `CARILLON_ADDRESS=localhost:4433 CARILLON_CA=ca.pem CARILLON_TOKEN=… cargo run --example subscriber`
#![allow(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::env;
use std::sync::Arc;

use carillon_client::{Client, Config, Event, FileStore, Roots};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::new(env::var("CARILLON_ADDRESS")?, env::var("CARILLON_TOKEN")?)
        .roots(Roots::File(env::var("CARILLON_CA")?.into()))
        .store(Arc::new(FileStore::open("subscriber.state")?));
    config.producer = None;
    let (client, mut events) = Client::connect(config).await?;
    println!("connected as user {}", client.user());

    loop {
        let event = tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            event = events.next() => event,
        };
        let Some(event) = event else { break };
        match &event {
            Event::Message(message) => {
                let text = String::from_utf8_lossy(&message.payload);
                println!("{} #{} from {}: {text}", message.conversation, message.seq, message.author);
                client.mark_read(message.conversation, message.seq).await?;
            }
            Event::Membership(membership) => println!("membership: {:?}", membership.changed),
            Event::Read(read) => println!("{} has read {} up to {}", read.user, read.conversation, read.read_up_to),
            Event::Truncated(gap) => println!("{}: {} to {} are gone", gap.conversation, gap.first, gap.last),
            Event::Disconnected { reason } => println!("disconnected: {reason}"),
            Event::Ended(error) => println!("ended: {error}"),
            other => println!("{other:?}"),
        }
        // Printed is done with: it will not come again.
        events.ack(&event);
    }
    client.close().await;
    Ok(())
}
