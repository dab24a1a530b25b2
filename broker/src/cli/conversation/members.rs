//! `carillon conversation members`: who is in it, page by page.

use carillon_client::{ConversationId, RequestError, UserId};
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::names::page_after;
use crate::cli::out::Out;
use crate::cli::progress::{Progress, Unit};
use crate::cli::session::{As, Session, Use};
use crate::cli::show::role_name;
use crate::cli::table::Table;
use carillon::report::escape;

/// Members asked for at once.
const PAGE: u16 = 1_000;

/// Prints all members, each page as it comes.
pub(super) async fn list(who: As, conversation: String, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    asking.through(async |session| print_all(session, &conversation, json, &mut Out::new()).await).await
}

async fn print_all(session: &mut Session, conversation: &str, json: bool, out: &mut Out) -> Result<(), Failure> {
    let patience = session.patience();
    let id = patience.wait(session.names.conversation(conversation)).await?;
    let progress = Progress::beside_output("listing", None, Unit::Things("members"));
    let mut table = Table::new(&["USER", "ROLE", "JOINED AFTER", "READ UP TO"]);
    let (mut next, mut count) = (Some(UserId(0)), 0);
    while let Some(from) = next {
        let page = patience.wait(async {
            let page =
                session.client.members_page(id, from, PAGE).await.map_err(|error| listing(conversation, error))?;
            let users: Vec<_> = page.entries.iter().map(|member| member.user).collect();
            Ok((session.names.handles(&users).await?, page))
        });
        let (handles, page) = page.await?;
        for (member, handle) in page.entries.iter().zip(handles) {
            let (role, joined, read_up_to) = (role_name(member.role), member.joined.0, member.read_up_to.0);
            if json {
                out.json(&json!({ "user": handle, "role": role, "joined_after": joined, "read_up_to": read_up_to }))?;
            } else {
                let cells = [escape(&handle).into_owned(), role.to_owned(), joined.to_string(), read_up_to.to_string()];
                table.row(cells, out)?;
            }
        }
        count += page.entries.len() as u64;
        progress.at(count);
        next = page_after(from, page.next);
    }
    table.end(out)?;
    Ok(out.flush()?)
}

/// Prints how many members there are.
pub(super) async fn count(who: As, conversation: String, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let (id, label, members) = asking
        .through(async |session| {
            let patience = session.patience();
            let id = patience.wait(session.names.conversation(&conversation)).await?;
            let members = count_all(session, &conversation, id).await?;
            Ok((id, patience.wait(session.names.label(id)).await?, members))
        })
        .await?;
    let mut out = Out::new();
    if json {
        out.json(&json!({ "conversation": id.to_string(), "members": members }))?;
    } else {
        out.line(format_args!("{label}: {members} {}", if members == 1 { "member" } else { "members" }))?;
    }
    Ok(out.flush()?)
}

async fn count_all(session: &Session, conversation: &str, id: ConversationId) -> Result<u64, Failure> {
    let patience = session.patience();
    let own = patience.wait(session.names.list()).await?;
    if let Some(own) = own.iter().find(|own| own.entry.conversation == id) {
        return Ok(own.entry.members.into());
    }
    // A service may list the members of a conversation it is not in, but is not told how many there are.
    let progress = Progress::new("counting", None, Unit::Things("members"));
    let (mut next, mut count) = (Some(UserId(0)), 0);
    while let Some(from) = next {
        let page = patience.wait(async {
            session.client.members_page(id, from, PAGE).await.map_err(|error| listing(conversation, error))
        });
        let page = page.await?;
        count += page.entries.len() as u64;
        progress.at(count);
        next = page_after(from, page.next);
    }
    Ok(count)
}

fn listing(conversation: &str, error: RequestError) -> Failure {
    Failure::request(&format!("listing {conversation}"), error)
}
