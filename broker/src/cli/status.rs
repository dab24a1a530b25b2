//! `carillon status`: who has read a message.

use carillon_client::{ConversationId, Seq, StatusList, UserId};
use serde_json::json;

use super::failure::Failure;
use super::out::Out;
use super::session::{As, Session, Use};
use carillon::report::escape;

/// Members asked for at once.
const PAGE: u16 = 1_000;

/// Show who has read a message, and who has not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  carillon status --user alice tour 3

Its author may ask, and the conversation's owner and admins. The author is in neither list. With --json:
  {\"conversation\":\"5\",\"seq\":3,\"read\":[{\"user\":\"bob\",\"read_up_to\":4}],
   \"unread\":[{\"user\":\"carol\",\"read_up_to\":0}]}")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Which, by id or name
    #[arg(value_name = "CONVERSATION")]
    conversation: String,
    /// Which message
    #[arg(value_name = "SEQ")]
    seq: u64,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// A member and their watermark.
type Member = (String, Seq);

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, conversation, seq, json } = args;
    let (id, [read, unread]) = who
        .ask(Use::Ask)
        .await?
        .within(async |session| {
            let id = session.names.conversation(&conversation).await?;
            let read = members(session, id, Seq(seq), StatusList::DONE).await?;
            let unread = members(session, id, Seq(seq), StatusList::OPEN).await?;
            Ok((id, [read, unread]))
        })
        .await?;
    let mut out = Out::new();
    if json {
        let list = |members: Vec<Member>| -> Vec<_> {
            members.into_iter().map(|(user, seq)| json!({ "user": user, "read_up_to": seq.0 })).collect()
        };
        let conversation = id.to_string();
        out.json(&json!({ "conversation": conversation, "seq": seq, "read": list(read), "unread": list(unread) }))?;
        return Ok(out.flush()?);
    }
    out.line(format_args!(
        "message {}#{seq}: read by {} of {}",
        escape(&conversation),
        read.len(),
        read.len() + unread.len()
    ))?;
    let row =
        |state: &str, (user, seq): &Member| vec![state.to_owned(), escape(user).into_owned(), format!("up to #{seq}")];
    let read_rows = read.iter().map(|member| row("read", member));
    let rows: Vec<_> = read_rows.chain(unread.iter().map(|member| row("not read", member))).collect();
    out.table(&rows)?;
    Ok(out.flush()?)
}

async fn members(
    session: &mut Session,
    conversation: ConversationId,
    seq: Seq,
    list: StatusList,
) -> Result<Vec<Member>, Failure> {
    let mut members = Vec::new();
    let mut from = UserId(0);
    while from != UserId(u32::MAX) {
        let page = session.client.read_status(conversation, seq, list, from, PAGE).await;
        let page = page.map_err(|error| Failure::request("asking who has read", error))?;
        let users: Vec<_> = page.entries.iter().map(|entry| entry.user).collect();
        let handles = if users.is_empty() { Vec::new() } else { session.names.handles(&users).await? };
        members.extend(handles.into_iter().zip(page.entries.iter().map(|entry| entry.read_up_to)));
        // A page that does not go on is the last.
        from = if page.next > from { page.next } else { UserId(u32::MAX) };
    }
    Ok(members)
}
