//! One reading of messages, by a device in position order or by pages of history, and the judgement on it.

use std::collections::{BTreeMap, HashMap, HashSet};

use carillon_client::{ConversationId, Message, Position, Seq};

use super::ledger::{Fault, Findings, Ledger, Noted};
use super::payload::{Sent, recognise};

/// What one reader was given.
pub struct Reading {
    who: String,
    seed: u64,
    found: BTreeMap<ConversationId, BTreeMap<u64, Noted>>,
    /// Up to which seq the broker has named messages as gone.
    gone: BTreeMap<ConversationId, Seq>,
    seen: HashSet<Sent>,
    last: Position,
    newest: HashMap<u16, u32>,
    /// What was wrong on the way.
    pub findings: Findings,
}

impl Reading {
    /// A reading that has not begun, in a run of this seed.
    pub fn new(who: impl Into<String>, seed: u64) -> Self {
        Self {
            who: who.into(),
            seed,
            found: BTreeMap::new(),
            gone: BTreeMap::new(),
            seen: HashSet::new(),
            last: Position(0),
            newest: HashMap::new(),
            findings: Findings::default(),
        }
    }

    /// The last position that was given.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Messages that were given.
    pub fn count(&self) -> u64 {
        self.found.values().map(|found| found.len() as u64).sum()
    }

    /// The broker says that all up to this seq is gone.
    pub fn gone(&mut self, conversation: ConversationId, last: Seq) {
        let gone = self.gone.entry(conversation).or_default();
        *gone = last.max(*gone);
    }

    /// The next message.
    pub fn message(&mut self, message: &Message) {
        let Message { conversation, seq, position, payload, .. } = message;
        let place = format!("{}: {conversation} seq {seq} position {position}", self.who);
        let Some(sent) = recognise(self.seed, payload) else {
            return self.findings.add(Fault::Changed, format!("{place} has a payload that nobody has sent"));
        };
        let noted = Noted { sent, position: *position };
        let twice = self.found.entry(*conversation).or_default().insert(seq.0, noted).is_some();
        if !self.seen.insert(sent) || twice {
            return self.findings.add(Fault::Duplicated, format!("{place} is {sent:?}, given before"));
        }
        let newest = self.newest.insert(sent.producer, sent.ordinal);
        if *position <= self.last || newest.is_some_and(|newest| newest > sent.ordinal) {
            self.findings.add(Fault::Reordered, format!("{place} is {sent:?}, after {newest:?} and {}", self.last));
        }
        self.last = self.last.max(*position);
    }

    /// Holds it against what was acknowledged, all publishes being answered. Returns how many acknowledged messages the broker
    /// has named as gone.
    pub fn judge(&mut self, ledger: &Ledger) -> u64 {
        let conversations: Vec<_> = ledger.messages.keys().copied().collect();
        conversations.into_iter().map(|conversation| self.judge_conversation(ledger, conversation)).sum()
    }

    /// As [`Reading::judge`], for one conversation.
    pub fn judge_conversation(&mut self, ledger: &Ledger, conversation: ConversationId) -> u64 {
        let none = BTreeMap::new();
        let acknowledged = ledger.messages.get(&conversation).unwrap_or(&none);
        let found = self.found.get(&conversation).unwrap_or(&none);
        let gone = self.gone.get(&conversation).copied().unwrap_or_default();
        let mut excused = 0;
        for (seq, noted) in acknowledged {
            let place = format!("{}: {conversation} seq {seq}", self.who);
            match found.get(seq) {
                Some(found) if found == noted => {}
                Some(found) if found.sent == noted.sent => {
                    self.findings.add(Fault::Reordered, format!("{place} is at {found:?}, acknowledged at {noted:?}"));
                }
                Some(found) => self.findings.add(Fault::Changed, format!("{place} is {found:?}, not {noted:?}")),
                None if *seq <= gone.0 => excused += 1,
                None => self.findings.add(Fault::Lost, format!("{place} is not there: {noted:?}")),
            }
        }
        let last = found.keys().next_back().copied().unwrap_or(0);
        for seq in gone.0 + 1..=last {
            match (found.get(&seq), acknowledged.get(&seq)) {
                (None, None) => {
                    self.findings.add(Fault::Lost, format!("{}: {conversation} has no seq {seq}", self.who))
                }
                (Some(found), None) => {
                    let text = format!("{}: {conversation} seq {seq} is {found:?}", self.who);
                    self.findings.add(Fault::Unknown, text);
                }
                (_, Some(_)) => {}
            }
        }
        excused
    }
}

