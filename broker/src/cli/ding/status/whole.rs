//! A DING as a whole: its counts and times, and its plan with what has begun of it.

use std::time::Duration;

use carillon_client::{DingAttempt, DingId, DingStatusReply, DingStep, STEP_REMINDER, Timestamp};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::time_value;
use crate::cli::ding::attempts::step_name;
use crate::cli::ding::parse::{outlet_name, planned, state_name};
use crate::cli::failure::Failure;
use crate::cli::out::Out;
use crate::cli::table::Table;
use crate::cli::time::{local, rfc3339};

/// The plan, and when what of it began.
pub(super) struct Plan {
    steps: Vec<(DingStep, Vec<Timestamp>)>,
    reminders: Vec<DingAttempt>,
}

impl Plan {
    /// From the attempts to reach one who was to be reached by all of them.
    pub(super) fn new(whole: &DingStatusReply, attempts: &[DingAttempt]) -> Self {
        let began = |nth: usize| {
            let of_step = attempts.iter().filter(|attempt| usize::from(attempt.step) == nth);
            of_step.map(|attempt| attempt.started_at).collect()
        };
        let steps = whole.steps.iter().enumerate().map(|(nth, step)| (*step, began(nth))).collect();
        let reminders = attempts.iter().filter(|attempt| attempt.step == STEP_REMINDER).copied().collect();
        Self { steps, reminders }
    }

    /// Prints it as a table.
    pub(super) fn show(&self, zone: &TimeZone, out: &mut Out) -> Result<(), Failure> {
        let mut table = Table::new(&["STEP", "OUTLET", "PLANNED", "BEGAN"]);
        for row in self.rows(zone) {
            table.row(row, out)?;
        }
        Ok(table.end(out)?)
    }

    fn rows(&self, zone: &TimeZone) -> Vec<[String; 4]> {
        let steps = (0..).zip(&self.steps).map(|(nth, (step, times))| {
            let (after, every) = (milliseconds(step.after_ms), milliseconds(step.repeat_every_ms));
            let began = match &times[..] {
                [] => "-".to_owned(),
                [once] => local(*once, zone),
                [.., last] => format!("{} times, last {}", times.len(), local(*last, zone)),
            };
            [step_name(nth), outlet_name(step.outlet), planned(after, step.times, every), began]
        });
        let reminders = self.reminders.iter().map(|reminder| {
            let began = local(reminder.started_at, zone);
            [step_name(STEP_REMINDER), outlet_name(reminder.outlet), "by hand".to_owned(), began]
        });
        steps.chain(reminders).collect()
    }

