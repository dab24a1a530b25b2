//! `carillon history`: messages of a conversation again.

use std::num::NonZeroU64;

use carillon_client::{ConversationId, Direction, Event, Message, Page, Seq};
use jiff::tz::TimeZone;

use super::failure::Failure;
use super::out::{Look, Out};
use super::progress::{Progress, Unit};
use super::session::{As, Session, Use};
use super::show::{Human, Json, gap_object};

/// Messages asked for at once.
const PAGE: u16 = 1_000;

/// The newest, wherever that is.
const NEWEST: Seq = Seq(u64::MAX);

/// Print messages of a conversation again: the newest, or from one on
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon history --user bob tour                          the newest 20, the last one at the end
  carillon history --user bob tour --from 40 --limit 10     31 to 40
  carillon history --user bob tour --from 40 --forward --limit 10     40 to 49
  carillon history --user bob tour --all --json > tour.ndjson         everything there is, in order

Lines, and the objects of --json, are those of `sub`; nothing is marked as read or acknowledged. What retention deleted is named first: on a line with \"!\", or as an object:
  {\"event\":\"gap\",\"conversation\":\"5\",\"first\":1,\"last\":30,\"reason\":\"truncated\"}")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Which, by id or name
    conversation: String,
    /// Begin at this message; default: the newest, or the first with --forward or --all
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Go on to later messages, not to earlier ones
    #[arg(long)]
    forward: bool,
    /// At most so many messages
    #[arg(long, value_name = "N", default_value = "20")]
    limit: NonZeroU64,
    /// All messages, from --from on if it is given
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print an object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, conversation, from, forward, limit, all, json } = args;
    let asking = who.ask(Use::Ask).await?;
    asking
        .through(async |session| {
            let id = session.patience().wait(session.names.conversation(&conversation)).await?;
            let mut printing = Printing::new(id, &conversation, json);
            if forward || all {
                let limit = if all { u64::MAX } else { limit.get() };
                printing.forward(session, Seq(from.unwrap_or(1)), limit).await
            } else {
                printing.backward(session, from.map_or(NEWEST, Seq), limit.get()).await
            }
        })
        .await
}

struct Printing<'a> {
    id: ConversationId,
    /// What the conversation was called on the command line.
    called: &'a str,
    printer: Printer,
    out: Out,
    /// Up to where it was said that retention took everything.
    truncated: Seq,
    progress: Progress,
    printed: u64,
}

enum Printer {
    Human(Human),
    Json(Json),
}

impl<'a> Printing<'a> {
    fn new(id: ConversationId, called: &'a str, json: bool) -> Self {
        let printer = if json { Printer::Json(Json) } else { Printer::Human(Human::new(TimeZone::system())) };
        let progress = Progress::beside_output("reading", None, Unit::Things("messages"));
        Self { id, called, printer, out: Out::new(), truncated: Seq(0), progress, printed: 0 }
    }

    /// Prints each page as it comes.
    async fn forward(&mut self, session: &mut Session, from: Seq, limit: u64) -> Result<(), Failure> {
        let (mut next, mut left) = (Some(from), limit);
        while let Some(from) = next.filter(|_| left > 0) {
            let page = self.ask(session, from, Direction::FORWARD, left).await?;
            self.tell_truncated(session, &page, from).await?;
            left -= (page.messages.len() as u64).min(left);
            // A page that does not go on is the last.
            next = page.next.filter(|next| *next > from);
            self.print(session, page.messages).await?;
        }
        Ok(())
    }

    /// Holds the pages until the oldest of them is there: at most `limit` messages.
    async fn backward(&mut self, session: &mut Session, from: Seq, limit: u64) -> Result<(), Failure> {
        let (mut next, mut left) = (Some(from), limit);
        let mut pages = Vec::new();
        while let Some(from) = next.filter(|_| left > 0) {
            let page = self.ask(session, from, Direction::BACKWARD, left).await?;
            left -= (page.messages.len() as u64).min(left);
            next = page.next.filter(|next| *next < from);
            self.progress.at(limit - left);
            pages.push(page);
        }
        // Only who reached the oldest one there is wants to know why there is no older one.
        if next.is_none()
            && left > 0
            && let Some(oldest) = pages.last()
        {
            self.tell_truncated(session, oldest, Seq(1)).await?;
        }
        for page in pages.into_iter().rev() {
            self.print(session, page.messages).await?;
        }
        Ok(())
    }

    async fn ask(&self, session: &Session, from: Seq, direction: Direction, left: u64) -> Result<Page, Failure> {
        let limit = u16::try_from(left).unwrap_or(PAGE).min(PAGE);
        let patience = session.patience();
        let page = patience.wait(async {
            let page = session.client.history(self.id, from, direction, limit).await;
            page.map_err(|error| Failure::request(&format!("reading the history of {}", self.called), error))
        });
        page.await
    }

    /// Says once what of the messages that were asked for is gone.
    async fn tell_truncated(&mut self, session: &mut Session, page: &Page, from: Seq) -> Result<(), Failure> {
        let (first, last) = (Seq(from.0.max(1)), page.truncated);
        if last < first || last <= self.truncated {
            return Ok(());
        }
        self.truncated = last;
        match &self.printer {
            Printer::Human(_) => {
                let label = session.patience().wait(session.names.label(self.id)).await?;
                let text = format!("! {label}: everything up to #{last} is gone: retention deleted it");
                self.out.line(self.out.styled(Look::Bad, text))?;
            }
            Printer::Json(_) => self.out.json(&gap_object(self.id, first, last, "truncated"))?,
        }
        Ok(())
    }

    async fn print(&mut self, session: &mut Session, messages: Vec<Message>) -> Result<(), Failure> {
        let patience = session.patience();
        for message in messages {
            let event = Event::Message(message);
            let Self { printer, out, .. } = self;
            let printed = async {
                match printer {
                    Printer::Human(human) => human.print(&event, session, out).await,
                    Printer::Json(json) => json.print(&event, session, out).await,
                }
            };
            patience.wait(printed).await?;
            self.printed += 1;
            self.progress.at(self.printed);
        }
        Ok(self.out.flush()?)
    }
}
