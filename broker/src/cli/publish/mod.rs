//! `carillon pub`: messages out.

mod held;
mod input;
mod ndjson;
mod pipeline;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_client::{ConnectError, MessageKind, PublishError, Published, To};
use clap::{ArgGroup, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::failure::{Exit, Failure};
use super::names::Names;
use super::out::{Out, note};
use super::session::{As, Asking, Session, Use};
use super::time::rfc3339;
use input::{Form, Target};
use pipeline::{OnBad, Pipeline};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// UTF-8 text.
    Text,
    /// A voice note.
    Voice,
    /// A picture.
    Picture,
    /// A file.
    File,
    /// A mail.
    Mail,
    /// A card with actions.
    Card,
    /// Takes an earlier message back.
    Recall,
    /// Replaces an earlier message.
    Edit,
}

impl Kind {
    /// As the protocol has it.
    pub(crate) fn message_kind(self) -> MessageKind {
        match self {
            Self::Text => MessageKind::TEXT,
            Self::Voice => MessageKind::VOICE,
            Self::Picture => MessageKind::PICTURE,
            Self::File => MessageKind::FILE,
            Self::Mail => MessageKind::MAIL,
            Self::Card => MessageKind::CARD,
            Self::Recall => MessageKind::RECALL,
            Self::Edit => MessageKind::EDIT,
        }
    }
}

/// Publish a message, or a message a line; done when it is durable
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("target"),
    group = ArgGroup::new("content").required(true),
    group = ArgGroup::new("stream"),
    after_help = "\
Examples:
  carillon pub --user alice --to bob hello
  carillon pub --user alice --conversation tour 'gate 7'
  carillon pub --user alice --to bob --kind picture - < cat.png
  journalctl -n 5000 | carillon pub --user alice --conversation tour --lines
  carillon pub --user alice --ndjson --keep-going --json < messages.ndjson > results.ndjson

A line of --ndjson is an object:
  to, or conversation     a handle; an id or a name. Left out: --to, --conversation
  kind                    as --kind; left out: --kind
  text or payload_base64  the message
  id                      anything; comes back with the result
  {\"to\":\"bob\",\"text\":\"hello\"}
  {\"id\":17,\"conversation\":\"tour\",\"kind\":\"picture\",\"payload_base64\":\"iVBORw0K\"}

A message is printed as conversation, seq and position once it is durable; with --json, as an object:
  {\"conversation\":\"9\",\"seq\":1,\"position\":34,\"time\":\"…\",\"repeated\":false}
Of lines only the count is printed, unless --json asks for each: then an object a line, in their order, with its number in \"line\" and its \"id\" if it had one; for a line that was not published \"error\", and in \"code\" why the broker refused it or null.

A line that cannot be sent ends the command: exit code 2 if the line is wrong, else that of the broker's refusal. Up to 1,024 lines are on their way at once, so some after a refused one may have been published. With --keep-going such lines are named and the others sent; then the exit code is 1 if there were any.

Interrupted or killed, nothing is published twice: what was on its way is kept, and the next `pub` of the user sends it first. If the broker was restored from a backup since, that is not sent, because users and conversations may have other numbers now: the command says so, publishes nothing and ends with exit code 1; so does one that is at work when it happens. --lines and --ndjson wait for a broker that is away for as long as it takes."
)]
pub(crate) struct Args {
    #[command(flatten)]
    who: As,
    /// To this user
    #[arg(long, value_name = "HANDLE", group = "target")]
    to: Option<String>,
    /// Into this conversation
    #[arg(long, value_name = "ID|NAME", group = "target")]
    conversation: Option<String>,
    /// The message; `-` takes all of standard input
    #[arg(group = "content")]
    text: Option<String>,
    /// A message for each line of standard input, in order
    #[arg(long, groups = ["content", "stream"])]
    lines: bool,
    /// A message for each line of standard input, in order: a JSON object that says what and to whom
    #[arg(long, groups = ["content", "stream"])]
    ndjson: bool,
    /// Name lines that cannot be sent, and send the others
    #[arg(long, requires = "stream")]
    keep_going: bool,
    /// What the message is
    #[arg(long, value_enum, default_value = "text")]
    kind: Kind,
    /// Print an object a message
    #[arg(long)]
    json: bool,
}

/// What a message is and where it goes, unless it says otherwise.
#[derive(Debug)]
struct Defaults {
    to: Option<To>,
    kind: Kind,
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, to, conversation, text, lines: _, ndjson, keep_going, kind, json } = args;
    let target = to.map(Target::User).or(conversation.map(Target::Conversation));
    if target.is_none() && !ndjson {
        return Err(Failure::usage("to whom? Say --to HANDLE or --conversation ID|NAME"));
    }
    let asking = who.ask(Use::Publish).await?;
    let slot = Arc::clone(&asking.session.slot);
    let publishing = async {
        settle_earlier(&asking.session).await?;
        let to = match &target {
            Some(target) => Some(asking.session.patience().wait(resolve(&asking.session.names, target)).await?),
            None => None,
        };
        let (defaults, mut out) = (Defaults { to, kind, json }, Out::new());
        match (text, to) {
            (Some(text), Some(to)) => publish_one(&asking, to, &defaults, text, &mut out).await?,
            _ => {
                let form = if ndjson { Form::Object } else { Form::Text };
                let lines = input::read(form, asking.session.client.welcome().payload_bytes_max as usize);
                let on_bad = if keep_going { OnBad::KeepGoing } else { OnBad::Stop };
                Pipeline::new(&asking.session, &defaults, on_bad, &mut out).run(lines).await?;
            }
        }
        Ok::<_, Failure>(out.flush()?)
    };
    let done = publishing.await;
    let done = asking.close(done).await;
    if done.as_ref().is_err_and(Failure::is_reset) {
        // This failure says it, of the earlier ones or of those of this run.
        slot.told().map_err(ConnectError::Store)?;
    }
    done
}

