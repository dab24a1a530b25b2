//! `carillon ding send`: a DING is made.

use std::time::{Duration, SystemTime};

use carillon_client::{Ding, DingCreated, MessageKind, Outlet, Recipients, Seq, Starts, Step};
use clap::ArgGroup;
use jiff::tz::TimeZone;
use serde_json::json;

use super::parse::{parse_message, parse_step};
use super::wait;
use crate::cli::failure::Failure;
use crate::cli::out::Out;
use crate::cli::session::{As, Session, Use};
use crate::cli::time::{local, parse_duration, parse_time, rfc3339};

/// Send a DING
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("recipients").required(true), after_help = "\
Examples:
  carillon ding send --user alice --to bob,carol 'fire drill at noon'
  carillon ding send --user alice --conversation tour 'gate 7' --expires 10m --wait
  carillon ding send --user alice --to bob --about tour:3 --in 30m --step app:0:1mx10 --step sms:60s --step phone:3m:5mx3

It rings on every device of each recipient, and goes on by its plan until it is confirmed or expires. A step begins AFTER its start by an outlet (app, sms, phone, mail, push, or a number from 64 on), and TIMES in all, EVERY so often. Without --step it has the plan of its tenant; with it, one step must be by the app. What outlets there are, and what a plan may ask of them, is in the broker's configuration.

With --wait the command ends when all have confirmed (exit code 0), or when it is over without that (1).

With --json:
  {\"event\":\"ding_created\",\"ding\":\"7\",\"recipients\":2,\"starts_at\":\"…\",\"expires_at\":\"…\"}
and with --wait what comes of it, in the form of `sub --json`: ding_update for each confirmation, ding_progress for the counts.")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    #[command(flatten)]
    order: Order,
    /// Wait until all have confirmed
    #[arg(long)]
    wait: bool,
    /// Print objects
    #[arg(long)]
    json: bool,
}

/// A DING as it is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// To these users
    #[arg(long, value_delimiter = ',', value_name = "HANDLE,…", group = "recipients")]
    to: Vec<String>,
    /// To the members of this conversation, as they are now
    #[arg(long, value_name = "ID|NAME", group = "recipients")]
    conversation: Option<String>,
    /// What it says
    #[arg(required_unless_present = "about")]
    text: Option<String>,
    /// The message it is about, which all of them must be able to read
    #[arg(long, value_name = "CONVERSATION:SEQ", value_parser = parse_message)]
    about: Option<(String, Seq)>,
    /// When it starts: 18:30 (the next one), '2026-12-24 18:30', or with a zone, 2026-12-24T18:30:00Z; default: now
    #[arg(long, value_name = "WHEN", value_parser = parse_time, conflicts_with = "within")]
    at: Option<SystemTime>,
    /// How long until it starts
    #[arg(long = "in", id = "within", value_name = "TIME", value_parser = parse_duration)]
    within: Option<Duration>,
    /// When it gives up, from its start; default: as the tenant has it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// One step of its plan; once for each
    #[arg(long = "step", value_name = "OUTLET:AFTER[:EVERYxTIMES]", value_parser = parse_step)]
    steps: Vec<Step>,
    /// In quiet hours too, if the tenant allows it
    #[arg(long)]
    override_quiet: bool,
}

impl Order {
    /// Refuses what no broker takes, before it is asked.
    fn check(&self) -> Result<(), Failure> {
        if !self.steps.is_empty() && !self.steps.iter().any(|step| step.outlet == Outlet::APP) {
            let text = "one step of a plan must be by the app, as devices show it in any case: add --step app:0";
            return Err(Failure::usage(text));
        }
        Ok(())
    }

    async fn send(self, session: &Session) -> Result<DingCreated, Failure> {
        let recipients = match &self.conversation {
            Some(conversation) => Recipients::Conversation(session.names.conversation(conversation).await?),
            None => Recipients::Users(session.names.users(&self.to).await?),
        };
        let about = match &self.about {
            Some((conversation, seq)) => Some((session.names.conversation(conversation).await?, *seq)),
            None => None,
        };
        let ding = Ding { about, ..self.ding(recipients) };
        session.client.ding(ding).await.map_err(|error| Failure::request("sending the DING", error))
    }

