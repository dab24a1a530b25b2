//! `carillon ding status`: how a DING stands.

mod whole;

use carillon_client::{DingEntry, DingId, DingState, DingStates, DingStatusReply, Outlet, Timestamp, UserId};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::parse::{outlet_name, parse_state, state_name};
use super::{attempts, list, wait};
use crate::cli::failure::Failure;
use crate::cli::names::{page_after, parse_ding};
use crate::cli::out::Out;
use crate::cli::progress::{Progress, Unit};
use crate::cli::session::{As, Session, Use};
use crate::cli::table::Table;
use crate::cli::time::{local, rfc3339};
use carillon::report::escape;

/// Recipients asked for at once.
const PAGE: u16 = 1_000;

/// Show how a DING stands: its plan, who has it and who has confirmed; without a number, the DINGs you have sent
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon ding status --user alice                 the DINGs alice has sent
  carillon ding status --user alice 7
  carillon ding status --user alice 7 --count       without the recipients
  carillon ding status --user alice 7 --state sent,delivered
  carillon ding status --user alice 7 --attempts bob
  carillon ding status --user alice 7 --watch       then tell what comes, as `ding send --wait` does

Its sender may ask, and admins and services.

With --json, one object; `users` is there unless only the counts are asked for, and times that are not yet are null:
  {\"ding\":\"7\",\"sender\":\"alice\",\"state\":\"sent\",\"time\":\"…\",\"starts_at\":\"…\",\"sent_at\":\"…\",
   \"expires_at\":\"…\",\"ended_at\":null,\"next_step_at\":\"…\",\"recipients\":2,\"delivered\":1,
   \"confirmed\":1,\"failed\":0,\"attempts\":2,
   \"plan\":[{\"step\":1,\"outlet\":\"app\",\"after_ms\":0,\"times\":1,\"every_ms\":0,\"began_at\":[\"…\"]},…],
   \"users\":[{\"user\":\"bob\",\"state\":\"confirmed\",\"delivered_at\":\"…\",\"confirmed_at\":\"…\",
             \"via\":\"app\",\"attempts\":0},…]}
State is scheduled, sent, delivered, confirmed, expired, recalled or failed. Without a number, an object a DING; with
--attempts, one with a list of `attempts`: step (null: a reminder), outlet, began_at, state, time, detail, cancel.")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Which, by the number that `ding send` prints
    #[arg(value_parser = parse_ding)]
    ding: Option<DingId>,
    /// How many alone, not who
    #[arg(long, requires = "ding")]
    count: bool,
    /// Only recipients in these states
    #[arg(long = "state", value_name = "STATE,…", value_delimiter = ',', value_parser = parse_state, requires = "ding", conflicts_with = "count")]
    states: Vec<DingState>,
    /// Every attempt to reach this recipient
    #[arg(long, value_name = "HANDLE", requires = "ding", conflicts_with_all = ["count", "states", "watch"])]
    attempts: Option<String>,
    /// Then tell what comes, until all have confirmed
    #[arg(long, visible_alias = "wait", requires = "ding")]
    watch: bool,
    /// Print objects
    #[arg(long)]
    json: bool,
}

/// What is shown of a DING.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Which recipients.
    states: DingStates,
    /// As an object.
    json: bool,
}

/// A recipient, by handle.
type Recipient = (String, DingEntry);

/// Runs the command.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, ding, count, states, attempts, watch, json } = args;
    let mut out = Out::new();
    let Some(ding) = ding else {
        return who.ask(Use::Ask).await?.through(async |session| list::show(session, json, &mut out).await).await;
    };
    if let Some(handle) = attempts {
        let asking = who.ask(Use::Ask).await?;
        return asking.through(async |session| attempts::show(session, ding, &handle, json, &mut out).await).await;
    }
    let states = match (count, states.is_empty()) {
        (true, _) => DingStates::NONE,
        (false, true) => DingStates::ALL,
        (false, false) => states.into_iter().collect(),
    };
    let form = Form { states, json };
    if !watch {
        return who.ask(Use::Ask).await?.through(async |session| show(session, ding, form, &mut out).await).await;
    }
    wait::until_over(who, json, async |session| {
        show(session, ding, form, &mut out).await?;
        Ok(ding)
    })
    .await
}

/// Asks for one page.
async fn ask(session: &Session, ding: DingId, states: DingStates, from: UserId) -> Result<DingStatusReply, Failure> {
    let status = session.client.ding_status(ding, states, from, PAGE).await;
    status.map_err(|error| Failure::request(&format!("asking about DING {ding}"), error))
}

