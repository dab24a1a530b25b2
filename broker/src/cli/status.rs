//! `carillon status`: who has read a message and when, and who has it.

use carillon_client::{ConversationId, ReadCounts, ReadEntry, ReadState, Seq, StatusList, Timestamp, UserId};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::failure::Failure;
use super::names::page_after;
use super::out::Out;
use super::progress::{Progress, Unit};
use super::session::{As, Session, Use};
use super::table::Table;
use super::time::{local, rfc3339};
use carillon::report::escape;

/// Members asked for at once.
const PAGE: u16 = 1_000;

/// Show who has read a message and when, and who has not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon status --user alice tour 3
  carillon status --user alice tour 3 --count       how many alone, however many there are

Its author may ask, and the conversation's owner and admins. The author is in neither list. A message is delivered
when a device of the member has acknowledged it. With --json:
  {\"conversation\":\"5\",\"seq\":3,\"read_count\":1,\"unread_count\":1,
   \"read\":[{\"user\":\"bob\",\"state\":\"read\",\"read_at\":\"2026-11-22T09:30:00.123Z\",\"read_up_to\":4}],
   \"unread\":[{\"user\":\"carol\",\"state\":\"delivered\",\"read_at\":null,\"read_up_to\":0}]}
without the two lists if only the counts are asked for. A time that retention has taken is null.")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Which, by id or name
    conversation: String,
    /// Which message
    seq: u64,
    /// How many alone, not who
    #[arg(long)]
    count: bool,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// A member, by handle, and how far the message has come with it.
type Member = (String, ReadEntry);

/// What the broker says about a message.
struct Status {
    conversation: ConversationId,
    counts: ReadCounts,
    /// Who has read it and who has not, if that was asked for.
    lists: Option<[Vec<Member>; 2]>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, conversation, seq, count, json } = args;
    let asking = who.ask(Use::Ask).await?;
    let status = asking.through(async |session| ask(session, &conversation, Seq(seq), count).await).await?;
    let (ReadCounts { read, unread }, mut out) = (status.counts, Out::new());
    if json {
        out.json(&object(&status, seq))?;
        return Ok(out.flush()?);
    }
    out.line(format_args!("message {}#{seq}: read by {read} of {}", escape(&conversation), read + unread))?;
    let (mut table, zone) = (Table::new(&["USER", "STATE", "READ AT", "READ UP TO"]), TimeZone::system());
    for (user, entry) in status.lists.into_iter().flatten().flatten() {
        let read_at = read_at(&entry).map_or_else(|| "-".to_owned(), |time| local(time, &zone));
        let cells =
            [escape(&user).into_owned(), state_name(entry.state).to_owned(), read_at, entry.read_up_to.to_string()];
        table.row(cells, &mut out)?;
    }
    table.end(&mut out)?;
    Ok(out.flush()?)
}

fn state_name(state: ReadState) -> &'static str {
    match state {
        ReadState::NOT_DELIVERED => "not delivered",
        ReadState::DELIVERED => "delivered",
        ReadState::READ => "read",
        _ => "unknown",
    }
}

/// When the member has read the message, if that is known.
fn read_at(entry: &ReadEntry) -> Option<Timestamp> {
    Some(entry.read_at).filter(|time| *time > Timestamp(0))
}

fn object(status: &Status, seq: u64) -> Value {
    let ReadCounts { read, unread } = status.counts;
    let conversation = status.conversation.to_string();
    let mut object = json!({ "conversation": conversation, "seq": seq, "read_count": read, "unread_count": unread });
    for (key, members) in ["read", "unread"].into_iter().zip(status.lists.iter().flatten()) {
        let member = |(user, entry): &Member| {
            let (state, read_at) = (state_name(entry.state), read_at(entry).map(rfc3339));
            json!({ "user": user, "state": state, "read_at": read_at, "read_up_to": entry.read_up_to.0 })
        };
        object[key] = members.iter().map(member).collect();
    }
    object
}

async fn ask(session: &mut Session, conversation: &str, seq: Seq, count: bool) -> Result<Status, Failure> {
    let patience = session.patience();
    let id = patience.wait(session.names.conversation(conversation)).await?;
    let counts = session.client.read_counts(id, seq);
    let counts = patience.wait(async { counts.await.map_err(|error| Failure::request(ASKING, error)) }).await?;
    let mut lists = None;
    if !count {
        let progress = Progress::new("asking", Some(u64::from(counts.read + counts.unread)), Unit::Things("members"));
        let mut members = Vec::new();
        let mut read = 0;
        for list in [StatusList::DONE, StatusList::OPEN] {
            list_into(&mut members, session, (id, seq, list), &progress).await?;
            if list == StatusList::DONE {
                read = members.len();
            }
        }
        let unread = members.split_off(read);
        lists = Some([members, unread]);
    }
    Ok(Status { conversation: id, counts, lists })
}

/// What is asked for, in errors.
const ASKING: &str = "asking who has read";

/// Puts all of one list behind what is there.
async fn list_into(
    members: &mut Vec<Member>,
    session: &mut Session,
    (conversation, seq, list): (ConversationId, Seq, StatusList),
    progress: &Progress,
) -> Result<(), Failure> {
    let patience = session.patience();
    let mut next = Some(UserId(0));
    while let Some(from) = next {
        let Session { client, names, .. } = session;
        let page = patience.wait(async {
            let page = client.read_status(conversation, seq, list, from, PAGE).await;
            let page = page.map_err(|error| Failure::request(ASKING, error))?;
            let users: Vec<_> = page.entries.iter().map(|entry| entry.user).collect();
            Ok((names.handles(&users).await?, page))
        });
        let (handles, page) = page.await?;
        members.extend(handles.into_iter().zip(page.entries));
        progress.at(members.len() as u64);
        next = page_after(from, page.next);
    }
    Ok(())
}
