//! `carillon conversation`: groups, channels and their members.

mod members;

use carillon_client::protocol::control::ConversationEntry;
use carillon_client::{
    ConversationId, ConversationKind, HistoryPolicy, NewConversation, ReceiptPolicy, Role as MemberRole,
};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::failure::Failure;
use super::names::kind_name;
use super::out::Out;
use super::session::{As, Session, Use};
use super::show::role_name;
use super::table::Table;
use super::token::Role;
use carillon::report::escape;

/// Make conversations, list them, change and list their members
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Which sort of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Members post and read.
    Group,
    /// Owner and admins post, members read.
    Channel,
}

/// What a member may have of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum History {
    /// What is published while they are members.
    Joined,
    /// As well what was published before they joined.
    Full,
}

/// What authors may learn of who has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Receipts {
    /// How many have read, and who.
    On,
    /// How many have read.
    Counts,
    /// Nothing.
    Off,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a group or channel; its maker is its owner
    #[command(after_help = "\
Examples:
  carillon conversation create --user alice --members bob,carol --name harbour
  carillon conversation create --user alice --kind channel --history full --name news
  carillon conversation create --user alice --members bob,carol --receipts off

A name is unique in the tenant, and for services and administrators to give: with a development context, --name acts as a service by itself. If the name is taken by a conversation of the same owner, that one is the answer.

