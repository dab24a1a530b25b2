//! `carillon ding`: urgent pushes that must be confirmed.

mod attempts;
mod list;
mod parse;
mod send;
mod status;
mod wait;

use carillon_client::{DingId, Outlet};
use clap::Subcommand;
use jiff::tz::TimeZone;
use serde_json::json;

use super::failure::Failure;
use super::names::parse_ding;
use super::out::Out;
use super::session::{As, Use};
use super::time::{local, rfc3339};
pub(super) use parse::{outlet_name, state_name};

/// Send, confirm, watch and recall DINGs: urgent pushes that ring until everyone has confirmed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Send(send::Args),
    Status(status::Args),
    /// Confirm a DING
    #[command(after_help = "\
Example:
  carillon ding confirm --user bob 7

With --json: {\"ding\":\"7\",\"time\":\"…\"}, the time when it was first confirmed.")]
    Confirm {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `sub` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// Remind those who have not confirmed a DING, now
    #[command(after_help = "\
Examples:
  carillon ding remind --user alice 7
  carillon ding remind --user alice 7 --by sms

Its sender may, and admins and services. The plan goes on as it was. With --json: {\"ding\":\"7\",\"recipients\":2,\"by\":\"app\"}")]
    Remind {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `ding send` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
        /// By which outlet: app, sms, phone, mail, push, or a number from 64 on
        #[arg(long, value_name = "OUTLET", default_value = "app", value_parser = parse::parse_outlet)]
        by: Outlet,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// Take a DING back: it rings no more
    #[command(after_help = "\
Example:
  carillon ding recall --user alice 7

Its sender may, and admins and services. To recall it once more does no harm. With --json: {\"ding\":\"7\"}")]
    Recall {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `ding send` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Send(args) => send::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Confirm { who, ding, json } => confirm(who, ding, json).await,
        Command::Remind { who, ding, by, json } => remind(who, ding, by, json).await,
        Command::Recall { who, ding, json } => recall(who, ding, json).await,
    }
}

async fn confirm(who: As, ding: DingId, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let time = asking
        .within(async |session| {
            let confirmed = session.client.confirm(ding).await;
            confirmed.map_err(|error| Failure::request(&format!("confirming DING {ding}"), error))
        })
        .await?;
    let mut out = Out::new();
    if json {
        out.json(&json!({ "ding": ding.to_string(), "time": rfc3339(time) }))?;
    } else {
        out.line(format_args!("DING {ding} confirmed at {}", local(time, &TimeZone::system())))?;
    }
    Ok(out.flush()?)
}

async fn remind(who: As, ding: DingId, by: Outlet, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let recipients = asking
        .within(async |session| {
            let reminded = session.client.remind_ding(ding, by).await;
            reminded.map_err(|error| Failure::request(&format!("reminding of DING {ding}"), error))
        })
        .await?;
    let (by, mut out) = (outlet_name(by), Out::new());
    if json {
        out.json(&json!({ "ding": ding.to_string(), "recipients": recipients, "by": by }))?;
    } else {
        let users = if recipients == 1 { "user is" } else { "users are" };
        out.line(format_args!("{recipients} {users} reminded of DING {ding} by {by}"))?;
    }
    Ok(out.flush()?)
}

async fn recall(who: As, ding: DingId, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    asking
        .within(async |session| {
            let recalled = session.client.recall_ding(ding).await;
            recalled.map_err(|error| Failure::request(&format!("recalling DING {ding}"), error))
        })
        .await?;
    let mut out = Out::new();
    if json {
        out.json(&json!({ "ding": ding.to_string() }))?;
    } else {
        out.line(format_args!("DING {ding} rings no more"))?;
    }
    Ok(out.flush()?)
}
