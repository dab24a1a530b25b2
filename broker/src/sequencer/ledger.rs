//! The outlets of the process as the sequencer sees them: the way out to them, and what they say on its way back.

use carillon_core::effect::{Call, CallKey, Reported, Verb};
use carillon_core::input::{self, OutletReport, OutletResult};
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};
use tokio::sync::oneshot;

use super::{Outlets, Submission, Submit};
use crate::notify::{CallResult, Calls, Full, Ledger, Outcome, Report};

impl Outlets for Calls {
    fn has_room(&self, outlet: Outlet, verb: Verb) -> bool {
        // Given back at once; nobody else takes it meanwhile.
        self.try_reserve(outlet, verb).is_some()
    }

    fn hand_out(&self, call: Call) {
        let permit =
            self.try_reserve(call.outlet, call.verb).expect("the sequencer alone hands out, where it saw room");
        permit.send(call);
    }

    fn has_room_to_call_off(&self, outlet: Outlet) -> bool {
        self.has_room_to_call_off(outlet)
    }

    fn call_off(&self, outlet: Outlet, key: CallKey) {
        self.call_off(outlet, key);
    }
}

impl Ledger for Submit {
    fn results(&self, results: Vec<CallResult>) -> Result<(), Vec<CallResult>> {
        let submission = Submission::OutletResults(results.iter().map(result).collect());
        self.control(submission).map_err(|_| results)
    }

    fn report(&self, report: Report, answer: oneshot::Sender<Reported>) -> Result<(), Full> {
        let Report { outlet, key, outcome } = report;
        // A gateway says nothing of cancels.
        let Some(state) = state(outcome) else { return Err(Full) };
        let report = OutletReport { outlet, key, state };
        self.control(Submission::OutletReport { report, answer }).map_err(|_| Full)
    }
}

fn result(result: &CallResult) -> OutletResult {
    let CallResult { key, outcome, detail, .. } = *result;
    let result = match (state(outcome), outcome) {
        (Some(state), _) => input::CallResult::Attempt(state),
        (None, Outcome::Done) => input::CallResult::Cancel(CancelState::DONE),
        (None, _) => input::CallResult::Cancel(CancelState::GAVE_UP),
    };
    OutletResult { key, result, detail: detail.0 }
}

/// How far an attempt has come; `None` for what becomes of a cancel.
const fn state(outcome: Outcome) -> Option<AttemptState> {
    match outcome {
        Outcome::Accepted => Some(AttemptState::ACCEPTED),
        Outcome::Delivered => Some(AttemptState::DELIVERED),
        Outcome::Answered => Some(AttemptState::ANSWERED),
        Outcome::Failed => Some(AttemptState::FAILED),
        Outcome::Done | Outcome::GaveUp => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Detail;
    use carillon_protocol::ids::{DingId, UserId};

    #[test]
    fn what_outlets_say_is_what_the_shard_hears() {
        let key = CallKey { ding: DingId(1), user: UserId(2), attempt: 3 };
        let check = |verb, outcome, expected| {
            let said = CallResult { outlet: Outlet::SMS, key, verb, outcome, detail: Detail(503) };
            assert_eq!(result(&said), OutletResult { key, result: expected, detail: 503 });
        };
        use input::CallResult::{Attempt, Cancel};
        check(Verb::Start, Outcome::Accepted, Attempt(AttemptState::ACCEPTED));
        check(Verb::Start, Outcome::Delivered, Attempt(AttemptState::DELIVERED));
        check(Verb::Start, Outcome::Answered, Attempt(AttemptState::ANSWERED));
        check(Verb::Start, Outcome::Failed, Attempt(AttemptState::FAILED));
        check(Verb::Cancel, Outcome::Done, Cancel(CancelState::DONE));
        check(Verb::Cancel, Outcome::GaveUp, Cancel(CancelState::GAVE_UP));
    }
}