With --json: {\"conversation\":\"5\",\"existed\":false}")]
    Create {
        #[command(flatten)]
        who: As,
        /// Its members beside the maker
        #[arg(long, value_delimiter = ',', value_name = "HANDLE,…")]
        members: Vec<String>,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        /// What it is
        #[arg(long, value_enum, default_value = "group")]
        kind: Kind,
        /// What a member may have of its history
        #[arg(long, value_enum, default_value = "joined")]
        history: History,
        /// What authors may learn of who has read; counts in a channel, else on, if not given
        #[arg(long, value_enum)]
        receipts: Option<Receipts>,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// List the conversations one is in
    #[command(after_help = "\
Example:
  carillon conversation list --user bob

LAST is the seq of the last message, READ UP TO how far one has read, UNREAD how many after
it are by others. With --json, an object a line:
  {\"conversation\":\"5\",\"kind\":\"group\",\"name\":\"tour\",\"peer\":null,\"role\":\"member\",
   \"history\":\"joined\",\"receipts\":\"on\",\"members\":3,\"last_seq\":6,\"read_up_to\":2,\"unread\":3}
Kind is direct, group, channel or personal; peer is the other user of a direct one.")]
    List {
        #[command(flatten)]
        who: As,
        /// Print an object a line
        #[arg(long)]
        json: bool,
    },
    /// List the members of a conversation
    #[command(after_help = "\
Examples:
  carillon conversation members --user alice tour
  carillon conversation members --user alice tour --count

JOINED AFTER is the seq after which what is published is the member's. With --json, an object a line:
  {\"user\":\"bob\",\"role\":\"member\",\"joined_after\":0,\"read_up_to\":2}
and {\"conversation\":\"5\",\"members\":3} with --count.")]
    Members {
        #[command(flatten)]
        who: As,
        /// Which, by id or name
        conversation: String,
        /// How many alone, not who
        #[arg(long)]
        count: bool,
        /// Print an object a line
        #[arg(long)]
        json: bool,
    },
    /// Add members; those who are members already get the role
    #[command(after_help = "\
Examples:
  carillon conversation add --user alice tour erin
  carillon conversation add --user alice tour bob,carol --admin

With --json: {\"conversation\":\"5\",\"users\":[\"bob\",\"carol\"],\"role\":\"admin\"}")]
    Add {
        #[command(flatten)]
        who: As,
        /// Which, by id or name
        conversation: String,
        /// Whom
        #[arg(required = true, value_delimiter = ',', value_name = "HANDLE")]
        members: Vec<String>,
        /// Let them add and remove members, and post in a channel
        #[arg(long)]
        admin: bool,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// Remove members
    #[command(after_help = "\
Example:
  carillon conversation remove --user alice tour erin

With --json: {\"conversation\":\"5\",\"users\":[\"erin\"],\"role\":null}")]
    Remove {
        #[command(flatten)]
        who: As,
        /// Which, by id or name
        conversation: String,
        /// Whom
        #[arg(required = true, value_delimiter = ',', value_name = "HANDLE")]
        members: Vec<String>,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// Leave a conversation
    #[command(after_help = "\
Example:
  carillon conversation leave --user bob tour

What was published until then stays one's own. With --json: {\"conversation\":\"5\",\"users\":[\"bob\"],\"role\":null}")]
    Leave {
        #[command(flatten)]
        who: As,
        /// Which, by id or name
        conversation: String,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Create { who, members, name, kind, history, receipts, json } => {
            create(who, Order { members, name, kind, history, receipts }, json).await
        }
        Command::List { who, json } => list(who, json).await,
        Command::Members { who, conversation, count: true, json } => members::count(who, conversation, json).await,
        Command::Members { who, conversation, count: false, json } => members::list(who, conversation, json).await,
        Command::Add { who, conversation, members, admin, json } => {
            let role = if admin { MemberRole::ADMIN } else { MemberRole::MEMBER };
            change(who, conversation, members, Some(role), json).await
        }
        Command::Remove { who, conversation, members, json } => change(who, conversation, members, None, json).await,
        Command::Leave { who, conversation, json } => leave(who, conversation, json).await,
    }
}

/// A conversation as it was asked for.
struct Order {
    members: Vec<String>,
    name: Option<String>,
    kind: Kind,
    history: History,
    receipts: Option<Receipts>,
}

async fn create(who: As, order: Order, json: bool) -> Result<(), Failure> {
    let Order { members, name, kind, history, receipts } = order;
    let role = if name.is_some() { Role::Service } else { Role::User };
    let created = who
        .ask_with(Use::Ask, role)
        .await?
        .within(async |session| {
            let members = session.names.users(&members).await?;
            let mut new = match kind {
                Kind::Group => NewConversation::group(members),
                Kind::Channel => NewConversation::channel(members),
            };
            if history == History::Full {
                new = new.with_full_history();
            }
            if let Some(receipts) = receipts {
                new = new.with_receipts(match receipts {
                    Receipts::On => ReceiptPolicy::ON,
                    Receipts::Counts => ReceiptPolicy::COUNTS,
                    Receipts::Off => ReceiptPolicy::OFF,
                });
            }
            new.name = name;
            let created = session.client.create_conversation(new).await;
            created.map_err(|error| Failure::request("making the conversation", error))
        })
        .await?;
    let (id, existed) = (created.conversation, created.existed != 0);
    let mut out = Out::new();
    if json {
        out.json(&json!({ "conversation": id.to_string(), "existed": existed }))?;
    } else {
        out.line(format_args!("conversation {id}{}", if existed { " (it was there before)" } else { "" }))?;
    }
    Ok(out.flush()?)
}

/// Adds members with a role, or removes them.
async fn change(
    who: As,
    conversation: String,
    members: Vec<String>,
    role: Option<MemberRole>,
    json: bool,
) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let (id, label) = asking
        .within(async |session| {
            let id = session.names.conversation(&conversation).await?;
            let users = session.names.users(&members).await?;
            let done = match role {
                Some(role) => session.client.add_members(id, &users, role).await,
                None => session.client.remove_members(id, &users).await,
            };
            done.map_err(|error| Failure::request(&format!("changing {conversation}"), error))?;
            Ok((id, session.names.label(id).await?))
        })
        .await?;
    print_change(id, &label, &members, role, json)
}

async fn leave(who: As, conversation: String, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let (id, label, user) = asking
        .within(async |session| {
            let id = session.names.conversation(&conversation).await?;
            // Asked for first: afterwards the name is another's.
            let label = session.names.label(id).await?;
            let left = session.client.leave(id).await;
            left.map_err(|error| Failure::request(&format!("leaving {conversation}"), error))?;
            Ok((id, label, session.user.clone()))
        })
        .await?;
    print_change(id, &label, &[user], None, json)
}

