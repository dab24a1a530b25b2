//! Whether what a member was given is what it must be: nothing lost, nothing doubled.

use std::collections::HashMap;

use carillon_client::{Message, Seq};

use super::super::failure::{Exit, Failure};

/// What an audit found to be in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Audit {
    /// Messages in the group.
    pub(super) messages: usize,
    /// Those of them that were promised.
    pub(super) promised: usize,
}

fn broken(text: String) -> Failure {
    Failure::new(Exit::Failed, format!("the journal is not what it was: {text}"))
}

/// Everything from the first seq to `last` is there without a gap, and every promised message at its place, once.
pub(super) fn audit<'a>(
    given: &[Message],
    last: Seq,
    promised: impl Iterator<Item = (u64, &'a str)>,
) -> Result<Audit, Failure> {
    check_given(given, Seq(0), last)?;
    let mut places: HashMap<&[u8], Vec<u64>> = HashMap::new();
    for message in given {
        places.entry(&message.payload).or_default().push(message.seq.0);
    }
    let mut count = 0;
    for (seq, text) in promised {
        match places.get(text.as_bytes()).map(Vec::as_slice) {
            Some([place]) if *place == seq => count += 1,
            Some(found) => return Err(broken(format!("{text:?} was acknowledged as #{seq} and is at {found:?}"))),
            None => return Err(broken(format!("{text:?} was acknowledged as #{seq} and is not there"))),
        }
    }
    Ok(Audit { messages: given.len(), promised: count })
}

/// A device that had everything up to `had` was given the rest up to `last`, in order, without a gap, each once. Returns how many
/// it was given again, which only a device that was killed may be.
pub(super) fn check_given(given: &[Message], had: Seq, last: Seq) -> Result<usize, Failure> {
    if let Some(pair) = given.windows(2).find(|pair| pair[1].seq != pair[0].seq.next()) {
        return Err(broken(format!("#{} came after #{}", pair[1].seq, pair[0].seq)));
    }
    let first = given.first().map_or(had.next(), |message| message.seq);
    let end = given.last().map_or(had, |message| message.seq);
    if first > had.next() {
        return Err(broken(format!("#{} to #{} did not come", had.next(), first.0 - 1)));
    }
    if end < last {
        return Err(broken(format!("#{} to #{last} did not come", end.next())));
    }
    Ok(given.iter().filter(|message| message.seq <= had).count())
}

/// `#5 to #7`.
pub(super) fn range(given: &[Message]) -> String {
    match given {
        [] => "nothing".to_owned(),
        [one] => format!("#{}", one.seq),
        [first, .., last] => format!("#{} to #{}", first.seq, last.seq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::{ConversationId, MessageKind, Position, Timestamp, UserId};

    fn given(seqs: &[u64]) -> Vec<Message> {
        let message = |&seq: &u64| Message {
            conversation: ConversationId(1),
            seq: Seq(seq),
            position: Position(seq),
            author: UserId(0),
            time: Timestamp(0),
            kind: MessageKind::TEXT,
            payload: format!("m{seq}").into(),
        };
        seqs.iter().map(message).collect()
    }

    fn check(seqs: &[u64], had: u64, last: u64, again: Option<usize>) {
        let checked = check_given(&given(seqs), Seq(had), Seq(last)).ok();
        assert_eq!(checked, again, "{seqs:?} for one who had {had} of {last}");
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

    #[test]
    fn what_was_promised_must_be_there_once_and_in_its_place() {
        let promised = [(1, "m1"), (3, "m3")];
        let all = given(&[1, 2, 3]);
        assert_eq!(audit(&all, Seq(3), promised.into_iter()).unwrap(), Audit { messages: 3, promised: 2 });
        assert!(audit(&all, Seq(3), [(2, "m3")].into_iter()).is_err(), "another place");
        assert!(audit(&all, Seq(3), [(4, "m4")].into_iter()).is_err(), "lost");
        let mut doubled = given(&[1, 2, 3, 4]);
        doubled[3].payload = "m3".into();
        assert!(audit(&doubled, Seq(4), promised.into_iter()).is_err(), "doubled");
    }
}