    fn ding(self, recipients: Recipients) -> Ding {
        let ding = Ding::new(recipients, MessageKind::TEXT, self.text.unwrap_or_default());
        let starts = match (self.at, self.within) {
            (Some(time), _) => Starts::At(time),
            (None, Some(delay)) => Starts::After(delay),
            (None, None) => Starts::Now,
        };
        let ding = Ding { starts, expires_after: self.expires, steps: self.steps, ..ding };
        if self.override_quiet { ding.override_quiet_hours() } else { ding }
    }

    fn is_scheduled(&self) -> bool {
        self.at.is_some() || self.within.is_some()
    }
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, order, wait, json } = args;
    order.check()?;
    let is_scheduled = order.is_scheduled();
    let mut out = Out::new();
    if !wait {
        let created = who.ask(Use::Ask).await?.within(async |session| order.send(session).await).await?;
        return print(&created, is_scheduled, json, &mut out);
    }
    wait::until_over(who, json, async |session| {
        let created = session.patience().wait(order.send(session)).await?;
        print(&created, is_scheduled, json, &mut out)?;
        Ok(created.ding)
    })
    .await
}

fn print(created: &DingCreated, is_scheduled: bool, json: bool, out: &mut Out) -> Result<(), Failure> {
    let DingCreated { ding, recipients, starts_at, expires_at, .. } = *created;
    if json {
        out.json(&json!({
            "event": "ding_created",
            "ding": ding.to_string(),
            "recipients": recipients,
            "starts_at": rfc3339(starts_at),
            "expires_at": rfc3339(expires_at),
        }))?;
        return Ok(out.flush()?);
    }
    let users = if recipients == 1 { "user" } else { "users" };
    if is_scheduled {
        let starts = local(starts_at, &TimeZone::system());
        out.line(format_args!("DING {ding} will ring {recipients} {users}, from {starts} on"))?;
    } else {
        out.line(format_args!("DING {ding} rings {recipients} {users}"))?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::QuietHours;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn order(line: &str) -> Result<Order, clap::Error> {
        let line = Line::try_parse_from(std::iter::once("send").chain(line.split(' ')));
        line.map(|line| line.args.order)
    }

    fn ding(line: &str) -> Ding {
        order(line).unwrap().ding(Recipients::Users(Vec::new()))
    }

    #[test]
    fn a_line_becomes_a_ding() {
        let bare = ding("--to bob fire");
        assert_eq!(bare, Ding::new(Recipients::Users(Vec::new()), MessageKind::TEXT, "fire"));
        let full = ding("--to bob fire --in 30m --expires 1h --step app:0 --step sms:60s --override-quiet");
        assert_eq!(full.starts, Starts::After(Duration::from_mins(30)));
        assert_eq!((full.expires_after, full.quiet), (Some(Duration::from_hours(1)), QuietHours::OVERRIDE));
        let outlets: Vec<_> = full.steps.iter().map(|step| step.outlet).collect();
        assert_eq!(outlets, [Outlet::APP, Outlet::SMS]);
        assert_eq!(order("--to bob --about tour:3").unwrap().about, Some(("tour".to_owned(), Seq(3))));
    }

    #[test]
    fn what_makes_no_ding_is_refused_before_the_broker_is_asked() {
        for wrong in ["fire", "--to bob", "--to bob --conversation tour fire", "--to bob fire --at 18:30 --in 5m"] {
            assert!(order(wrong).is_err(), "{wrong}");
        }
        assert!(order("--to bob fire --step sms:60s").unwrap().check().is_err(), "nothing by the app");
        assert!(order("--to bob fire --step sms:60s --step app:0").unwrap().check().is_ok());
        assert!(order("--to bob fire").unwrap().check().is_ok(), "the tenant's plan");
    }
}
