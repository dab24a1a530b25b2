//! `carillon read`: a mark.

use carillon::report::escape;
use carillon_client::Seq;
use serde_json::json;

use super::failure::Failure;
use super::out::Out;
use super::session::{As, Use};

/// Mark a conversation as read
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon read --user bob tour          up to the last message
  carillon read --user bob tour 3        up to message 3

A mark never goes back. With --json: {\"conversation\":\"5\",\"user\":\"bob\",\"read_up_to\":3}")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Which, by id or name
    conversation: String,
    /// Up to which message; default: the last
    seq: Option<u64>,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, conversation, seq, json } = args;
    let (user, id, label, marked) = who
        .ask(Use::Ask)
        .await?
        .within(async |session| {
            let id = session.names.conversation(&conversation).await?;
            let seq = match seq {
                Some(seq) => Seq(seq),
                None => session.names.own(id).await?.entry.last_seq,
            };
            let marked = session.client.mark_read(id, seq).await;
            let marked = marked.map_err(|error| Failure::request(&format!("marking {conversation}"), error))?;
            Ok((session.user.clone(), id, session.names.label(id).await?, marked))
        })
        .await?;
    let mut out = Out::new();
    if json {
        out.json(&json!({ "conversation": id.to_string(), "user": user, "read_up_to": marked.0 }))?;
    } else {
        out.line(format_args!("{} has read {label} up to #{marked}", escape(&user)))?;
    }
    Ok(out.flush()?)
}
