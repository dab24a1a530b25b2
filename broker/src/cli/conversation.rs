//! `carillon conversation`: groups, channels and their members.

use carillon_client::{ConversationKind, NewConversation, Role as MemberRole, UserId};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::failure::Failure;
use super::names::kind_name;
use super::out::Out;
use super::session::{As, Session, Use};
use super::show::role_name;
use super::token::Role;
use carillon::report::escape;

/// Make conversations, change and list their members
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

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a group or channel; its maker is its owner
    #[command(after_help = "\
Example:
  carillon conversation create --user alice --members bob,carol --name harbour

A name is unique in the tenant, and for services and administrators to give: with a development context, --name acts as a service by itself. If the name is taken by a conversation of the same owner, that one is the answer.")]
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
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// Add members; those who are members already get the role
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
    },
    /// Remove members
    Remove {
        #[command(flatten)]
        who: As,
        /// Which, by id or name
        conversation: String,
        /// Whom
        #[arg(required = true, value_delimiter = ',', value_name = "HANDLE")]
        members: Vec<String>,
    },
    /// List the conversations one is in, or the members of one
    List {
        #[command(flatten)]
        who: As,
        /// Which one's members, by id or name
        conversation: Option<String>,
        /// Print an object a line
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Create { who, members, name, kind, json } => create(who, members, name, kind, json).await,
        Command::Add { who, conversation, members, admin } => {
            let role = if admin { MemberRole::ADMIN } else { MemberRole::MEMBER };
            change(who, conversation, members, Some(role)).await
        }
        Command::Remove { who, conversation, members } => change(who, conversation, members, None).await,
        Command::List { who, conversation: None, json } => list(who, json).await,
        Command::List { who, conversation: Some(conversation), json } => list_members(who, conversation, json).await,
    }
}

async fn create(who: As, members: Vec<String>, name: Option<String>, kind: Kind, json: bool) -> Result<(), Failure> {
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
async fn change(who: As, conversation: String, members: Vec<String>, role: Option<MemberRole>) -> Result<(), Failure> {
    let asking = who.ask(Use::Ask).await?;
    let label = asking
        .within(async |session| {
            let id = session.names.conversation(&conversation).await?;
            let users = session.names.users(&members).await?;
            let done = match role {
                Some(role) => session.client.add_members(id, &users, role).await,
                None => session.client.remove_members(id, &users).await,
            };
            done.map_err(|error| Failure::request(&format!("changing {conversation}"), error))?;
            session.names.label(id).await
        })
        .await?;
    let members = members.join(", ");
    let (members, mut out) = (escape(&members), Out::new());
    match role {
        Some(MemberRole::ADMIN) => out.line(format_args!("{members}: in {label} as admin"))?,
        Some(_) => out.line(format_args!("{members}: in {label}"))?,
        None => out.line(format_args!("{members}: no longer in {label}"))?,
    }
    Ok(out.flush()?)
}

async fn list(who: As, json: bool) -> Result<(), Failure> {
    let (all, peers) = who
        .ask(Use::Ask)
        .await?
        .within(async |session| {
            let all = session.names.list().await?;
            let peers: Vec<_> = all.iter().map(|found| found.entry.peer).collect();
            Ok((all, handles(session, &peers).await?))
        })
        .await?;
    let mut out = Out::new();
    let mut rows = vec![["ID", "KIND", "NAME", "ROLE", "MEMBERS", "LAST", "READ UP TO"].map(String::from).to_vec()];
    for (found, peer) in all.iter().zip(peers) {
        let entry = &found.entry;
        let is_direct = entry.kind == ConversationKind::DIRECT;
        let peer = is_direct.then_some(peer);
        let (id, kind, role) = (entry.conversation.to_string(), kind_name(entry.kind), role_name(entry.role));
        let (last, read_up_to) = (entry.last_seq.0, entry.read_up_to.0);
        if json {
            out.json(&json!({
                "conversation": id, "kind": kind, "name": found.name, "peer": peer, "role": role,
                "members": entry.members, "last_seq": last, "read_up_to": read_up_to,
            }))?;
            continue;
        }
        let name = match (&found.name, peer) {
            (Some(name), _) => escape(name).into_owned(),
            (None, Some(peer)) => format!("with {}", escape(&peer)),
            (None, None) => "-".to_owned(),
        };
        let counts = [entry.members.to_string(), last.to_string(), read_up_to.to_string()];
        rows.push([id, kind.to_owned(), name, role.to_owned()].into_iter().chain(counts).collect());
    }
    if !json && all.is_empty() {
        out.line("in no conversation yet")?;
    } else if !json {
        out.table(&rows)?;
    }
    Ok(out.flush()?)
}

async fn list_members(who: As, conversation: String, json: bool) -> Result<(), Failure> {
    let (members, handles) = who
        .ask(Use::Ask)
        .await?
        .within(async |session| {
            let id = session.names.conversation(&conversation).await?;
            let members = session.client.members(id).await;
            let members = members.map_err(|error| Failure::request(&format!("listing {conversation}"), error))?;
            let users: Vec<_> = members.iter().map(|member| member.user).collect();
            Ok((members, handles(session, &users).await?))
        })
        .await?;
    let mut out = Out::new();
    let mut rows = vec![["USER", "ROLE", "JOINED AFTER", "READ UP TO"].map(String::from).to_vec()];
    for (member, handle) in members.iter().zip(handles) {
        let (role, joined, read_up_to) = (role_name(member.role), member.joined.0, member.read_up_to.0);
        if json {
            out.json(&json!({ "user": handle, "role": role, "joined_after": joined, "read_up_to": read_up_to }))?;
        } else {
            let counts = [joined.to_string(), read_up_to.to_string()];
            rows.push([escape(&handle).into_owned(), role.to_owned()].into_iter().chain(counts).collect());
        }
    }
    if !json {
        out.table(&rows)?;
    }
    Ok(out.flush()?)
}

/// Handles of users, in their order; ids of nobody among them are of no matter.
async fn handles(session: &mut Session, users: &[UserId]) -> Result<Vec<String>, Failure> {
    if users.is_empty() { Ok(Vec::new()) } else { session.names.handles(users).await }
}
