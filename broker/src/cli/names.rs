//! Handles and names for ids, asked for once and remembered.

use std::collections::HashMap;
use std::time::Duration;

use carillon_client::{
    Client, Conversation, ConversationId, ConversationKind, DingId, ErrorCode, RequestError, UserId,
};

use super::failure::{Exit, Failure};
use carillon::report::escape;

/// Names remembered of each sort; when there are more, all are forgotten and asked for again.
const REMEMBERED_MAX: usize = 10_000;

/// Before a look-up that was refused with `BUSY` is tried again, times how often it was.
const BUSY_DELAY: Duration = Duration::from_millis(50);

/// So often a look-up is tried: 50 + 100 + … + 450 ms, 2.25 s in all.
const ATTEMPTS_MAX: u32 = 10;

/// Handles and names.
#[derive(Debug)]
pub(crate) struct Names {
    client: Client,
    handles: HashMap<UserId, Option<String>>,
    conversations: HashMap<ConversationId, Option<String>>,
}

impl Names {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, handles: HashMap::new(), conversations: HashMap::new() }
    }

    /// Forgets everything: the broker has another journal, and ids mean something else there.
    pub(crate) fn forget(&mut self) {
        self.handles.clear();
        self.conversations.clear();
    }

    /// The users with these handles.
    pub(crate) async fn users(&self, handles: &[String]) -> Result<Vec<UserId>, Failure> {
        let mut users = Vec::with_capacity(handles.len());
        for handle in handles {
            users.push(self.user(handle).await?);
        }
        Ok(users)
    }

    /// The user with this handle.
    pub(crate) async fn user(&self, handle: &str) -> Result<UserId, Failure> {
        patiently(async || self.client.find_user(handle).await).await.map_err(|error| match error {
            RequestError::Refused { code: ErrorCode::UNKNOWN_USER, .. } => Failure::caused(
                Exit::Failed,
                format!("there is no user {handle:?} yet: `carillon user add {handle}` makes one, and so does their first connection"),
                error,
            ),
            error => Failure::request(&format!("looking for {handle:?}"), error),
        })
    }

    /// The handles of these users, as they are; ids of nobody are shown as such.
    pub(crate) async fn handles(&mut self, users: &[UserId]) -> Result<Vec<String>, Failure> {
        let unknown: Vec<_> = users.iter().copied().filter(|user| !self.handles.contains_key(user)).collect();
        if !unknown.is_empty() {
            if self.handles.len() > REMEMBERED_MAX {
                self.handles.clear();
            }
            let wanted = if self.handles.is_empty() { users.to_vec() } else { unknown };
            match patiently(async || self.client.handles(&wanted).await).await {
                Ok(found) => self.handles.extend(wanted.into_iter().zip(found)),
                // Nobody knows any more whom they meant; what was delivered before the restore is shown all the same.
                Err(RequestError::Reset) => {}
                Err(error) => return Err(Failure::request("looking up users", error)),
            }
        }
        let handle =
            |user: &UserId| self.handles.get(user).cloned().flatten().unwrap_or_else(|| format!("user {user}"));
        Ok(users.iter().map(handle).collect())
    }

    /// One user's handle, as it is.
    pub(crate) async fn handle(&mut self, user: UserId) -> Result<String, Failure> {
        Ok(self.handles(&[user]).await?.remove(0))
    }

    /// The conversation that an argument means: an id, if it is a number, else a name.
    pub(crate) async fn conversation(&self, argument: &str) -> Result<ConversationId, Failure> {
        if let Ok(id) = argument.parse() {
            return Ok(ConversationId(id));
        }
        patiently(async || self.client.find_conversation(argument).await).await.map_err(|error| match error {
            RequestError::Refused { code: ErrorCode::NOT_FOUND, .. } => Failure::caused(
                Exit::Failed,
                format!("no conversation of this user is called {argument:?}: `carillon conversation list` shows them"),
                error,
            ),
            error => Failure::request(&format!("looking for the conversation {argument:?}"), error),
        })
    }

    /// The present conversation of this user with this id.
    pub(crate) async fn own(&self, id: ConversationId) -> Result<Conversation, Failure> {
        let all = self.list().await?;
        all.into_iter().find(|found| found.entry.conversation == id).ok_or_else(|| {
            let text = format!("this user is in no conversation {id}: `carillon conversation list` shows them");
            Failure::new(Exit::Failed, text)
        })
    }

    /// All present conversations of this user.
    pub(crate) async fn list(&self) -> Result<Vec<Conversation>, Failure> {
        patiently(async || self.client.conversations().await)
            .await
            .map_err(|error| Failure::request("listing conversations", error))
    }

    /// A conversation's name, if it has one that this user may know.
    pub(crate) async fn name(&mut self, id: ConversationId) -> Result<Option<String>, Failure> {
        if !self.conversations.contains_key(&id) {
            if self.conversations.len() > REMEMBERED_MAX {
                self.conversations.clear();
            }
            let all = self.list().await?;
            self.conversations.extend(all.into_iter().map(|found| (found.entry.conversation, found.name)));
            self.conversations.entry(id).or_insert(None);
        }
        Ok(self.conversations.get(&id).cloned().flatten())
    }

    /// What a conversation is called in a line, safe to print: its name, else its id. Both are accepted back.
    pub(crate) async fn label(&mut self, id: ConversationId) -> Result<String, Failure> {
        let name = self.name(id).await?;
        // A name that is a number would be read as an id.
        let name = name.filter(|name| name.parse::<u64>().is_err());
        Ok(name.map_or_else(|| id.to_string(), |name| escape(&name).into_owned()))
    }
}

