//! `carillon user`: who is there, and with which sessions.

mod sessions;

use carillon_client::DeviceId;
use clap::Subcommand;
use serde_json::json;

use super::failure::Failure;
use super::out::Out;
use super::progress::{Progress, Unit};
use super::session::{As, Use};
use super::token::{Role, check_name};
use carillon::report::escape;

/// Who acts when nobody is named: looking after users is an administrator's work.
const ADMINISTRATOR: &str = "admin";

/// Make users known before they connect, show who is online, end sessions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make users, so that they can be written to; those who are there already stay as they are
    #[command(after_help = "\
Examples:
  carillon user add erin frank
  carillon user add erin,frank --json

A user also comes to be by connecting. With a development context this acts as an administrator, by default as the user \"admin\"; otherwise the context's token must be one of a service or administrator.\n\nWith --json, an object a line: {\"user\":\"erin\",\"user_id\":7}")]
    Add {
        #[command(flatten)]
        who: As,
        /// Their handles
        #[arg(required = true, value_delimiter = ',', value_name = "HANDLE")]
        handles: Vec<String>,
        /// Print an object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a user: the id, since when they are online, their sessions
    #[command(after_help = "\
Example:
  carillon user show bob

Their conversations: `carillon conversation list --user bob`. With --json, one object; `online_since` is null for who is not:
  {\"user\":\"bob\",\"user_id\":7,\"online_since\":\"…\",\"sessions\":[…]}
with sessions as `user sessions --json` prints them.")]
    Show {
        #[command(flatten)]
        who: As,
        /// Whom
        handle: String,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
    /// List the live sessions of a user
    #[command(after_help = "\
Example:
  carillon user sessions bob

Of oneself everybody may; of others services and administrators. With --json, an object a line:
  {\"device\":\"123\",\"producer\":null,\"edge\":0,\"since\":\"…\",\"client\":\"…\",\"address\":\"192.0.2.1:5000\"}")]
    Sessions {
        #[command(flatten)]
        who: As,
        /// Whose
        handle: String,
        /// Print an object a line
        #[arg(long)]
        json: bool,
    },
    /// End the live sessions of a user, or the one of a device
    #[command(after_help = "\
Examples:
  carillon user kick bob
  carillon user kick bob --device 123

No token is taken back: who connects again is let in. Of oneself everybody may; of others services and administrators. With --json: {\"user\":\"bob\",\"sessions\":1}")]
    Kick {
        #[command(flatten)]
        who: As,
        /// Whose
        handle: String,
        /// The session's device, by the number that `user sessions` prints; default: all
        #[arg(long, value_name = "ID")]
        device: Option<u64>,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Add { who, handles, json } => add(who, handles, json).await,
        Command::Show { who, handle, json } => sessions::show(who, handle, json).await,
        Command::Sessions { who, handle, json } => sessions::list(who, handle, json).await,
        Command::Kick { who, handle, device, json } => sessions::kick(who, handle, device.map(DeviceId), json).await,
    }
}

async fn add(mut who: As, handles: Vec<String>, json: bool) -> Result<(), Failure> {
    for handle in &handles {
        check_name("user", handle)?;
    }
    who.user_or(ADMINISTRATOR)?;
    let users = who
        .ask_with(Use::Ask, Role::Admin)
        .await?
        .through(async |session| {
            let patience = session.patience();
            let progress = Progress::new("making", Some(handles.len() as u64), Unit::Things("users"));
            let mut users = Vec::with_capacity(handles.len());
            for handle in &handles {
                let made = patience.wait(async {
                    let made = session.client.create_user(handle).await;
                    made.map_err(|error| Failure::request(&format!("making {handle:?}"), error))
                });
                users.push(made.await?);
                progress.at(users.len() as u64);
            }
            Ok(users)
        })
        .await?;
    let mut out = Out::new();
    for (handle, user) in handles.iter().zip(users) {
        if json {
            out.json(&json!({ "user": handle, "user_id": user.0 }))?;
        } else {
            out.line(format_args!("{} is user {user}", escape(handle)))?;
        }
    }
    Ok(out.flush()?)
}
