//! Why messages are not taken at present, said to whoever waits for them.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use carillon_client::{Client, ErrorCode};
use tokio::time::Interval;

/// How often it is looked at. A broker that is busy takes the messages a moment later: only what is still so at the next look is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    seen: Option<ErrorCode>,
    told: Option<ErrorCode>,
}

impl Held {
    /// Looks at what holds messages back; returns what there is to tell.
    pub(super) fn look(&mut self, by: Option<ErrorCode>) -> Option<String> {
        let stays = self.seen == by;
        self.seen = by;
        if !stays || self.told == by {
            return None;
        }
        self.told = by;
        Some(by.map_or("carillon: the broker takes messages again".to_owned(), |by| {
            format!("carillon: waiting for the broker to take messages: {}", why(by))
        }))
    }
}

fn why(by: ErrorCode) -> &'static str {
    if by == ErrorCode::NO_ROOM { "its disk has no room (NO_ROOM); its log says what to do" } else { "it is too busy" }
}

/// When to look.
pub(super) fn looks() -> Interval {
    tokio::time::interval(LOOK_EVERY)
}

/// Waits, and says meanwhile what it waits for, if that takes long.
pub(super) async fn saying<T>(client: &Client, tell: impl Fn(String), waiting: impl Future<Output = T>) -> T {
    let (mut held, mut looks) = (Held::default(), looks());
    let mut waiting = pin!(waiting);
    loop {
        tokio::select! {
            biased;
            done = &mut waiting => return done,
            _ = looks.tick() => {
                if let Some(text) = held.look(client.held_back()) {
                    tell(text);
                }
            }
        }
    }
}

/// What a message without an answer waits for, as the rest of a sentence.
pub(super) fn reason(client: &Client) -> String {
    client.held_back().map(|by| format!(": {}", why(by))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_told_once_and_its_end_too() {
        let mut held = Held::default();
        let no_room = Some(ErrorCode::NO_ROOM);
        assert_eq!(held.look(None), None);
        assert_eq!(held.look(Some(ErrorCode::BUSY)), None, "it may be over in a moment");
        assert_eq!(held.look(None), None);
        assert_eq!(held.look(no_room), None);
        assert!(held.look(no_room).is_some_and(|text| text.contains("no room")));
        assert_eq!(held.look(no_room), None);
        assert_eq!(held.look(None), None);
        assert!(held.look(None).is_some_and(|text| text.contains("again")));
        assert_eq!(held.look(None), None);
    }
}
