//! `carillon ding`: urgent pushes that must be confirmed.

use std::time::Duration;

use carillon_client::{
    Ding, DingId, DingState, DingStatusReply, Event, Events, MessageKind, Recipients, StatusList, UserId,
};
use clap::{ArgGroup, Subcommand};
use jiff::tz::TimeZone;

use super::failure::{Exit, Failure};
use super::names::parse_ding;
use super::out::{Out, note};
use super::session::{As, Connection, Session, Use};
use super::show::state_name;
use super::time::{local, parse_duration};
use carillon::report::escape;

/// Recipients asked for at once.
const PAGE: u16 = 1_000;

/// News of a DING are pushed once, to who is connected then: who waits looks for itself now and then.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Send, confirm and watch DINGs: urgent pushes that ring until everyone has confirmed
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

It rings on every device of each recipient, again and again until it is confirmed or expires. With --wait the command ends when all have confirmed (exit code 0), or when it is over without that (1).")]
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
        /// How often it rings
        #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
        repeat: Duration,
        /// Wait until all have confirmed
        #[arg(long)]
        wait: bool,
    },
    /// Confirm a DING
    Confirm {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `sub` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
    },
    /// Show who has confirmed a DING, to its sender
    Status {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `ding send` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
    },
    /// Take a DING back: it rings no more
    Recall {
        #[command(flatten)]
        who: As,
        /// Which, by the number that `ding send` prints
        #[arg(value_parser = parse_ding)]
        ding: DingId,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Send { who, to, conversation, text, expires, repeat, wait } => {
            let order = Order { to, conversation, text, expires, repeat };
            if wait { send_and_wait(who, order).await } else { send(who, order).await }
        }
        Command::Confirm { who, ding } => confirm(who, ding).await,
        Command::Status { who, ding } => status(who, ding).await,
        Command::Recall { who, ding } => recall(who, ding).await,
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
    async fn send(self, session: &Session, out: &mut Out) -> Result<DingId, Failure> {
        let recipients = match self.conversation {
            Some(conversation) => Recipients::Conversation(session.names.conversation(&conversation).await?),
            None => Recipients::Users(session.names.users(&self.to).await?),
        };
        let mut ding = Ding::new(recipients, MessageKind::TEXT, self.text);
        ding.expires_after = self.expires;
        ding.repeat_every = Some(self.repeat).filter(|every| !every.is_zero());
        let created = session.client.ding(ding).await.map_err(|error| Failure::request("sending the DING", error))?;
        let users = if created.recipients == 1 { "user" } else { "users" };
        out.line(format_args!("DING {} rings {} {users}", created.ding, created.recipients))?;
        out.flush()?;
        Ok(created.ding)
    }
}

async fn send(who: As, order: Order) -> Result<(), Failure> {
    let mut out = Out::new();
    let asking = who.ask(Use::Ask).await?;
    asking.within(async |session| order.send(session, &mut out).await).await.map(drop)
}

async fn send_and_wait(who: As, order: Order) -> Result<(), Failure> {
    let mut out = Out::new();
    let (mut session, mut events) = who.connect(Use::Ask).await?;
    let done = tokio::select! {
        done = follow(&mut session, &mut events, order, &mut out) => done,
        _ = tokio::signal::ctrl_c() => {
            note("carillon: interrupted; the DING goes on ringing");
            Ok(())
        }
    };
    session.client.close().await;
    done
}

