//! `carillon user show`, `sessions` and `kick`: who is online, with what.

use carillon_client::{DeviceId, Session as Live, Timestamp, UserId};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::ADMINISTRATOR;
use crate::cli::failure::Failure;
use crate::cli::out::Out;
use crate::cli::session::{As, Asking, Session, Use};
use crate::cli::table::Table;
use crate::cli::time::{local, rfc3339};
use crate::cli::token::Role;
use carillon::report::escape;

/// Acts as an administrator, unless somebody else is named.
async fn ask(mut who: As) -> Result<Asking, Failure> {
    who.user_or(ADMINISTRATOR)?;
    who.ask_with(Use::Ask, Role::Admin).await
}

async fn sessions(session: &Session, handle: &str, user: UserId) -> Result<Vec<Live>, Failure> {
    let sessions = session.client.sessions(user).await;
    sessions.map_err(|error| Failure::request(&format!("listing the sessions of {handle:?}"), error))
}

/// Prints who a user is and whether they are online.
pub(super) async fn show(who: As, handle: String, json: bool) -> Result<(), Failure> {
    let (user, since, live) = ask(who)
        .await?
        .within(async |session| {
            let user = session.names.user(&handle).await?;
            let since = session.client.presence(&[user]).await;
            let since =
                since.map_err(|error| Failure::request(&format!("asking whether {handle:?} is online"), error))?;
            Ok((user, since.first().copied().flatten(), sessions(session, &handle, user).await?))
        })
        .await?;
    let mut out = Out::new();
    if json {
        let live: Vec<_> = live.iter().map(object).collect();
        let since = since.map(rfc3339);
        out.json(&json!({ "user": handle, "user_id": user.0, "online_since": since, "sessions": live }))?;
        return Ok(out.flush()?);
    }
    let online = |since: Timestamp| format!("online since {}", local(since, &TimeZone::system()));
    let online = since.map_or_else(|| "not online".to_owned(), online);
    out.line(format_args!("{} is user {user}, {online}", escape(&handle)))?;
    print(&live, &mut out)
}

/// Prints the live sessions of a user.
pub(super) async fn list(who: As, handle: String, json: bool) -> Result<(), Failure> {
    let live = ask(who)
        .await?
        .within(async |session| {
            let user = session.names.user(&handle).await?;
            sessions(session, &handle, user).await
        })
        .await?;
    let mut out = Out::new();
    if json {
        live.iter().try_for_each(|live| out.json(&object(live)))?;
        return Ok(out.flush()?);
    }
    if live.is_empty() {
        out.line(format_args!("{} has no session", escape(&handle)))?;
    }
    print(&live, &mut out)
}

/// Ends sessions of a user, and prints how many.
pub(super) async fn kick(who: As, handle: String, device: Option<DeviceId>, json: bool) -> Result<(), Failure> {
    let ended = ask(who)
        .await?
        .within(async |session| {
            let user = session.names.user(&handle).await?;
            let ended = session.client.kick(user, device).await;
            ended.map_err(|error| Failure::request(&format!("ending sessions of {handle:?}"), error))
        })
        .await?;
    let mut out = Out::new();
    if json {
        out.json(&json!({ "user": handle, "sessions": ended }))?;
    } else {
        let sessions = if ended == 1 { "session" } else { "sessions" };
        out.line(format_args!("{ended} {sessions} of {} ended", escape(&handle)))?;
    }
    Ok(out.flush()?)
}

fn object(live: &Live) -> Value {
    json!({
        "device": live.device.to_string(),
        "producer": live.producer.map(|producer| producer.to_string()),
        "edge": live.edge,
        "since": rfc3339(live.since),
        "client": live.client,
        "address": live.address,
    })
}

fn print(live: &[Live], out: &mut Out) -> Result<(), Failure> {
    let zone = TimeZone::system();
    let mut table = Table::new(&["DEVICE", "SINCE", "EDGE", "ADDRESS", "CLIENT"]);
    for live in live {
        let (address, client) = (escape(&live.address).into_owned(), escape(&live.client).into_owned());
        let cells = [live.device.to_string(), local(live.since, &zone), live.edge.to_string(), address, client];
        table.row(cells, out)?;
    }
    table.end(out)?;
    Ok(out.flush()?)
}