#[cfg(test)]
mod tests {
    use carillon_client::{MessageKind, Timestamp, UserId};

    use super::super::payload::payload;
    use super::*;

    const SEED: u64 = 5;
    const ROOM: ConversationId = ConversationId(9);

    fn message(seq: u64, ordinal: u32) -> Message {
        Message {
            conversation: ROOM,
            seq: Seq(seq),
            position: Position(10 + seq),
            author: UserId(1),
            time: Timestamp(1),
            kind: MessageKind::TEXT,
            payload: payload(SEED, Sent { producer: 0, ordinal }).into(),
        }
    }

    /// Five acknowledged messages; the reader is given these instead.
    fn check(given: &[Message], gone: u64, faults: &[(Fault, u64)], excused: u64) {
        let mut ledger = Ledger::default();
        let mut findings = Findings::default();
        for seq in 1..=5 {
            let sent = Sent { producer: 0, ordinal: u32::try_from(seq).unwrap() };
            ledger.note((ROOM, Seq(seq)), Noted { sent, position: Position(10 + seq) }, &mut findings);
        }
        assert!(findings.is_empty());
        let mut reading = Reading::new("test", SEED);
        given.iter().for_each(|message| reading.message(message));
        reading.gone(ROOM, Seq(gone));
        assert_eq!(reading.judge(&ledger), excused);
        for fault in Fault::ALL {
            let expected = faults.iter().find(|(known, _)| *known == fault).map_or(0, |(_, count)| *count);
            assert_eq!(reading.findings.count(fault), expected, "{fault:?}: {:?}", reading.findings.texts);
        }
    }

    fn five() -> Vec<Message> {
        (1..=5).map(|seq| message(seq, u32::try_from(seq).unwrap())).collect()
    }

    #[test]
    fn what_is_all_there_is_well() {
        check(&five(), 0, &[], 0);
    }

    #[test]
    fn each_fault_is_seen() {
        let without = |nth: usize| {
            let mut given = five();
            given.remove(nth);
            given
        };
        check(&without(4), 0, &[(Fault::Lost, 1)], 0);
        check(&without(2), 0, &[(Fault::Lost, 1)], 0);
        check(&without(0), 1, &[], 1);
        check(&[five(), vec![message(5, 5)]].concat(), 0, &[(Fault::Duplicated, 1)], 0);
        check(&[five(), vec![message(6, 5)]].concat(), 0, &[(Fault::Duplicated, 1), (Fault::Unknown, 1)], 0);
        check(&[five(), vec![message(6, 6)]].concat(), 0, &[(Fault::Unknown, 1)], 0);
        let mut swapped = five();
        swapped.swap(1, 2);
        check(&swapped, 0, &[(Fault::Reordered, 1)], 0);
        let mut moved = five();
        moved[4].position = Position(100);
        check(&moved, 0, &[(Fault::Reordered, 1)], 0);
        let mut changed = five();
        changed[2].payload = b"kill".to_vec().into();
        check(&changed, 0, &[(Fault::Changed, 1), (Fault::Lost, 1)], 0);
        let mut other = five();
        other[4] = message(5, 7);
        check(&other, 0, &[(Fault::Changed, 1)], 0);
    }
}
