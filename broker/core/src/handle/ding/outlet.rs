//! What outlets say of the calls they were handed.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::kinds::{AttemptState, CancelState};

use crate::ding::{Ding, Reach};
use crate::effect::{CallKey, Effects, Reply, Reported};
use crate::input::{CallResult, OutletReport, OutletResult};
use crate::limits::DING_OUTCOMES_A_RECORD_MAX;
use crate::record::{DingConfirmed, DingOutcome, DingOutcomes};
use crate::shard::Shard;

impl Shard {
    /// Notes what became of calls. What is known, or of a DING that was forgotten meanwhile, is passed over.
    pub(crate) fn handle_outlet_results(&mut self, time: Timestamp, results: &[OutletResult], effects: &mut Effects) {
        for result in results {
            match result.result {
                CallResult::Attempt(_) => self.dings.calls.come_back(result.key),
                CallResult::Cancel(_) => {}
            }
        }
        for results in results.chunks(DING_OUTCOMES_A_RECORD_MAX) {
            let mut entries: Vec<DingOutcome> = Vec::new();
            let mut known = BTreeSet::new();
            for result in results {
                // Of two results for one attempt the second is judged by what the first one made of it.
                if known.contains(&result.key) {
                    self.commit(DingOutcomes { time, entries: core::mem::take(&mut entries) }, effects);
                    known.clear();
                }
                if let Some(outcome) = self.outcome(result) {
                    known.insert(result.key);
                    entries.push(outcome);
                }
            }
            if !entries.is_empty() {
                self.commit(DingOutcomes { time, entries }, effects);
            }
            for result in results.iter().filter(|result| result.result == CallResult::Attempt(AttemptState::ANSWERED)) {
                self.confirm_by_outlet(time, result.key, effects);
            }
        }
    }

    /// Notes what an outlet says later. An answer confirms.
    pub(crate) fn handle_outlet_report(&mut self, time: Timestamp, report: &OutletReport, effects: &mut Effects) {
        effects.reply = Some(Reply::Reported(self.report(time, report, effects)));
    }

    fn report(&mut self, time: Timestamp, report: &OutletReport, effects: &mut Effects) -> Reported {
        let OutletReport { outlet, key, state } = *report;
        let Some((ding, _)) = self.reach(key) else { return Reported::Unknown };
        if ding.attempts[usize::from(key.attempt)].outlet != outlet {
            return Reported::Unknown;
        }
        if let Some(outcome) = self.outcome(&OutletResult { key, result: CallResult::Attempt(state), detail: 0 }) {
            self.commit(DingOutcomes { time, entries: [outcome].into() }, effects);
        }
        if state == AttemptState::ANSWERED && !self.confirm_by_outlet(time, key, effects) {
            return Reported::Over;
        }
        Reported::Done
    }

    /// Whether the recipient has confirmed, now or before.
    fn confirm_by_outlet(&mut self, time: Timestamp, key: CallKey, effects: &mut Effects) -> bool {
        let CallKey { ding, user, attempt } = key;
        let Some((found, _)) = self.reach(key) else { return false };
        let Some(recipient) = found.recipient(user) else { return false };
        if recipient.confirmed.is_none() && found.ended.is_none() {
            let via = found.attempts[usize::from(attempt)].outlet;
            self.commit(DingConfirmed { time, ding, user, via }, effects);
            return true;
        }
        recipient.confirmed.is_some()
    }

    fn reach(&self, key: CallKey) -> Option<(&Ding, &Reach)> {
        let ding = self.dings.by_id.get(&key.ding)?;
        Some((ding, ding.recipient(key.user)?.reach(key.attempt)?))
    }

    /// What is to be recorded of a result, if it is news.
    fn outcome(&self, result: &OutletResult) -> Option<DingOutcome> {
        let CallKey { ding, user, attempt } = result.key;
        let (_, reach) = self.reach(result.key)?;
        let (state, cancel) = match result.result {
            CallResult::Attempt(state) => (Some(state).filter(|state| reach.is_news(*state))?, CancelState::NONE),
            CallResult::Cancel(cancel) => {
                let ends =
                    reach.cancel == CancelState::DUE && [CancelState::DONE, CancelState::GAVE_UP].contains(&cancel);
                (AttemptState(0), Some(cancel).filter(|_| ends)?)
            }
        };
        Some(DingOutcome { ding, user, attempt, state, cancel, detail: result.detail })
    }
}
