//! The stream of JetStream that a run publishes into: made before it, taken away after it.
//!
//! One replica on file storage, which acknowledges what is written to its file; whether that is also on the disk is the
//! server's `sync_interval`.

use serde_json::json;

use super::super::dialect::Event;
use super::super::line::Line;
use crate::limits::PEER_STREAM_BYTES_MAX;

/// The run's stream takes these subjects, and no other run's.
pub(super) struct Stream {
    name: String,
}

impl Stream {
    /// # Errors
    /// The server has no JetStream, or no room.
    pub(super) async fn make(line: &mut Line, run: u64, subject: &str) -> Result<Self, String> {
        let name = format!("carillon-load-{run}");
        let config = json!({
            "name": name,
            "subjects": [subject],
            "storage": "file",
            "num_replicas": 1,
            "retention": "limits",
            "discard": "old",
            "max_bytes": PEER_STREAM_BYTES_MAX,
        });
        ask(line, &format!("$JS.API.STREAM.CREATE.{name}"), config.to_string()).await?;
        Ok(Self { name })
    }

    /// Takes it away, with all messages in it.
    pub(super) async fn remove(self, line: &mut Line) -> Result<(), String> {
        ask(line, &format!("$JS.API.STREAM.DELETE.{}", self.name), String::new()).await
    }
}

/// Asks JetStream for one thing, and waits until it is so.
async fn ask(line: &mut Line, subject: &str, request: String) -> Result<(), String> {
    line.publish(subject, 0, request.into());
    loop {
        match line.next().await? {
            Event::Accepted(_) => return Ok(()),
            Event::Refused(why) => return Err(format!("JetStream refuses {subject}: {why}")),
            Event::Confirmed | Event::Message(_) => {}
        }
    }
}
