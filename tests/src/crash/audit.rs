//! Reading back everything that was acknowledged, the load standing still: by a device that was never there before, by pages of
//! history, and by asking for watermarks and DINGs.

use carillon_client::{
    ConversationId, DeviceId, DingState, DingStates, Direction, Event, RequestError, Seq, Start, UserId,
};

use super::crew::{Crew, config};
use super::ledger::{Fault, Findings};
use super::notes::Desk;
use super::reading::Reading;
use super::shape::Shape;
use super::victim::Victim;
use crate::harness::{PATIENCE, connect, patiently};

/// Whose it is.
const READER: &str = "reader-0";

/// Messages of a page.
const PAGE: u16 = 1_000;

/// What an audit has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Messages read by new devices.
    pub read: u64,
    /// Messages read by history.
    pub history: u64,
    /// Acknowledged messages that retention took and the broker named.
    pub expired: u64,
}

/// One audit.
pub struct Audit<'a> {
    /// The broker.
    pub victim: &'a Victim,
    /// How it is configured.
    pub shape: &'a Shape,
    /// Who is asked.
    pub crew: &'a Crew,
    /// What was noted.
    pub desk: &'a Desk,
    /// Of the run.
    pub seed: u64,
    /// Tells its device from that of the last one.
    pub nth: u64,
}

impl Audit<'_> {
    /// Reads and asks for everything.
    pub async fn run(&self) -> (Audited, Findings) {
        let mut findings = Findings::default();
        let mut audited = Audited::default();
        self.by_a_new_device(&mut audited, &mut findings).await;
        self.by_history(&mut audited, &mut findings).await;
        self.marks(&mut findings).await;
        self.dings(&mut findings).await;
        self.retention(audited.expired, &mut findings);
        (audited, findings)
    }

    async fn by_a_new_device(&self, audited: &mut Audited, findings: &mut Findings) {
        let device = DeviceId(1_000_000 + self.nth);
        let config = config(self.victim, READER, 1).device(device).start(Start::Beginning).shows_dings(false);
        let (client, mut events) = connect(config).await;
        let mut reading = Reading::new(format!("new device {}", self.nth), self.seed);
        let last = self.desk.book().ledger.last;
        while reading.last() < last {
            match tokio::time::timeout(PATIENCE, events.next()).await {
                Ok(Some(Event::Message(message))) => reading.message(&message),
                Ok(Some(Event::Truncated(gone))) => reading.gone(gone.conversation, gone.last),
                // Beyond the last message, so it will not come any more.
                Ok(Some(Event::Progress(progress))) if progress.position >= last => break,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        audited.expired += reading.judge(&self.desk.book().ledger);
        audited.read += reading.count();
        findings.absorb(reading.findings);
        client.close().await;
        if let Err(error) = patiently(self.crew.readers[0].client.retire_device(device)).await {
            findings.add(Fault::Broken, format!("the device of an audit cannot be retired: {error}"));
        }
    }

    async fn by_history(&self, audited: &mut Audited, findings: &mut Findings) {
        for conversation in self.crew.conversations() {
            let mut reading = Reading::new(format!("history {}", self.nth), self.seed);
            if let Err(error) = self.page_through(*conversation, &mut reading).await {
                findings.add(Fault::Broken, format!("no history of {conversation}: {error}"));
            }
            reading.judge_conversation(&self.desk.book().ledger, *conversation);
            audited.history += reading.count();
            findings.absorb(reading.findings);
        }
    }

    async fn page_through(&self, conversation: ConversationId, reading: &mut Reading) -> Result<(), RequestError> {
        let client = &self.crew.readers[0].client;
        let mut from = Some(Seq(1));
        while let Some(seq) = from {
            let page = patiently(client.history(conversation, seq, Direction::FORWARD, PAGE)).await?;
            reading.gone(conversation, page.truncated);
            page.messages.iter().for_each(|message| reading.message(message));
            from = page.next;
        }
        Ok(())
    }

    async fn marks(&self, findings: &mut Findings) {
        for reader in &self.crew.readers {
            let user = reader.client.user();
            // Noted before it is asked for: the readers go on marking.
            let noted = self.desk.book().ledger.marks.clone();
            let conversations = match patiently(reader.client.conversations()).await {
                Ok(conversations) => conversations,
                Err(error) => return findings.add(Fault::Broken, format!("no list of conversations: {error}")),
            };
            for conversation in self.crew.conversations() {
                let found = conversations.iter().find(|found| found.entry.conversation == *conversation);
                let found = found.map_or(Seq(0), |found| found.entry.read_up_to);
                let noted = noted.get(&(user, *conversation)).copied().unwrap_or_default();
                if found < noted {
                    findings.add(Fault::MarkLost, format!("{user} has read {conversation} up to {noted}, now {found}"));
                }
            }
        }
    }

    async fn dings(&self, findings: &mut Findings) {
        let noted = self.desk.book().ledger.dings.clone();
        for (ding, users) in noted {
            let status = patiently(self.crew.office.ding_status(ding, DingStates::ALL, UserId(0), PAGE)).await;
            let status = match status {
                Ok(status) => status,
                Err(error) => {
                    findings.add(Fault::DingLost, format!("{ding}: {error}"));
                    continue;
                }
            };
            for user in users {
                let entry = status.entries.iter().find(|entry| entry.user == user);
                if entry.is_none_or(|entry| entry.state != DingState::CONFIRMED) {
                    findings.add(Fault::DingLost, format!("{ding} was confirmed by {user}, now {entry:?}"));
                }
            }
        }
    }

    /// What retention takes must be more than the journal may have.
    fn retention(&self, expired: u64, findings: &mut Findings) {
        let Shape { retention_bytes, segment_bytes, .. } = *self.shape;
        let bytes = match self.victim.journal_bytes() {
            Ok(bytes) => bytes,
            Err(error) => return findings.add(Fault::Broken, error),
        };
        if expired > 0 && bytes + segment_bytes < retention_bytes {
            let text = format!("{expired} messages are gone, and the journal has {bytes} of {retention_bytes} bytes");
            findings.add(Fault::Lost, text);
        }
    }
}

/// Holds what the readers were given live, over all kills, against what was acknowledged.
pub async fn judge_readers(crew: &Crew, desk: &Desk) -> Findings {
    let mut findings = Findings::default();
    for reader in &crew.readers {
        let mut reading = reader.reading.lock().await;
        reading.judge(&desk.book().ledger);
        findings.absorb(std::mem::take(&mut reading.findings));
    }
    findings
}
