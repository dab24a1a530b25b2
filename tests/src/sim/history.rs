//! Gaps that are named, and pages of history: what a client may expect of them, judged against the ledger.

use bytes::Bytes;
use carillon_protocol::deliver::{Deliver, History, HistoryPage};
use carillon_protocol::ids::{ConversationId, Position, Seq};
use carillon_protocol::kinds::Direction;
use carillon_protocol::limits::HISTORY_BYTES_MAX;
use carillon_protocol::session::{NEWEST_ALL, Skipped, Truncated};

use super::ledger::{Ledger, Who};
use super::promises::Want;
use super::session::Session;

/// What was named to a session: it must not come any more, and is not missing.
#[derive(Default)]
pub(super) struct Named {
    ranges: Vec<(ConversationId, Seq, Seq)>,
}

impl Named {
    fn holds(&self, conversation: ConversationId, seq: Seq) -> bool {
        self.ranges.iter().any(|(of, first, last)| *of == conversation && (*first..=*last).contains(&seq))
    }
}

/// A page that is being read.
pub(super) struct Page {
    header: HistoryPage,
    messages: Vec<Deliver>,
    bytes: usize,
}

/// A page that was asked for.
pub(super) struct Asked {
    pub(super) query: History,
    /// The journal's head then.
    pub(super) head: Position,
}

impl Session {
    /// The next message that the session is to get.
    pub(super) fn next_due(&self, who: Who, ledger: &Ledger) -> Option<Position> {
        let mut after = self.last;
        loop {
            let next = ledger.next_entitled(who, after)?;
            let deliver = &ledger.message(next)?.deliver;
            if !self.named.holds(deliver.conversation, deliver.seq) {
                return Some(next);
            }
            after = next;
        }
    }

    pub(super) fn judge_skipped(&mut self, skipped: &Skipped, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let Skipped { conversation, first, last, position } = *skipped;
        if position != self.last || self.newest == NEWEST_ALL {
            return Err(format!("{skipped:?} after {}, {} are wanted", self.last, self.newest));
        }
        for seq in first.0..=last.0 {
            let at = ledger.position_of(conversation, Seq(seq)).ok_or(format!("{skipped:?}: no seq {seq}"))?;
            if at <= self.last || !ledger.is_entitled(who, conversation, at) {
                return Err(format!("{skipped:?}: {seq} at {at} would not have come"));
            }
        }
        let kept = ledger.entitled(who, conversation).filter(|(seq, at)| *seq > last && *at <= ledger.head);
        let kept = kept.count() as u64;
        if kept < u64::from(self.newest) {
            return Err(format!("{skipped:?} leaves {kept}, {} are wanted", self.newest));
        }
        self.named.ranges.push((conversation, first, last));
        Ok(())
    }

    pub(super) fn judge_truncated(&mut self, truncated: &Truncated, ledger: &Ledger) -> Result<(), String> {
        let Truncated { conversation, first, last, position } = *truncated;
        let gone = ledger.position_of(conversation, last).is_some_and(|at| at <= ledger.floor);
        if position > self.last || first > last || !gone {
            return Err(format!("{truncated:?} after {}, retention took all to {}", self.last, ledger.floor));
        }
        self.named.ranges.push((conversation, first, last));
        Ok(())
    }

    /// A frame of the bulk lane.
    pub(super) fn judge_page_header(&mut self, header: HistoryPage, ledger: &Ledger) -> Result<(), String> {
        if self.page.is_some() {
            return Err(format!("{header:?} in the middle of a page"));
        }
        self.page = Some(Page { header, messages: Vec::new(), bytes: 0 });
        self.judge_page_end(ledger)
    }

    /// A message of a page.
    pub(super) fn judge_page_message(
        &mut self,
        deliver: Deliver,
        bytes: &Bytes,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let page = self.page.as_mut().ok_or(format!("{deliver:?} outside a page"))?;
        let message = ledger.message(deliver.position).ok_or("a page has what is not durable")?;
        if message.frame != *bytes || deliver.conversation != page.header.conversation {
            return Err(format!("a page has {deliver:?}, committed was {:?}", message.deliver));
        }
        page.bytes += bytes.len();
        page.messages.push(deliver);
        self.judge_page_end(ledger)
    }

    fn judge_page_end(&mut self, ledger: &Ledger) -> Result<(), String> {
        let Some(page) = self.page.take_if(|page| page.messages.len() == usize::from(page.header.count)) else {
            return Ok(());
        };
        let request = page.header.request;
        if self.pending.remove(&request).map(|asked| asked.want) != Some(Want::History) {
            return Err(format!("a page for {request}, which did not ask for one"));
        }
        let asked = self.pages_asked.remove(&request).ok_or("a page twice")?;
        let who = self.who_of(ledger)?;
        judge_page(&page, &asked, who, ledger).map_err(|why| format!("{:?} to {:?}: {why}", page.header, asked.query))
    }
}

fn judge_page(page: &Page, asked: &Asked, who: Who, ledger: &Ledger) -> Result<(), String> {
    let History { conversation, from, direction, limit, .. } = asked.query;
    let HistoryPage { next, truncated, .. } = page.header;
    let backward = direction == Direction::BACKWARD;
    let seqs: Vec<Seq> = page.messages.iter().map(|message| message.seq).collect();
    let bytes_of_one = page.messages.iter().map(|message| message.payload.len()).max().unwrap_or(0) + 100;
    if seqs.len() > usize::from(limit.max(1)) || page.bytes > HISTORY_BYTES_MAX.max(bytes_of_one) {
        return Err(format!("{} messages of {} bytes", seqs.len(), page.bytes));
    }
    let entitled: Vec<(Seq, Position)> =
        ledger.entitled(who, conversation).filter(|(seq, _)| *seq > truncated).collect();
    // Where the page may begin and where it ends, as far as it must know.
    let in_direction = |seq: Seq| if backward { seq <= from } else { seq >= from };
    let head = page.messages.iter().map(|message| message.position).max().max(Some(asked.head));
    let expected: Vec<Seq> =
        entitled.iter().filter(|(seq, at)| in_direction(*seq) && Some(*at) <= head).map(|(seq, _)| *seq).collect();
    let begins = if backward { expected.ends_with(&seqs) } else { expected.starts_with(&seqs) };
    if !begins {
        return Err(format!("it has {seqs:?}, where {expected:?} were to be had"));
    }
    let rest = &expected[..expected.len() - seqs.len()];
    let rest = if backward { rest.last() } else { expected.get(seqs.len()) };
    match (rest, next) {
        (None, Seq(0)) => Ok(()),
        // What lies between is nobody's who asks.
        (Some(rest), next) if *rest == next => Ok(()),
        // What was committed since may be known to the edge already.
        (None, next) if entitled.iter().any(|(seq, at)| *seq == next && *at > asked.head) => Ok(()),
        (rest, next) => Err(format!("the next page is to begin at {next}, {rest:?} is next")),
    }
}
