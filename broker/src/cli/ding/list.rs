//! `carillon ding status` without a number: the DINGs that one has sent.

use carillon_client::{DingId, DingSummary};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::parse::state_name;
use crate::cli::failure::Failure;
use crate::cli::out::Out;
use crate::cli::session::Session;
use crate::cli::table::Table;
use crate::cli::time::{local, rfc3339};

/// DINGs asked for at once.
const PAGE: u16 = 1_000;

/// Prints the DINGs that this user has sent, the newest first, a page at a time.
pub(super) async fn show(session: &mut Session, json: bool, out: &mut Out) -> Result<(), Failure> {
    let patience = session.patience();
    let headings = ["DING", "STATE", "STARTS", "EXPIRES", "TO", "HAVE IT", "CONFIRMED", "FAILED"];
    let (mut table, zone) = (Table::new(&headings), TimeZone::system());
    let (mut before, mut count) = (None, 0);
    loop {
        let page = patience.wait(async {
            let page = session.client.sent_dings(before, PAGE).await;
            page.map_err(|error| Failure::request("listing the DINGs you have sent", error))
        });
        let page = page.await?;
        for summary in &page.entries {
            count += 1;
            if json { out.json(&object(summary))? } else { table.row(cells(summary, &zone), out)? }
        }
        // A page that does not go on is the last: it would be asked for without end.
        let goes_on = page.next != DingId(0) && before.is_none_or(|before| page.next < before);
        if !goes_on {
            break;
        }
        before = Some(page.next);
    }
    table.end(out)?;
    if count == 0 && !json {
        out.line("no DING of yours is kept: `carillon ding send` sends one; one that is over is kept for a week")?;
    }
    Ok(out.flush()?)
}

fn cells(summary: &DingSummary, zone: &TimeZone) -> [String; 8] {
    let DingSummary { ding, state, starts_at, expires_at, recipients, delivered, confirmed, failed } = *summary;
    [
        ding.to_string(),
        state_name(state).to_owned(),
        local(starts_at, zone),
        local(expires_at, zone),
        recipients.to_string(),
        (delivered + confirmed).to_string(),
        confirmed.to_string(),
        failed.to_string(),
    ]
}

fn object(summary: &DingSummary) -> Value {
    json!({
        "ding": summary.ding.to_string(),
        "state": state_name(summary.state),
        "starts_at": rfc3339(summary.starts_at),
        "expires_at": rfc3339(summary.expires_at),
        "recipients": summary.recipients,
        "delivered": summary.delivered,
        "confirmed": summary.confirmed,
        "failed": summary.failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::{DingState, Timestamp};

    #[test]
    fn who_has_confirmed_has_it() {
        let summary = DingSummary {
            ding: DingId(7),
            state: DingState::SENT,
            starts_at: Timestamp(1_700_000_000_000),
            expires_at: Timestamp(1_700_000_060_000),
            recipients: 9,
            delivered: 3,
            confirmed: 2,
            failed: 0,
        };
        let cells = cells(&summary, &TimeZone::UTC);
        assert_eq!(cells[..3], ["7", "sent", "2023-11-14 22:13:20"]);
        assert_eq!(cells[4..], ["9", "5", "2", "0"]);
        assert_eq!(object(&summary)["delivered"], 3, "and has not confirmed");
    }
}
