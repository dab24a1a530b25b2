//! `carillon user`: who is there.

use clap::Subcommand;
use serde_json::json;

use super::failure::Failure;
use super::out::Out;
use super::progress::{Progress, Unit};
use super::session::{As, Use};
use super::token::{Role, check_name};
use carillon::report::escape;

/// Who acts when nobody is named: making users is an administrator's work.
const ADMINISTRATOR: &str = "admin";

/// Make users known before they connect for the first time
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
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Command::Add { mut who, handles, json } = args.command;
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