/// Prints how a DING stands.
async fn show(session: &mut Session, ding: DingId, form: Form, out: &mut Out) -> Result<(), Failure> {
    let patience = session.patience();
    let asked = patience.wait(async {
        let whole = ask(session, ding, DingStates::NONE, UserId(0)).await?;
        let sender = session.names.handle(whole.sender).await?;
        let witness = witness(session, ding, &whole).await?;
        let attempts = match witness {
            Some(user) => attempts::ask(session, ding, user).await?,
            None => Vec::new(),
        };
        Ok((whole, sender, attempts))
    });
    let (whole, sender, attempts) = asked.await?;
    let plan = whole::Plan::new(&whole, &attempts);
    let recipients = match form.states {
        DingStates::NONE => None,
        states => Some(recipients(session, ding, states, whole.recipients).await?),
    };
    if form.json {
        let mut object = whole::object(ding, &whole, &sender, &plan);
        if let Some(recipients) = &recipients {
            object["users"] = recipients.iter().map(user_object).collect();
        }
        out.json(&object)?;
        return Ok(out.flush()?);
    }
    let zone = TimeZone::system();
    for line in whole::lines(ding, &whole, &escape(&sender), &zone) {
        out.line(line)?;
    }
    plan.show(&zone, out)?;
    let mut table = Table::new(&["USER", "STATE", "HAS IT SINCE", "CONFIRMED AT", "VIA", "OTHER ATTEMPTS"]);
    for (handle, entry) in recipients.iter().flatten() {
        table.row(cells(handle, entry, &zone), out)?;
    }
    table.end(out)?;
    Ok(out.flush()?)
}

/// A recipient that all attempts were made to reach: one who has not confirmed or, if all have, any of those.
async fn witness(session: &Session, ding: DingId, whole: &DingStatusReply) -> Result<Option<UserId>, Failure> {
    if whole.attempts == 0 {
        return Ok(None);
    }
    let states = if whole.confirmed < whole.recipients { DingStates::UNCONFIRMED } else { DingStates::ALL };
    let page = ask(session, ding, states, UserId(0)).await?;
    let last = page.entries.iter().max_by_key(|entry| (entry.confirmed_at == Timestamp(0), entry.confirmed_at));
    Ok(last.map(|entry| entry.user))
}

/// All recipients in these states, by user.
async fn recipients(
    session: &mut Session,
    ding: DingId,
    states: DingStates,
    total: u32,
) -> Result<Vec<Recipient>, Failure> {
    let patience = session.patience();
    let progress = Progress::new("asking", Some(total.into()), Unit::Things("recipients"));
    let mut recipients = Vec::new();
    let mut next = Some(UserId(0));
    while let Some(from) = next {
        let page = patience.wait(async {
            let page = ask(session, ding, states, from).await?;
            let users: Vec<_> = page.entries.iter().map(|entry| entry.user).collect();
            Ok((session.names.handles(&users).await?, page))
        });
        let (handles, page) = page.await?;
        next = page_after(from, page.next);
        recipients.extend(handles.into_iter().zip(page.entries));
        progress.at(recipients.len() as u64);
    }
    Ok(recipients)
}

/// A time that may not have come.
fn time(time: Timestamp, zone: &TimeZone) -> String {
    if time == Timestamp(0) { "-".to_owned() } else { local(time, zone) }
}

fn time_value(time: Timestamp) -> Option<String> {
    (time != Timestamp(0)).then(|| rfc3339(time))
}

fn cells(handle: &str, entry: &DingEntry, zone: &TimeZone) -> [String; 6] {
    let DingEntry { state, attempts, via, delivered_at, confirmed_at, .. } = *entry;
    [
        escape(handle).into_owned(),
        state_name(state).to_owned(),
        time(delivered_at, zone),
        time(confirmed_at, zone),
        if via == Outlet(0) { "-".to_owned() } else { outlet_name(via) },
        attempts.to_string(),
    ]
}

fn user_object((handle, entry): &Recipient) -> Value {
    json!({
        "user": handle,
        "state": state_name(entry.state),
        "delivered_at": time_value(entry.delivered_at),
        "confirmed_at": time_value(entry.confirmed_at),
        "via": (entry.via != Outlet(0)).then(|| outlet_name(entry.via)),
        "attempts": entry.attempts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_shown_of_one_ding_needs_its_number() {
        let parse = |line: &str| Line::try_parse_from(std::iter::once("status").chain(line.split_whitespace()));
        assert_eq!(parse("").unwrap().args.ding, None);
        let args = parse("7 --state sent,delivered --wait").unwrap().args;
        assert_eq!((args.ding, args.watch), (Some(DingId(7)), true));
        assert_eq!(args.states, [DingState::SENT, DingState::DELIVERED]);
        for wrong in ["--count", "--watch", "--state sent", "7 --state open", "7 --count --state sent"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("7 --attempts bob").is_ok() && parse("7 --attempts bob --watch").is_err());
    }

    #[test]
    fn what_has_not_happened_is_a_dash_or_null() {
        let entry = DingEntry {
            user: UserId(8),
            state: DingState::DELIVERED,
            attempts: 2,
            via: Outlet(0),
            delivered_at: Timestamp(1_700_000_000_000),
            confirmed_at: Timestamp(0),
        };
        let row = cells("bob\u{7}", &entry, &TimeZone::UTC);
        assert_eq!(row, ["bob\\u{7}", "delivered", "2023-11-14 22:13:20", "-", "-", "2"]);
        let object = user_object(&("bob".to_owned(), entry));
        assert_eq!((&object["confirmed_at"], &object["via"]), (&Value::Null, &Value::Null));
        let via = DingEntry { via: Outlet::PHONE, confirmed_at: Timestamp(1), ..entry };
        assert_eq!(user_object(&("bob".to_owned(), via))["via"], "phone");
    }
}
