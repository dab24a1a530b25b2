//! Who keeps the broker busy: producers, readers who mark and confirm, and an office that sends DINGs. They are made once a
//! directory, and the SDK carries them over every kill.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carillon_client::{
    Client, Config, ConversationId, Ding, ErrorCode, Event, Events, MessageKind, NewConversation, PublishHandle,
    Recipients, Reconnect, RequestError, UserId,
};
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;

use super::ledger::Fault;
use super::notes::Desk;
use super::payload::{Sent, payload};
use super::reading::Reading;
use super::victim::Victim;
use crate::harness::{PATIENCE, connect, patiently};

/// Who publishes.
pub const PRODUCERS: u16 = 4;
/// Who reads, marks and confirms.
pub const READERS: usize = 2;
/// Into so many conversations.
const CONVERSATIONS: usize = 5;
/// A reader marks every so many-eth message.
const MARK_EVERY: u64 = 50;
/// A DING after the answer to the last one, and this pause.
const DING_PAUSE: Duration = Duration::from_millis(40);

/// Lets the load pause, so that everything that was published is answered.
#[derive(Default)]
struct Gate {
    is_closed: AtomicBool,
    /// Read-locked by who publishes.
    lock: RwLock<()>,
}

/// What everybody shares.
struct Common {
    seed: u64,
    desk: Desk,
    gate: Gate,
    conversations: Vec<ConversationId>,
    /// Whether the disk is filled up now and then, so that what makes the journal grow is refused.
    fills_up: bool,
}

/// A reader: its client, its readings so far.
pub struct Reader {
    /// Its client.
    pub client: Client,
    /// What it was given.
    pub reading: Arc<Mutex<Reading>>,
}

/// All of them.
pub struct Crew {
    common: Arc<Common>,
    clients: Vec<Client>,
    /// Who reads.
    pub readers: Vec<Reader>,
    /// Who sends DINGs.
    pub office: Client,
    tasks: JoinSet<()>,
}

/// The load stands still while this is held.
pub struct Pause<'a> {
    gate: &'a Gate,
    _held: tokio::sync::RwLockWriteGuard<'a, ()>,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.gate.is_closed.store(false, Ordering::Release);
    }
}

/// How a client of this user reaches the broker; `producer` numbers its publishes.
pub fn config(victim: &Victim, handle: &str, in_flight: usize) -> Config {
    let mut config = victim.site.config(victim.address, handle);
    config.reconnect = Reconnect { first_ms: 5, max_ms: 50, jitter: 0.5, attempts_max: None };
    config.limits.publishes_unsettled = in_flight;
    config
}

impl Crew {
    /// Connects everybody, makes the conversations, and lets the load begin.
    ///
    /// # Panics
    /// If the broker, which was not killed yet, does not let them.
    pub async fn muster(victim: &Victim, desk: &Desk, (seed, in_flight, fills_up): (u64, usize, bool)) -> Self {
        let (office, _) = connect(config(victim, "office", 1).shows_dings(false).newest(0)).await;
        let mut producers = Vec::new();
        for nth in 0..PRODUCERS {
            let config = config(victim, &format!("producer-{nth}"), in_flight).shows_dings(false).newest(0);
            producers.push(connect(config).await.0);
        }
        let mut readers = Vec::new();
        for nth in 0..READERS {
            readers.push(connect(config(victim, &format!("reader-{nth}"), 1)).await);
        }
        let everybody = producers.iter().chain(readers.iter().map(|(client, _)| client));
        let members: Vec<_> = everybody.map(Client::user).collect();
        let mut conversations = Vec::new();
        for _ in 0..CONVERSATIONS {
            let new = NewConversation::group(members.clone());
            conversations.push(patiently(office.create_conversation(new)).await.expect("a group").conversation);
        }
        let common = Common { seed, desk: desk.clone(), gate: Gate::default(), conversations, fills_up };
        let mut crew = Self {
            common: Arc::new(common),
            clients: producers.clone(),
            readers: Vec::new(),
            office: office.clone(),
            tasks: JoinSet::new(),
        };
        let recipients: Vec<_> = readers.iter().map(|(client, _)| client.user()).collect();
        for (nth, (client, events)) in readers.into_iter().enumerate() {
            let reading = Arc::new(Mutex::new(Reading::new(format!("reader {nth}"), seed)));
            crew.tasks.spawn(read(crew.common.clone(), client.clone(), events, reading.clone()));
            crew.readers.push(Reader { client, reading });
        }
        for (nth, client) in (0..PRODUCERS).zip(producers) {
            crew.tasks.spawn(produce(crew.common.clone(), client, nth, in_flight));
        }
        crew.tasks.spawn(ding(crew.common.clone(), office, recipients));
        crew
    }

    /// The conversations that are published into.
    pub fn conversations(&self) -> &[ConversationId] {
        &self.common.conversations
    }