/// Tells who confirms, until all have or it is over.
async fn follow(session: &mut Session, events: &mut Events, order: Order, out: &mut Out) -> Result<(), Failure> {
    let ding = order.send(session, out).await?;
    let mut connection = Connection::default();
    let mut told = 0;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = look.tick() => {
                let status = ask_status(session, ding, StatusList::COUNTS, UserId(0)).await?;
                if let Some(ended) = ended(status.state, status.confirmed, status.recipients, out)? {
                    return ended;
                }
                continue;
            }
        };
        let Some(event) = event else {
            return Err(Failure::new(Exit::Unreachable, "the session is over; the DING goes on ringing"));
        };
        connection.note(&event);
        match event {
            Event::Ended(error) => return Err(error.into()),
            Event::DingUpdate(update) if update.ding == ding => {
                let state = if update.user == carillon_client::protocol::ding::USER_NONE {
                    update.state
                } else {
                    let user = session.names.handle(update.user).await?;
                    told += 1;
                    out.line(format_args!(
                        "{} confirmed ({} of {})",
                        escape(&user),
                        told.max(update.confirmed),
                        update.recipients
                    ))?;
                    out.flush()?;
                    DingState::OPEN
                };
                if let Some(ended) = ended(state, update.confirmed, update.recipients, out)? {
                    return ended;
                }
            }
            _ => {}
        }
    }
}

/// How a DING ended, if it has.
fn ended(
    state: DingState,
    confirmed: u32,
    recipients: u32,
    out: &mut Out,
) -> Result<Option<Result<(), Failure>>, Failure> {
    if confirmed >= recipients {
        out.line("all have confirmed")?;
        out.flush()?;
        return Ok(Some(Ok(())));
    }
    if state == DingState::OPEN {
        return Ok(None);
    }
    let text = format!("the DING is {}: {confirmed} of {recipients} had confirmed", state_name(state));
    Ok(Some(Err(Failure::new(Exit::Failed, text))))
}

async fn confirm(who: As, ding: DingId) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let time = asking
        .within(async |session| {
            let confirmed = session.client.confirm(ding).await;
            confirmed.map_err(|error| Failure::request(&format!("confirming DING {ding}"), error))
        })
        .await?;
    let mut out = Out::new();
    out.line(format_args!("DING {ding} confirmed at {}", local(time, &TimeZone::system())))?;
    Ok(out.flush()?)
}

async fn recall(who: As, ding: DingId) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    asking
        .within(async |session| {
            let recalled = session.client.recall_ding(ding).await;
            recalled.map_err(|error| Failure::request(&format!("recalling DING {ding}"), error))
        })
        .await?;
    let mut out = Out::new();
    out.line(format_args!("DING {ding} rings no more"))?;
    Ok(out.flush()?)
}

async fn status(who: As, ding: DingId) -> Result<(), Failure> {
    let zone = TimeZone::system();
    let (whole, rows) = who
        .ask(Use::Ask)
        .await?
        .within(async |session| {
            let mut rows = Vec::new();
            let whole = ask_status(session, ding, StatusList::COUNTS, UserId(0)).await?;
            for list in [StatusList::DONE, StatusList::OPEN] {
                let mut from = UserId(0);
                while from != UserId(u32::MAX) {
                    let page = ask_status(session, ding, list, from).await?;
                    let users: Vec<_> = page.entries.iter().map(|entry| entry.user).collect();
                    let handles = if users.is_empty() { Vec::new() } else { session.names.handles(&users).await? };
                    for (entry, handle) in page.entries.iter().zip(handles) {
                        let time = local(entry.time, &zone);
                        rows.push(vec![escape(&handle).into_owned(), state_name(entry.state).to_owned(), time]);
                    }
                    // A page that does not go on is the last.
                    from = if page.next > from { page.next } else { UserId(u32::MAX) };
                }
            }
            Ok((whole, rows))
        })
        .await?;
    let mut out = Out::new();
    let state = state_name(whole.state);
    let expires = local(whole.expires_at, &zone);
    out.line(format_args!(
        "DING {ding}: {state}, {} of {} have confirmed, expires {expires}",
        whole.confirmed, whole.recipients
    ))?;
    out.table(&rows)?;
    Ok(out.flush()?)
}

async fn ask_status(
    session: &Session,
    ding: DingId,
    list: StatusList,
    from: UserId,
) -> Result<DingStatusReply, Failure> {
    let status = session.client.ding_status(ding, list, from, PAGE).await;
    status.map_err(|error| Failure::request(&format!("asking about DING {ding}"), error))
}
