//! `carillon ding status`: who has confirmed.

use carillon_client::{DingId, DingState, DingStatusReply, StatusList, Timestamp, UserId};
use jiff::tz::TimeZone;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::names::page_after;
use crate::cli::out::Out;
use crate::cli::progress::{Progress, Unit};
use crate::cli::session::Session;
use crate::cli::show::state_name;
use crate::cli::table::Table;
use crate::cli::time::{local, rfc3339};
use carillon::report::escape;

/// Recipients asked for at once.
const PAGE: u16 = 1_000;

/// One recipient.
struct Recipient {
    handle: String,
    state: DingState,
    since: Timestamp,
}

/// Asks for one page.
pub(super) async fn ask(
    session: &Session,
    ding: DingId,
    list: StatusList,
    from: UserId,
) -> Result<DingStatusReply, Failure> {
    let status = session.client.ding_status(ding, list, from, PAGE).await;
    status.map_err(|error| Failure::request(&format!("asking about DING {ding}"), error))
}

/// Asks how a DING stands as a whole.
pub(super) async fn ask_whole(session: &Session, ding: DingId) -> Result<DingStatusReply, Failure> {
    ask(session, ding, StatusList::COUNTS, UserId(0)).await
}

/// How a status is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// The whole alone, not who.
    pub(super) count: bool,
    /// As an object.
    pub(super) json: bool,
}

/// Prints how a DING stands, and returns it.
pub(super) async fn show(
    session: &mut Session,
    ding: DingId,
    form: Form,
    out: &mut Out,
) -> Result<DingStatusReply, Failure> {
    let patience = session.patience();
    let (whole, sender) = patience
        .wait(async {
            let whole = ask_whole(session, ding).await?;
            let sender = session.names.handle(whole.sender).await?;
            Ok((whole, sender))
        })
        .await?;
    let recipients = if form.count { Vec::new() } else { recipients(session, ding, whole.recipients).await? };
    if form.json {
        print_object(ding, &whole, &sender, (!form.count).then_some(&recipients), out)?;
        out.flush()?;
        return Ok(whole);
    }
    let zone = TimeZone::system();
    let (state, sender) = (state_name(whole.state), escape(&sender));
    let (sent, expires) = (local(whole.time, &zone), local(whole.expires_at, &zone));
    out.line(format_args!(
        "DING {ding} of {sender}: {state}, {} of {} have confirmed; sent {sent}, expires {expires}",
        whole.confirmed, whole.recipients
    ))?;
    let mut table = Table::new(&["USER", "STATE", "SINCE"]);
    for Recipient { handle, state, since } in &recipients {
        let cells = [escape(handle).into_owned(), state_name(*state).to_owned(), local(*since, &zone)];
        table.row(cells, out)?;
    }
    table.end(out)?;
    out.flush()?;
    Ok(whole)
}

fn print_object(
    ding: DingId,
    whole: &DingStatusReply,
    sender: &str,
    users: Option<&Vec<Recipient>>,
    out: &mut Out,
) -> Result<(), Failure> {
    let mut object = json!({
        "ding": ding.to_string(),
        "sender": sender,
        "state": state_name(whole.state),
        "time": rfc3339(whole.time),
        "expires_at": rfc3339(whole.expires_at),
        "recipients": whole.recipients,
        "confirmed": whole.confirmed,
    });
    if let Some(users) = users {
        let user = |recipient: &Recipient| json!({ "user": recipient.handle, "state": state_name(recipient.state), "time": rfc3339(recipient.since) });
        object["users"] = users.iter().map(user).collect();
    }
    Ok(out.json(&object)?)
}

/// All recipients: who has confirmed, then who has not.
async fn recipients(session: &mut Session, ding: DingId, total: u32) -> Result<Vec<Recipient>, Failure> {
    let patience = session.patience();
    let progress = Progress::new("asking", Some(total.into()), Unit::Things("recipients"));
    let mut recipients = Vec::new();
    for list in [StatusList::DONE, StatusList::OPEN] {
        let mut next = Some(UserId(0));
        while let Some(from) = next {
            let page = patience.wait(async {
                let page = ask(session, ding, list, from).await?;
                let users: Vec<_> = page.entries.iter().map(|entry| entry.user).collect();
                Ok((session.names.handles(&users).await?, page))
            });
            let (handles, page) = page.await?;
            let named = handles.into_iter().zip(&page.entries);
            recipients.extend(named.map(|(handle, entry)| Recipient { handle, state: entry.state, since: entry.time }));
            progress.at(recipients.len() as u64);
            next = page_after(from, page.next);
        }
    }
    Ok(recipients)
}
