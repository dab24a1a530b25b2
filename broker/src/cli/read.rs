//! `carillon read`: a mark.

use carillon_client::Seq;

use super::failure::Failure;
use super::out::Out;
use super::session::{As, Use};

/// Mark a conversation as read
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon read --user bob tour          up to the last message
  carillon read --user bob tour 3        up to message 3

A mark never goes back.")]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// Which, by id or name
    #[arg(value_name = "CONVERSATION")]
    conversation: String,
    /// Up to which message; default: the last
    #[arg(value_name = "SEQ")]
    seq: Option<u64>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, conversation, seq } = args;
    let (user, label, marked) = who
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
            Ok((session.user.clone(), session.names.label(id).await?, marked))
        })
        .await?;
    let mut out = Out::new();
    out.line(format_args!("{} has read {label} up to #{marked}", carillon::report::escape(&user)))?;
    Ok(out.flush()?)
}
