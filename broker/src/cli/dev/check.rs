//! Whether what a member was given is what it must be: nothing lost, nothing doubled.

use std::collections::HashMap;

use carillon_client::{Message, Seq};

use super::super::failure::{Exit, Failure};

/// Looks at a group's messages as a device is given them; keeps none of them.
#[derive(Debug)]
pub(super) struct Check {
    /// What the device had before.
    had: Seq,
    first: Option<Seq>,
    last: Option<Seq>,
    /// What must be there, and how often it was.
    promised: HashMap<Vec<u8>, Promise>,
    fault: Option<String>,
}

#[derive(Debug)]
struct Promise {
    seq: u64,
    found: u32,
}

/// What a device was given, all of it in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The first one; `None`: there was nothing to give.
    pub(super) first: Option<Seq>,
    /// The device has everything up to here.
    pub(super) end: Seq,
    /// Messages it had before, which only a device that was killed may be given again.
    pub(super) again: u64,
    /// Promised messages, each found once and in its place.
    pub(super) promised: usize,
}

impl Check {
    /// For a device that has everything up to `had`.
    pub(super) fn after(had: Seq) -> Self {
        Self { had, first: None, last: None, promised: HashMap::new(), fault: None }
    }

    /// For a device that has nothing, and must find all of these, each at its seq.
    pub(super) fn promised<'a>(promised: impl Iterator<Item = (u64, &'a str)>) -> Self {
        let promised = promised.map(|(seq, text)| (text.as_bytes().to_vec(), Promise { seq, found: 0 }));
        Self { promised: promised.collect(), ..Self::after(Seq(0)) }
    }

    /// The next message.
    pub(super) fn take(&mut self, message: &Message) {
        let seq = message.seq;
        let expected = self.last.map_or(self.had.next(), Seq::next);
        let is_fine = if self.last.is_some() { seq == expected } else { seq <= expected };
        if !is_fine {
            self.fault.get_or_insert_with(|| format!("#{seq} came where #{expected} was to come"));
        }
        if let Some(promise) = self.promised.get_mut(&message.payload[..]) {
            promise.found += 1;
            if promise.seq != seq.0 || promise.found > 1 {
                let promised = promise.seq;
                self.fault.get_or_insert_with(|| format!("what was acknowledged as #{promised} is at #{seq} too"));
            }
        }
        self.first.get_or_insert(seq);
        self.last = Some(seq);
    }

    /// Everything up to `last` should have come; more may have, if others publish.
    pub(super) fn finish(self, last: Seq) -> Result<Given, Failure> {
        let broken = |text: String| Err(Failure::new(Exit::Failed, format!("the journal is not what it was: {text}")));
        if let Some(fault) = self.fault {
            return broken(fault);
        }
        let end = self.last.unwrap_or(self.had);
        if end < last {
            return broken(format!("#{} to #{last} did not come", end.next()));
        }
        if let Some(lost) = self.promised.values().find(|promise| promise.found == 0) {
            return broken(format!("#{} was acknowledged and is not there", lost.seq));
        }
        let again = self.first.map_or(0, |first| (self.had.0 + 1).saturating_sub(first.0));
        Ok(Given { first: self.first, end, again, promised: self.promised.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::{ConversationId, MessageKind, Position, Timestamp, UserId};

    fn message(seq: u64, text: &str) -> Message {
        Message {
            conversation: ConversationId(1),
            seq: Seq(seq),
            position: Position(seq),
            author: UserId(0),
            time: Timestamp(0),
            kind: MessageKind::TEXT,
            payload: text.to_owned().into(),
        }
    }

    fn check(seqs: &[u64], had: u64, last: u64, again: Option<u64>) {
        let mut check = Check::after(Seq(had));
        seqs.iter().for_each(|&seq| check.take(&message(seq, "")));
        let given = check.finish(Seq(last)).ok().map(|given| given.again);
        assert_eq!(given, again, "{seqs:?} for one who had {had} of {last}");
    }

    #[test]
    fn gaps_repeats_and_missing_ends_are_found() {
        check(&[5, 6], 4, 6, Some(0));
        check(&[], 6, 6, Some(0));
        check(&[4, 5, 6], 4, 6, Some(1));
        check(&[5, 5, 6], 4, 6, None);
        check(&[6], 4, 6, None);
        check(&[5], 4, 6, None);
        check(&[6, 5], 4, 6, None);
        check(&[], 4, 6, None);
    }

    fn audit(texts: &[&str], promised: &[(u64, &str)]) -> Option<usize> {
        let mut check = Check::promised(promised.iter().copied());
        (1..).zip(texts).for_each(|(seq, text)| check.take(&message(seq, text)));
        check.finish(Seq(texts.len() as u64)).ok().map(|given| given.promised)
    }

    #[test]
    fn what_was_promised_must_be_there_once_and_in_its_place() {
        assert_eq!(audit(&["a", "b", "c"], &[(1, "a"), (3, "c")]), Some(2));
        assert_eq!(audit(&["a", "b", "c"], &[(2, "c")]), None, "another place");
        assert_eq!(audit(&["a", "b", "c"], &[(4, "d")]), None, "lost");
        assert_eq!(audit(&["a", "b", "c", "c"], &[(3, "c")]), None, "doubled");
        assert_eq!(audit(&["a", "a"], &[]), Some(0), "nobody promised that two texts differ");
    }
}
