//! `carillon sub`: events in.

use std::num::NonZeroU64;

use carillon_client::{Event, Events};
use jiff::tz::TimeZone;
use tokio::signal::unix::SignalKind;

use super::failure::{Exit, Failure};
use super::out::Out;
use super::running::on;
use super::session::{As, Connection, From, Session, Use};
use super::show::{Human, Json};

/// Events printed before what was printed is shown and acknowledged, at the latest.
const BATCH_MAX: usize = 512;

/// Print what is addressed to a user, as it comes, from where this terminal was the last time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon sub --user bob
  carillon sub --user bob --from-start --count 10
  carillon sub --user bob --newest 20        of what was missed, the newest 20 of each conversation
  carillon sub --user bob --json | jq 'select(.event == \"message\") | .text'

A line is: time, conversation#seq, author, text. What is printed is acknowledged, and does not come again: each terminal is a device of the user, with a place of its own in the journal. After a crash the last lines of 200 ms may come twice.

What does not come is named on a line with \"!\": what retention deleted, and what --newest leaves out; that `carillon history` shows.

Who is writing or looks at a conversation is told while it is so, on a line with \"*\". Such signals may be lost, and do not come again.

With --json, an object a line, its sort in `event`; ids are strings, because they have 64 bits; times are RFC 3339:
  message      conversation, name (or null), seq, position, author, author_id,
               time, kind, bytes, and text (if it is text) or payload_base64
  membership   conversation, name, change (added, removed, left, role), role,
               by, position, time
  read         conversation, user, read_up_to, position
  read_counts  conversation, position,
               counts (a list of seq, read, unread)
  ding         ding, sender, time, expires_at, kind, bytes,
               about (null, or a conversation and a seq),
               and text or payload_base64
  ding_update  ding, user (null: the whole), confirmed, recipients, time,
               state (confirmed, expired, recalled)
  ding_progress  ding, state (scheduled, sent, confirmed, expired,
               recalled), recipients, delivered (and not confirmed),
               confirmed, failed, time: of those one has sent
  signal       conversation, name, user,
               signal (typing, typing_stopped, present, away)
  gap          conversation, first, last, reason (truncated, skipped)
  reset        the broker has another journal; everything comes anew
New fields and events may be added.")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Print an object a line
    #[arg(long)]
    json: bool,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Begin at the first message the user may have; the next `sub` in this terminal goes on from there
    #[arg(long)]
    from_start: bool,
    /// Of what was missed, only the newest N of each conversation; what is left out is named. 0: only what is new
    #[arg(long, value_name = "N")]
    newest: Option<u32>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, json, count, from_start, newest } = args;
    let from = if from_start { From::Beginning } else { From::Cursor };
    let (session, events) = who.connect(Use::Read { from, newest }).await?;
    let client = session.client.clone();
    let printer = if json { Printer::Json(Json) } else { Printer::Human(Human::new(TimeZone::system())) };
    let mut subscriber = Subscriber { session, events, printer, out: Out::new(), left: count.map(NonZeroU64::get) };
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let done = tokio::select! {
        done = subscriber.run() => done,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    // What was printed but not shown is not acknowledged either, and comes again.
    client.close().await;
    done
}

enum Printer {
    Human(Human),
    Json(Json),
}

/// What was printed and is not acknowledged: all of the journal that is served.
struct Printed(Vec<Event>);

impl Printed {
    fn push(&mut self, event: Event) {
        if matches!(event, Event::Reset) {
            // A position of the old journal would acknowledge what was never printed of the new one.
            self.0.clear();
        }
        self.0.push(event);
    }
}

struct Subscriber {
    session: Session,
    events: Events,
    printer: Printer,
    out: Out,
    /// Messages until the end.
    left: Option<u64>,
}

impl Subscriber {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut connection = Connection::default();
        let mut printed = Printed(Vec::with_capacity(BATCH_MAX));
        loop {
            let event = if printed.0.len() >= BATCH_MAX { None } else { self.next(printed.0.is_empty()).await? };
            let Some(event) = event else {
                self.acknowledge(&mut printed)?;
                continue;
            };
            connection.note(&event);
            if matches!(event, Event::Reset) {
                self.session.names.forget();
            }
            self.print(&event).await?;
            if matches!(event, Event::Reset) {
                // It is done with, for good, when the next event is asked for.
                self.out.flush()?;
            }
            let is_message = matches!(event, Event::Message(_));
            printed.push(event);
            if is_message && let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    return self.acknowledge(&mut printed);
                }
            }
        }
    }

    /// The next event; `None` if there is none just now and it is not to be waited for.
    async fn next(&mut self, wait: bool) -> Result<Option<Event>, Failure> {
        let event = tokio::select! {
            biased;
            event = self.events.next() => event,
            () = std::future::ready(()), if !wait => return Ok(None),
        };
        match event {
            Some(Event::Ended(error)) => Err(error.into()),
            Some(event) => Ok(Some(event)),
            None => Err(Failure::new(Exit::Unreachable, "the session is over")),
        }
    }

    async fn print(&mut self, event: &Event) -> Result<(), Failure> {
        let Self { session, printer, out, .. } = self;
        match printer {
            Printer::Human(human) => human.print(event, session, out).await,
            Printer::Json(json) => json.print(event, session, out).await,
        }
    }

    /// Acknowledged is what was shown.
    fn acknowledge(&mut self, printed: &mut Printed) -> Result<(), Failure> {
        self.out.flush()?;
        for event in printed.0.drain(..) {
            self.events.ack(&event);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use carillon_client::{Position, Progress, ShardId};

    use super::*;

    #[test]
    fn nothing_printed_before_a_reset_is_acknowledged_after_it() {
        let (shard, receipts_through) = (ShardId(0), Position(0));
        let progress = |position| Event::Progress(Progress { shard, position: Position(position), receipts_through });
        let mut printed = Printed(Vec::new());
        for event in [progress(900), Event::Reset, progress(3)] {
            printed.push(event);
        }
        let [Event::Reset, Event::Progress(left)] = &printed.0[..] else { panic!("{:?}", printed.0) };
        assert_eq!(left.position, Position(3));
    }
}