/// Asks again while the broker is busy: a look-up changes nothing, and a `sub` must not end for it.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, RequestError>) -> Result<T, RequestError> {
    for attempt in 1..ATTEMPTS_MAX {
        match ask().await {
            Err(RequestError::Refused { code: ErrorCode::BUSY, .. }) => tokio::time::sleep(BUSY_DELAY * attempt).await,
            done => return done,
        }
    }
    ask().await
}

/// Where the page of users after one that began at `from` begins; `None` after the last. A page that does not go on is the
/// last: it would be asked for without end.
pub(crate) fn page_after(from: UserId, next: UserId) -> Option<UserId> {
    Some(next).filter(|next| *next > from && *next != UserId(u32::MAX))
}

/// A DING's id, from an argument.
pub(crate) fn parse_ding(text: &str) -> Result<DingId, String> {
    text.parse().map(DingId).map_err(|_| "a DING is named by the number that `sub` and `ding send` print".to_owned())
}

/// What a kind of conversation is called.
pub(crate) fn kind_name(kind: ConversationKind) -> &'static str {
    match kind {
        ConversationKind::DIRECT => "direct",
        ConversationKind::GROUP => "group",
        ConversationKind::CHANNEL => "channel",
        ConversationKind::PERSONAL => "personal",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn a_busy_broker_is_asked_again_and_another_refusal_is_an_answer() {
        let refused = |code| RequestError::Refused { code, text: String::new() };
        let asked = Cell::new(0);
        let ask = async |busy: u32, then: Result<(), RequestError>| {
            asked.set(0);
            let then = Cell::new(Some(then));
            patiently(async || {
                asked.set(asked.get() + 1);
                if asked.get() <= busy { Err(refused(ErrorCode::BUSY)) } else { then.take().unwrap() }
            })
            .await
        };
        assert!(ask(3, Ok(())).await.is_ok());
        assert_eq!(asked.get(), 4);
        assert!(ask(0, Err(refused(ErrorCode::NOT_FOUND))).await.is_err());
        assert_eq!(asked.get(), 1);
        assert!(ask(u32::MAX, Ok(())).await.is_err());
        assert_eq!(asked.get(), ATTEMPTS_MAX);
    }

    #[test]
    fn a_ding_is_a_number() {
        assert_eq!(parse_ding("7"), Ok(DingId(7)));
        assert!(parse_ding("fire").is_err());
    }
}