fn print_change(
    id: ConversationId,
    label: &str,
    members: &[String],
    role: Option<MemberRole>,
    json: bool,
) -> Result<(), Failure> {
    let mut out = Out::new();
    let named = members.join(", ");
    let named = escape(&named);
    match role {
        _ if json => {
            let role = role.map(role_name);
            out.json(&json!({ "conversation": id.to_string(), "users": members, "role": role }))?;
        }
        Some(MemberRole::ADMIN) => out.line(format_args!("{named}: in {label} as admin"))?,
        Some(_) => out.line(format_args!("{named}: in {label}"))?,
        None => out.line(format_args!("{named}: no longer in {label}"))?,
    }
    Ok(out.flush()?)
}

/// What a policy about history is called.
fn history_name(policy: HistoryPolicy) -> &'static str {
    match policy {
        HistoryPolicy::JOINED => "joined",
        HistoryPolicy::FULL => "full",
        _ => "other",
    }
}

/// What a policy about receipts is called.
fn receipts_name(policy: ReceiptPolicy) -> &'static str {
    match policy {
        ReceiptPolicy::ON => "on",
        ReceiptPolicy::COUNTS => "counts",
        ReceiptPolicy::OFF => "off",
        _ => "other",
    }
}

async fn list(who: As, json: bool) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    asking.through(async |session| print_own(session, json, &mut Out::new()).await).await
}

/// Prints the conversations of the session's user.
pub(super) async fn print_own(session: &mut Session, json: bool, out: &mut Out) -> Result<(), Failure> {
    let (all, peers) = session.patience().wait(own(session)).await?;
    let mut table =
        Table::new(&["ID", "KIND", "NAME", "ROLE", "HISTORY", "RECEIPTS", "MEMBERS", "LAST", "READ UP TO", "UNREAD"]);
    for ((entry, name), peer) in all.iter().zip(&peers) {
        let (id, kind, role) = (entry.conversation.to_string(), kind_name(entry.kind), role_name(entry.role));
        let (history, last, read_up_to) = (history_name(entry.history), entry.last_seq.0, entry.read_up_to.0);
        let receipts = receipts_name(entry.receipts);
        if json {
            out.json(&json!({
                "conversation": id, "kind": kind, "name": name, "peer": peer, "role": role, "history": history,
                "receipts": receipts, "members": entry.members, "last_seq": last, "read_up_to": read_up_to,
                "unread": entry.unread,
            }))?;
            continue;
        }
        let name = match (name, peer) {
            (Some(name), _) => escape(name).into_owned(),
            (None, Some(peer)) => format!("with {}", escape(peer)),
            (None, None) => "-".to_owned(),
        };
        let words = [id, kind.to_owned(), name, role.to_owned(), history.to_owned(), receipts.to_owned()];
        let counts = [u64::from(entry.members), last, read_up_to, entry.unread].map(|count| count.to_string());
        table.row(words.into_iter().chain(counts), out)?;
    }
    table.end(out)?;
    if !json && all.is_empty() {
        out.line("in no conversation yet")?;
    }
    Ok(out.flush()?)
}

/// A conversation and its name.
type Own = (ConversationEntry, Option<String>);

/// The conversations of the session's user, and who is at the other end of the direct ones.
async fn own(session: &mut Session) -> Result<(Vec<Own>, Vec<Option<String>>), Failure> {
    let all = session.names.list().await?;
    let is_direct = |entry: &ConversationEntry| entry.kind == ConversationKind::DIRECT;
    let direct: Vec<_> = all.iter().map(|found| &found.entry).filter(|entry| is_direct(entry)).collect();
    let users: Vec<_> = direct.iter().map(|entry| entry.peer).collect();
    let mut handles = session.names.handles(&users).await?.into_iter();
    let peers = all.iter().map(|found| if is_direct(&found.entry) { handles.next() } else { None }).collect();
    Ok((all.into_iter().map(|found| (found.entry, found.name)).collect(), peers))
}
