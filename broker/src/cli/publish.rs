//! `carillon pub`: messages out.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use carillon_client::{MessageKind, PublishHandle, Published, To};
use clap::{ArgGroup, ValueEnum};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

use super::failure::{Exit, Failure};
use super::out::{Out, note, progress};
use super::session::{As, Asking, Session, Use};
use super::time::rfc3339;

/// Publishes on their way at once: what a producer may have unsettled. Lines beyond it are not read yet.
const PIPELINE_MAX: usize = 1_024;

/// Lines between two looks at the counter on a terminal.
const PROGRESS_EVERY: u64 = 1_000;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
    group = ArgGroup::new("target").required(true),
    group = ArgGroup::new("content").required(true),
    after_help = "\
Examples:
  carillon pub --user alice --to bob hello
  carillon pub --user alice --conversation tour 'gate 7'
  journalctl -n 5000 | carillon pub --user alice --conversation tour --lines
  carillon pub --user alice --to bob --kind picture - < cat.png

A message is printed as conversation, seq and position once it is durable; with --json, as an object:
  {\"conversation\":\"9\",\"seq\":1,\"position\":34,\"time\":\"…\",\"repeated\":false}
With --lines only the count is printed, unless --json asks for each.

Interrupted or killed, nothing is published twice: what was on its way is kept, and the next `pub` of the user sends it first. --lines waits for a broker that is away for as long as it takes."
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
    #[arg(long, group = "content")]
    lines: bool,
    /// What the message is
    #[arg(long, value_enum, default_value = "text")]
    kind: Kind,
    /// Print an object a message
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { who, to, conversation, text, lines: _, kind, json } = args;
    let timeout = who.timeout;
    let asking = who.ask(Use::Publish).await?;
    let mut out = Out::new();
    settle_earlier(&asking.session).await;
    let to = match tokio::time::timeout(timeout, target(&asking.session, to, conversation)).await {
        Ok(Ok(to)) => to,
        Ok(Err(failure)) => return asking.close(Err(failure)).await,
        Err(_) => return asking.close(Err(Failure::new(Exit::Unreachable, "the broker does not answer"))).await,
    };
    let target = Target { to, kind: kind.message_kind(), json };
    let done = match text {
        Some(text) => publish_one(&asking, &target, text, timeout, &mut out).await,
        None => publish_lines(&asking, &target, &mut out).await,
    };
    let done = done.and_then(|()| Ok(out.flush()?));
    asking.close(done).await
}

struct Target {
    to: To,
    kind: MessageKind,
    json: bool,
}

/// What an interrupted run left is sent first, by the SDK; here it is only told.
async fn settle_earlier(session: &Session) {
    let earlier = session.client.recovered();
    if earlier.is_empty() {
        return;
    }
    let count = earlier.len();
    let mut refused = 0;
    for publish in earlier {
        refused += u64::from(publish.await.is_err());
    }
    note(format_args!("carillon: sent what an interrupted run had left: {count} messages, {refused} of them refused"));
}

async fn target(session: &Session, to: Option<String>, conversation: Option<String>) -> Result<To, Failure> {
    match (to, conversation) {
        (Some(handle), _) => Ok(session.names.user(&handle).await?.into()),
        (None, Some(conversation)) => Ok(session.names.conversation(&conversation).await?.into()),
        (None, None) => Err(Failure::usage("to whom? Say --to or --conversation")),
    }
}

async fn publish_one(
    asking: &Asking,
    target: &Target,
    text: String,
    timeout: Duration,
    out: &mut Out,
) -> Result<(), Failure> {
    let payload = if text == "-" {
        let bytes_max = u64::from(asking.session.client.welcome().payload_bytes_max);
        let mut bytes = Vec::new();
        let read = tokio::io::stdin().take(bytes_max + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| Failure::caused(Exit::Failed, format!("cannot read standard input: {error}"), error))?;
        check_text(target.kind, &bytes, "standard input")?;
        Bytes::from(bytes)
    } else {
        Bytes::from(text)
    };
    let publishing = asking.session.client.publish(target.to, target.kind, payload);
    let published = tokio::time::timeout(timeout, publishing).await.map_err(|_| {
        let text = format!(
            "the broker has not said within {timeout:?} that the message is durable; the next `pub` of this user sends it \
             again if need be, never twice"
        );
        Failure::new(Exit::Unreachable, text)
    })??;
    Ok(print(target, &published, out)?)
}

fn print(target: &Target, published: &Published, out: &mut Out) -> io::Result<()> {
    let Published { conversation, seq, position, time, repeated, .. } = *published;
    if target.json {
        return out.json(&serde_json::json!({
            "conversation": conversation.to_string(),
            "seq": seq.0,
            "position": position.0,
            "time": rfc3339(time),
            "repeated": repeated != 0,
        }));
    }
    out.line(format_args!("conversation {conversation}, seq {seq}, position {position}"))
}

