//! What was tried to reach a recipient of a DING, and what became of it.

use carillon_client::{AttemptState, CancelState, DingAttempt, DingId, STEP_REMINDER, UserId};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::parse::outlet_name;
use crate::cli::failure::Failure;
use crate::cli::out::Out;
use crate::cli::session::Session;
use crate::cli::table::Table;
use crate::cli::time::{local, rfc3339};
use carillon::report::escape;

/// Asks for every attempt to reach a recipient.
pub(super) async fn ask(session: &Session, ding: DingId, user: UserId) -> Result<Vec<DingAttempt>, Failure> {
    let attempts = session.client.ding_attempts(ding, user).await;
    attempts.map_err(|error| Failure::request(&format!("asking about the attempts of DING {ding}"), error))
}

/// Prints them.
pub(super) async fn show(
    session: &mut Session,
    ding: DingId,
    handle: &str,
    json: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let patience = session.patience();
    let asked = patience.wait(async {
        let user = session.names.user(handle).await?;
        ask(session, ding, user).await
    });
    let attempts = asked.await?;
    if json {
        let attempts: Vec<_> = attempts.iter().map(object).collect();
        out.json(&json!({ "ding": ding.to_string(), "user": handle, "attempts": attempts }))?;
        return Ok(out.flush()?);
    }
    let (handle, count) = (escape(handle), attempts.len());
    out.line(format_args!(
        "DING {ding}, {count} {} to reach {handle}",
        if count == 1 { "attempt" } else { "attempts" }
    ))?;
    let headings = ["STEP", "OUTLET", "BEGAN", "STATE", "SINCE", "DETAIL", "CANCEL"];
    let (mut table, zone) = (Table::new(&headings), TimeZone::system());
    for attempt in &attempts {
        table.row(cells(attempt, &zone), out)?;
    }
    table.end(out)?;
    Ok(out.flush()?)
}

fn cells(attempt: &DingAttempt, zone: &TimeZone) -> [String; 7] {
    let DingAttempt { step, outlet, started_at, state, cancel, detail, time, .. } = *attempt;
    [
        step_name(step),
        outlet_name(outlet),
        local(started_at, zone),
        attempt_state_name(state).to_owned(),
        local(time, zone),
        if detail == 0 { "-".to_owned() } else { detail.to_string() },
        cancel_name(cancel).to_owned(),
    ]
}

fn object(attempt: &DingAttempt) -> Value {
    let DingAttempt { attempt, step, outlet, started_at, state, cancel, detail, time } = *attempt;
    json!({
        "attempt": attempt,
        "step": (step != STEP_REMINDER).then_some(u16::from(step) + 1),
        "outlet": outlet_name(outlet),
        "began_at": rfc3339(started_at),
        "state": attempt_state_name(state),
        "time": rfc3339(time),
        "detail": detail,
        "cancel": cancel_name(cancel),
    })
}

/// Steps are counted from 1, as people do.
pub(super) fn step_name(step: u8) -> String {
    if step == STEP_REMINDER { "reminder".to_owned() } else { (u16::from(step) + 1).to_string() }
}

fn attempt_state_name(state: AttemptState) -> &'static str {
    match state {
        AttemptState::STARTED => "started",
        AttemptState::ACCEPTED => "accepted",
        AttemptState::FAILED => "failed",
        AttemptState::DELIVERED => "delivered",
        AttemptState::ANSWERED => "answered",
        _ => "other",
    }
}

fn cancel_name(cancel: CancelState) -> &'static str {
    match cancel {
        CancelState::NONE => "-",
        CancelState::DUE => "due",
        CancelState::DONE => "done",
        CancelState::GAVE_UP => "gave up",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::{Outlet, Timestamp};

    #[test]
    fn an_attempt_is_a_row_and_an_object() {
        let attempt = DingAttempt {
            attempt: 4,
            step: 1,
            outlet: Outlet::SMS,
            started_at: Timestamp(1_700_000_000_000),
            state: AttemptState::FAILED,
            cancel: CancelState::NONE,
            detail: 503,
            time: Timestamp(1_700_000_004_000),
        };
        let (began, since) = ("2023-11-14 22:13:20", "2023-11-14 22:13:24");
        assert_eq!(cells(&attempt, &TimeZone::UTC), ["2", "sms", began, "failed", since, "503", "-"]);
        assert_eq!((&object(&attempt)["step"], &object(&attempt)["attempt"]), (&json!(2), &json!(4)));
        let reminder = DingAttempt { step: STEP_REMINDER, detail: 0, cancel: CancelState::GAVE_UP, ..attempt };
        let cells = cells(&reminder, &TimeZone::UTC);
        assert_eq!([&cells[0], &cells[5], &cells[6]], ["reminder", "-", "gave up"]);
        assert_eq!(object(&reminder)["step"], Value::Null);
    }
}