/// The user or conversation that is meant.
async fn resolve(names: &Names, target: &Target) -> Result<To, Failure> {
    match target {
        Target::User(handle) => Ok(names.user(handle).await?.into()),
        Target::Conversation(conversation) => Ok(names.conversation(conversation).await?.into()),
    }
}

/// What an interrupted run left is sent first, by the SDK; here it is only told. What can never be sent, because the broker was
/// restored since, ends the command before anything else is sent: a script must not take it for done.
async fn settle_earlier(session: &Session) -> Result<(), Failure> {
    let earlier = session.client.recovered();
    if earlier.is_empty() {
        return Ok(());
    }
    let count = earlier.len();
    let (mut refused, mut void) = (0u64, 0u64);
    for publish in earlier {
        match held::saying(&session.client, note, publish).await {
            Ok(_) => {}
            Err(PublishError::Reset) => void += 1,
            Err(_) => refused += 1,
        }
    }
    if void > 0 {
        let text = format!(
            "{}; nothing else was published: run this again to publish it, and look at what the interrupted run was to send",
            left_void(void)
        );
        return Err(Failure::caused(Exit::Failed, text, PublishError::Reset));
    }
    note(format_args!("carillon: sent what an interrupted run had left: {count} messages, {refused} of them refused"));
    Ok(())
}

/// What became of messages that an interrupted run left, after a restore.
pub(super) fn left_void(count: u64) -> String {
    let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
    format!(
        "the broker was restored from a backup: {messages} that an interrupted `pub` had left will not be sent; whether any was \
         published before is not known"
    )
}

async fn publish_one(asking: &Asking, to: To, defaults: &Defaults, text: String, out: &mut Out) -> Result<(), Failure> {
    let (session, kind) = (&asking.session, defaults.kind.message_kind());
    let payload = if text == "-" {
        let bytes_max = u64::from(session.client.welcome().payload_bytes_max);
        let mut bytes = Vec::new();
        let read = tokio::io::stdin().take(bytes_max + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| Failure::caused(Exit::Failed, format!("cannot read standard input: {error}"), error))?;
        check_text(kind, &bytes, "standard input")?;
        Bytes::from(bytes)
    } else {
        Bytes::from(text)
    };
    let timeout: Duration = session.timeout();
    let publishing = held::saying(&session.client, note, session.client.publish(to, kind, payload));
    let published = tokio::time::timeout(timeout, publishing).await.map_err(|_| {
        let text = format!(
            "the broker has not said within {timeout:?} that the message is durable{}; the next `pub` of this user sends it \
             again if need be, never twice",
            held::reason(&session.client)
        );
        Failure::new(Exit::Unreachable, text)
    })??;
    if defaults.json {
        return Ok(out.json(&object(&published))?);
    }
    let Published { conversation, seq, position, .. } = published;
    Ok(out.line(format_args!("conversation {conversation}, seq {seq}, position {position}"))?)
}

/// A message that is durable, for programs.
fn object(published: &Published) -> Value {
    let Published { conversation, seq, position, time, repeated, .. } = *published;
    json!({
        "conversation": conversation.to_string(),
        "seq": seq.0,
        "position": position.0,
        "time": rfc3339(time),
        "repeated": repeated != 0,
    })
}

/// A text message is UTF-8, so that every client can show it.
fn check_text(kind: MessageKind, bytes: &[u8], what: &str) -> Result<(), Failure> {
    if kind == MessageKind::TEXT && std::str::from_utf8(bytes).is_err() {
        let text = format!("{what} is not UTF-8, which a text message must be: convert it, or say --kind file");
        return Err(Failure::usage(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_must_be_text() {
        assert!(check_text(MessageKind::TEXT, b"\xff", "line 1").is_err());
        assert!(check_text(MessageKind::FILE, b"\xff", "line 1").is_ok());
    }
}