/// Lines that are on their way, in order, and how it went so far.
struct Pipeline<'a> {
    target: &'a Target,
    out: &'a mut Out,
    open: VecDeque<PublishHandle>,
    durable: u64,
    /// Nobody reads the output any more; what is on its way is waited for all the same.
    is_unread: bool,
}

impl Pipeline<'_> {
    /// Waits for the oldest one.
    async fn settle_one(&mut self) -> Result<(), Failure> {
        let Some(oldest) = self.open.pop_front() else { return Ok(()) };
        let line = self.durable + 1;
        let published = oldest.await.map_err(|error| Failure::from(error).about(&format!("line {line}")))?;
        self.durable += 1;
        if self.target.json && !self.is_unread {
            print(self.target, &published, self.out).inspect_err(|_| self.is_unread = true)?;
        }
        if self.durable.is_multiple_of(PROGRESS_EVERY) && !self.is_unread {
            progress(format_args!("{} lines durable", self.durable));
            self.out.flush().inspect_err(|_| self.is_unread = true)?;
        }
        Ok(())
    }

    /// Waits for all.
    async fn settle(&mut self) -> Result<(), Failure> {
        while !self.open.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }
}

async fn publish_lines(asking: &Asking, target: &Target, out: &mut Out) -> Result<(), Failure> {
    let mut pipeline = Pipeline { target, out, open: VecDeque::new(), durable: 0, is_unread: false };
    let sent = send_lines(asking, &mut pipeline).await;
    // Lines before a bad one are on their way and count.
    let settled = pipeline.settle().await;
    progress("");
    let durable = pipeline.durable;
    if !target.json {
        let lines = if durable == 1 { "line" } else { "lines" };
        pipeline.out.line(format_args!("{durable} {lines} published, all durable"))?;
        pipeline.out.flush()?;
    }
    settled.and(sent)
}

/// Reads lines until the end, an interrupt, or one that cannot be sent.
async fn send_lines(asking: &Asking, pipeline: &mut Pipeline<'_>) -> Result<(), Failure> {
    let bytes_max = usize::try_from(asking.session.client.welcome().payload_bytes_max).unwrap_or(usize::MAX);
    let mut input = BufReader::with_capacity(64 * 1024, tokio::io::stdin());
    let mut number = 0;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        number += 1;
        let line = tokio::select! {
            biased;
            _ = &mut interrupted => {
                note("carillon: interrupted; waiting for the lines that were read");
                return Ok(());
            }
            line = read_line(&mut input, bytes_max, number) => line?,
        };
        let Some(line) = line else { return Ok(()) };
        check_text(pipeline.target.kind, &line, &format!("line {number}"))?;
        if pipeline.open.len() >= PIPELINE_MAX {
            pipeline.settle_one().await?;
        }
        let Target { to, kind, .. } = *pipeline.target;
        pipeline.open.push_back(asking.session.client.enqueue(to, kind, line).await?);
    }
}

/// A line without its newline; `None` at the end. At most `bytes_max` bytes are held.
async fn read_line(
    input: &mut (impl AsyncBufRead + Unpin),
    bytes_max: usize,
    number: u64,
) -> Result<Option<Bytes>, Failure> {
    let mut line = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = (&mut *input).take(limit).read_until(b'\n', &mut line).await;
    let read =
        read.map_err(|error| Failure::caused(Exit::Failed, format!("cannot read standard input: {error}"), error))?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > bytes_max {
        let text =
            format!("line {number} is longer than the {bytes_max} bytes of a message: cut it, or send it as a file");
        return Err(Failure::usage(text));
    }
    Ok(Some(line.into()))
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

    async fn lines(input: &[u8], bytes_max: usize) -> Vec<Result<Bytes, String>> {
        let mut input = BufReader::with_capacity(3, input);
        let mut lines = Vec::new();
        for number in 1.. {
            match read_line(&mut input, bytes_max, number).await {
                Ok(Some(line)) => lines.push(Ok(line)),
                Ok(None) => break,
                Err(failure) => {
                    lines.push(Err(failure.report(false).unwrap()));
                    break;
                }
            }
        }
        lines
    }

    #[tokio::test]
    async fn lines_are_taken_as_they_are() {
        let found = lines(b"one\n\n two \r\nlast", 6).await;
        let expected: Vec<Result<Bytes, String>> =
            [&b"one"[..], b"", b" two \r", b"last"].map(|line| Ok(line.into())).to_vec();
        assert_eq!(found, expected);
        assert!(lines(b"", 4).await.is_empty());
    }

    #[tokio::test]
    async fn a_long_line_is_named_and_one_that_just_fits_is_not() {
        assert_eq!(lines(b"four\nfour", 4).await.len(), 2);
        let found = lines(b"four\nfives\n", 4).await;
        assert!(found[1].as_ref().unwrap_err().contains("line 2 is longer than the 4 bytes"), "{found:?}");
    }

    #[test]
    fn a_text_must_be_text() {
        assert!(check_text(MessageKind::TEXT, b"\xff", "line 1").is_err());
        assert!(check_text(MessageKind::FILE, b"\xff", "line 1").is_ok());
    }
}