    fn objects(&self) -> Vec<Value> {
        let steps = self.steps.iter().zip(1..).map(|((step, times), nth)| {
            json!({
                "step": nth,
                "outlet": outlet_name(step.outlet),
                "after_ms": step.after_ms,
                "times": step.times,
                "every_ms": step.repeat_every_ms,
                "began_at": times.iter().map(|time| rfc3339(*time)).collect::<Vec<_>>(),
            })
        });
        let reminders = self.reminders.iter().map(|reminder| {
            let (outlet, began) = (outlet_name(reminder.outlet), [rfc3339(reminder.started_at)]);
            json!({ "step": null, "outlet": outlet, "began_at": began })
        });
        steps.chain(reminders).collect()
    }
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

/// The whole in two lines. The sender's handle must be safe to print.
pub(super) fn lines(ding: DingId, whole: &DingStatusReply, sender: &str, zone: &TimeZone) -> [String; 2] {
    let DingStatusReply { recipients, delivered, confirmed, failed, .. } = *whole;
    let state = state_name(whole.state);
    let mut counts = format!("DING {ding} of {sender}: {state}, {confirmed} of {recipients} have confirmed");
    if delivered > 0 {
        counts.push_str(&format!(", {delivered} more {} it", if delivered == 1 { "has" } else { "have" }));
    }
    if failed > 0 {
        counts.push_str(&format!(", {failed} could not be reached"));
    }
    let at = |time: Timestamp| local(time, zone);
    let mut times = format!("created {}", at(whole.time));
    if whole.sent_at == Timestamp(0) {
        times.push_str(&format!(", starts {}", at(whole.starts_at)));
    } else {
        times.push_str(&format!(", began {}", at(whole.sent_at)));
    }
    if whole.next_step_at != Timestamp(0) {
        times.push_str(&format!(", next step {}", at(whole.next_step_at)));
    }
    if whole.ended_at == Timestamp(0) {
        times.push_str(&format!(", expires {}", at(whole.expires_at)));
    } else {
        times.push_str(&format!(", over {}", at(whole.ended_at)));
    }
    [counts, times]
}

/// The whole, for programs.
pub(super) fn object(ding: DingId, whole: &DingStatusReply, sender: &str, plan: &Plan) -> Value {
    json!({
        "ding": ding.to_string(),
        "sender": sender,
        "state": state_name(whole.state),
        "time": rfc3339(whole.time),
        "starts_at": rfc3339(whole.starts_at),
        "sent_at": time_value(whole.sent_at),
        "expires_at": rfc3339(whole.expires_at),
        "ended_at": time_value(whole.ended_at),
        "next_step_at": time_value(whole.next_step_at),
        "recipients": whole.recipients,
        "delivered": whole.delivered,
        "confirmed": whole.confirmed,
        "failed": whole.failed,
        "attempts": whole.attempts,
        "plan": plan.objects(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::{AttemptState, CancelState, DingState, Outlet, UserId};

    const START: u64 = 1_700_000_000_000;

    fn whole() -> DingStatusReply {
        let step = |outlet, times, after_ms, repeat_every_ms| DingStep { outlet, times, after_ms, repeat_every_ms };
        DingStatusReply {
            request: 1,
            state: DingState::SENT,
            sender: UserId(7),
            time: Timestamp(START),
            starts_at: Timestamp(START),
            sent_at: Timestamp(START),
            expires_at: Timestamp(START + 3_600_000),
            ended_at: Timestamp(0),
            next_step_at: Timestamp(START + 180_000),
            recipients: 3,
            delivered: 1,
            confirmed: 1,
            failed: 0,
            attempts: 3,
            next: UserId(u32::MAX),
            steps: vec![step(Outlet::APP, 3, 0, 60_000), step(Outlet::PHONE, 1, 180_000, 0)],
            entries: Vec::new(),
        }
    }

    fn attempt(step: u8, outlet: Outlet, after_ms: u64) -> DingAttempt {
        let time = Timestamp(START + after_ms);
        let (state, cancel) = (AttemptState::STARTED, CancelState::NONE);
        DingAttempt { attempt: 0, step, outlet, started_at: time, state, cancel, detail: 0, time }
    }

    #[test]
    fn the_whole_says_what_counts_now() {
        let shown = |whole: &DingStatusReply| lines(DingId(7), whole, "alice", &TimeZone::UTC);
        let [counts, times] = shown(&whole());
        assert_eq!(counts, "DING 7 of alice: sent, 1 of 3 have confirmed, 1 more has it");
        assert_eq!(
            times,
            "created 2023-11-14 22:13:20, began 2023-11-14 22:13:20, next step 2023-11-14 22:16:20, \
             expires 2023-11-14 23:13:20"
        );
        let none = Timestamp(0);
        let scheduled = DingStatusReply { state: DingState::SCHEDULED, sent_at: none, delivered: 0, ..whole() };
        assert!(shown(&scheduled)[1].contains(", starts 2023-11-14 22:13:20, next step"), "{:?}", shown(&scheduled));
        let ended_at = Timestamp(START + 3_600_000);
        let over = DingStatusReply { state: DingState::EXPIRED, ended_at, next_step_at: none, failed: 2, ..whole() };
        assert!(shown(&over)[0].ends_with("2 could not be reached"));
        assert!(shown(&over)[1].ends_with("22:13:20, over 2023-11-14 23:13:20"));
    }

    #[test]
    fn the_plan_says_what_began_when() {
        let attempts =
            [attempt(0, Outlet::APP, 0), attempt(0, Outlet::APP, 60_000), attempt(STEP_REMINDER, Outlet::SMS, 90_000)];
        let plan = Plan::new(&whole(), &attempts);
        let rows = plan.rows(&TimeZone::UTC);
        assert_eq!(rows[0], ["1", "app", "at once, 3 times, every 1m", "2 times, last 2023-11-14 22:14:20"]);
        assert_eq!(rows[1], ["2", "phone", "after 3m", "-"]);
        assert_eq!(rows[2], ["reminder", "sms", "by hand", "2023-11-14 22:14:50"]);
        let object = object(DingId(7), &whole(), "alice", &plan);
        assert_eq!(object["plan"][0]["began_at"].as_array().map(Vec::len), Some(2));
        assert_eq!((&object["plan"][2]["step"], &object["ended_at"]), (&Value::Null, &Value::Null));
    }
}
