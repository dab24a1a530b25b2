//! Publishes the lines of the standard input into a named group, as fast as the broker makes them durable.
//!
//! `CARILLON_ADDRESS=localhost:4433 CARILLON_CA=ca.pem CARILLON_TOKEN=… cargo run --example publisher -- news`
//!
//! Naming a group takes the token of a service or an administrator.
#![allow(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead};
use std::sync::Arc;

use carillon_client::{Client, Config, FileStore, MessageKind, NewConversation, PublishHandle, Roots};

/// Results are asked for when so many messages are on their way.
const IN_FLIGHT_MAX: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = env::args().nth(1).unwrap_or_else(|| "example".to_owned());
    // The store keeps the producer's identity and what has no result: a line is not published twice, whatever is restarted.
    let config = Config::new(env::var("CARILLON_ADDRESS")?, env::var("CARILLON_TOKEN")?)
        .roots(Roots::File(env::var("CARILLON_CA")?.into()))
        .store(Arc::new(FileStore::open("publisher.state")?));
    let (client, events) = Client::connect(config).await?;
    // Nobody looks at what comes.
    drop(events);

    for earlier in client.recovered() {
        let number = earlier.number();
        println!("publish {number} of an earlier run: {:?}", earlier.await);
    }
    let group = client.create_conversation(NewConversation::group([]).named(name)).await?.conversation;
    let mut in_flight = VecDeque::new();
    for line in io::stdin().lock().lines() {
        in_flight.push_back(client.enqueue(group, MessageKind::TEXT, line?).await?);
        if in_flight.len() >= IN_FLIGHT_MAX {
            report(in_flight.pop_front()).await?;
        }
    }
    while !in_flight.is_empty() {
        report(in_flight.pop_front()).await?;
    }
    client.close().await;
    Ok(())
}

async fn report(publish: Option<PublishHandle>) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(publish) = publish {
        let published = publish.await?;
        println!("seq {} at position {}", published.seq, published.position);
    }
    Ok(())
}
