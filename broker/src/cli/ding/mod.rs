//! `carillon ding`: urgent pushes that must be confirmed.

mod status;
mod wait;

use std::time::Duration;

use carillon_client::{Ding, DingCreated, DingId, MessageKind, Recipients};
use clap::{ArgGroup, Subcommand};
use jiff::tz::TimeZone;
use serde_json::json;

use super::failure::Failure;
use super::names::parse_ding;
use super::out::Out;
use super::session::{As, Session, Use};
use super::time::{local, parse_duration, rfc3339};
use status::Form;

/// Send, confirm, watch and recall DINGs: urgent pushes that ring until everyone has confirmed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a DING
    #[command(group = ArgGroup::new("recipients").required(true), after_help = "\
Examples:
  carillon ding send --user alice --to bob,carol 'fire drill at noon'
  carillon ding send --user alice --conversation tour 'gate 7' --expires 10m --repeat 30s --wait

It rings on every device of each recipient, again and again until it is confirmed or expires. With --wait the command ends when all have confirmed (exit code 0), or when it is over without that (1).

With --json:
  {\"event\":\"ding_created\",\"ding\":\"7\",\"recipients\":2}
and with --wait an object for each confirmation, in the form of `sub --json`:
  {\"event\":\"ding_update\",\"ding\":\"7\",\"user\":\"bob\",\"state\":\"confirmed\",
   \"confirmed\":1,\"recipients\":2,\"time\":\"…\"}")]
    Send {
        #[command(flatten)]
        who: As,
        /// To these users
        #[arg(long, value_delimiter = ',', value_name = "HANDLE,…", group = "recipients")]
        to: Vec<String>,
        /// To the members of this conversation, as they are now
        #[arg(long, value_name = "ID|NAME", group = "recipients")]
        conversation: Option<String>,
        /// What it says
        text: String,
        /// When it gives up
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
        expires: Duration,
        /// How often it rings; 0s: only when a device connects
        #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
        repeat: Duration,
        /// Wait until all have confirmed
        #[arg(long)]
        wait: bool,
        /// Print objects
        #[arg(long)]
        json: bool,
    },
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
    /// Show who has confirmed a DING, to its sender
    #[command(after_help = "\
Examples:
  carillon ding status --user alice 7
  carillon ding status --user alice 7 --count --json
  carillon ding status --user alice 7 --wait        then tell who confirms, as `ding send --wait` does

With --json, one object; without `users` if only the counts are asked for:
  {\"ding\":\"7\",\"sender\":\"alice\",\"state\":\"open\",\"time\":\"…\",\"expires_at\":\"…\",
   \"recipients\":2,\"confirmed\":1,\"users\":[{\"user\":\"bob\",\"state\":\"confirmed\",\"time\":\"…\"},…]}
State is open, confirmed, expired or recalled.")]
    Status {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `ding send` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
        /// How many alone, not who
        #[arg(long)]
        count: bool,
        /// Then wait until all have confirmed
        #[arg(long, visible_alias = "watch")]
        wait: bool,
        /// Print objects
        #[arg(long)]
        json: bool,
    },
    /// Take a DING back: it rings no more
    #[command(after_help = "\
Example:
  carillon ding recall --user alice 7

Only its sender may. To recall it once more does no harm. With --json: {\"ding\":\"7\"}")]
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
        Command::Send { who, to, conversation, text, expires, repeat, wait, json } => {
            let order = Order { to, conversation, text, expires, repeat };
            if wait { send_and_wait(who, order, json).await } else { send(who, order, json).await }
        }
        Command::Confirm { who, ding, json } => confirm(who, ding, json).await,
        Command::Status { who, ding, count, wait, json } => {
            let form = Form { count, json };
            if wait { status_and_wait(who, ding, form).await } else { show_status(who, ding, form).await }
        }
        Command::Recall { who, ding, json } => recall(who, ding, json).await,
    }
}

/// A DING as it was asked for.
struct Order {
    to: Vec<String>,
    conversation: Option<String>,
    text: String,
    expires: Duration,
    repeat: Duration,
}

impl Order {
    async fn send(self, session: &Session) -> Result<DingCreated, Failure> {
        let recipients = match self.conversation {
            Some(conversation) => Recipients::Conversation(session.names.conversation(&conversation).await?),
            None => Recipients::Users(session.names.users(&self.to).await?),
        };
        let mut ding = Ding::new(recipients, MessageKind::TEXT, self.text);
        ding.expires_after = self.expires;
        ding.repeat_every = Some(self.repeat).filter(|every| !every.is_zero());
        session.client.ding(ding).await.map_err(|error| Failure::request("sending the DING", error))
    }
}

fn print_created(created: &DingCreated, json: bool, out: &mut Out) -> Result<(), Failure> {
    let DingCreated { ding, recipients, .. } = *created;
    if json {
        out.json(&json!({ "event": "ding_created", "ding": ding.to_string(), "recipients": recipients }))?;
    } else {
        out.line(format_args!("DING {ding} rings {recipients} {}", if recipients == 1 { "user" } else { "users" }))?;
    }
    Ok(out.flush()?)
}

async fn send(who: As, order: Order, json: bool) -> Result<(), Failure> {
    let created = who.ask(Use::Ask).await?.within(async |session| order.send(session).await).await?;
    print_created(&created, json, &mut Out::new())
}

async fn send_and_wait(who: As, order: Order, json: bool) -> Result<(), Failure> {
    let mut out = Out::new();
    wait::until_over(who, json, async |session| {
        let created = session.patience().wait(order.send(session)).await?;
        print_created(&created, json, &mut out)?;
        Ok(created.ding)
    })
    .await
}

async fn show_status(who: As, ding: DingId, form: Form) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    asking.through(async |session| status::show(session, ding, form, &mut Out::new()).await.map(drop)).await
}

async fn status_and_wait(who: As, ding: DingId, form: Form) -> Result<(), Failure> {
    wait::until_over(who, form.json, async |session| {
        status::show(session, ding, form, &mut Out::new()).await?;
        Ok(ding)
    })
    .await
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