    /// Waits until everybody has an answer from the life that the broker is in now. Asking is also how a client that has
    /// nothing to say learns that its session is of an earlier one.
    pub async fn returned(&self) {
        let readers = self.readers.iter().map(|reader| &reader.client);
        let mut asked = JoinSet::new();
        for client in self.clients.iter().chain(readers).chain([&self.office]) {
            let client = client.clone();
            asked.spawn(async move { client.find_user("office").await.is_ok() });
        }
        while asked.join_next().await.is_some() {}
    }

    /// Stops the load, and waits until every publish is answered and noted.
    pub async fn pause(&self) -> Pause<'_> {
        let gate = &self.common.gate;
        gate.is_closed.store(true, Ordering::Release);
        let held = patiently(gate.lock.write()).await;
        self.common.desk.flush().await;
        Pause { gate, _held: held }
    }

    /// Waits until every reader was given everything that was acknowledged.
    pub async fn read_up(&self) {
        let last = self.common.desk.book().ledger.last;
        for reader in &self.readers {
            let wait = async {
                while reader.reading.lock().await.last() < last {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            // What has not come then is told as lost by the judgement.
            drop(tokio::time::timeout(PATIENCE, wait).await);
        }
    }

    /// Ends them all. Returns whether any of them failed.
    pub async fn dismiss(mut self) -> bool {
        self.tasks.abort_all();
        let mut failed = false;
        while let Some(ended) = self.tasks.join_next().await {
            failed |= ended.is_err_and(|error| error.is_panic());
        }
        failed
    }
}

/// Publishes without a pause, `in_flight` at a time; the SDK repeats what has no answer under its number.
async fn produce(common: Arc<Common>, client: Client, producer: u16, in_flight: usize) {
    let mut ordinal = 0;
    loop {
        let _turn = common.gate.lock.read().await;
        let mut open: VecDeque<(Sent, PublishHandle)> = VecDeque::with_capacity(in_flight);
        while !common.gate.is_closed.load(Ordering::Acquire) {
            while open.len() < in_flight {
                let sent = Sent { producer, ordinal };
                let to = common.conversations[ordinal as usize % common.conversations.len()];
                let handle = client.enqueue(to, MessageKind::TEXT, payload(common.seed, sent)).await;
                open.push_back((sent, handle.expect("the SDK takes it")));
                ordinal += 1;
            }
            settle(&common, &mut open).await;
        }
        while !open.is_empty() {
            settle(&common, &mut open).await;
        }
    }
}

async fn settle(common: &Common, open: &mut VecDeque<(Sent, PublishHandle)>) {
    if let Some((sent, handle)) = open.pop_front() {
        match handle.await {
            Ok(published) => common.desk.note(sent, published).await,
            Err(error) => common.desk.book().findings.add(Fault::Broken, format!("{sent:?} was refused: {error}")),
        }
    }
}

/// Reads everything, marks some of it, confirms every DING.
async fn read(common: Arc<Common>, client: Client, mut events: Events, reading: Arc<Mutex<Reading>>) {
    let mut count = 0;
    let note = |text: String| common.desk.book().findings.add(Fault::Broken, text);
    while let Some(event) = events.next().await {
        match &event {
            Event::Message(message) => {
                reading.lock().await.message(message);
                count += 1;
                if count % MARK_EVERY == 0 {
                    match client.mark_read(message.conversation, message.seq).await {
                        Ok(up_to) => {
                            common.desk.book().ledger.note_mark(client.user(), message.conversation, up_to);
                        }
                        Err(error) => note(format!("a mark was refused: {error}")),
                    }
                }
            }
            Event::Truncated(gone) => reading.lock().await.gone(gone.conversation, gone.last),
            Event::Ding(push) => match client.confirm(push.ding).await {
                Ok(_) => {
                    common.desk.book().ledger.dings.entry(push.ding).or_default().insert(client.user());
                }
                Err(error) => note(format!("a confirmation was refused: {error}")),
            },
            Event::Ended(error) => note(format!("a reader ended: {error}")),
            _ => {}
        }
        events.ack(&event);
    }
}

/// Sends one DING after the other.
async fn ding(common: Arc<Common>, office: Client, recipients: Vec<UserId>) {
    loop {
        let _turn = common.gate.lock.read().await;
        let ding = Ding::new(Recipients::Users(recipients.clone()), MessageKind::TEXT, "wake up");
        match office.ding(ding).await {
            Ok(created) => {
                common.desk.book().ledger.dings.entry(created.ding).or_default();
            }
            Err(RequestError::Refused { code: ErrorCode::NO_ROOM, .. }) if common.fills_up => {}
            Err(error) => common.desk.book().findings.add(Fault::Broken, format!("a DING was refused: {error}")),
        }
        drop(_turn);
        tokio::time::sleep(DING_PAUSE).await;
    }
}
