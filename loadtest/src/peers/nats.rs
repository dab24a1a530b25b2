//! NATS' text protocol, the client's half of it, without I/O: bytes in, events out.
//!
//! From the documentation of the NATS client protocol: operations end with CR LF, `MSG subject sid [reply] bytes` and
//! `PUB subject [reply] bytes` are followed by so many bytes and CR LF. Answers to what was published come as messages to an
//! inbox of this connection, whose last token is the number of what they answer: that is all that JetStream needs.
//!
//! Neither headers nor verbose mode is asked for, so that the server sends nothing but these operations.

use std::fmt::Write;

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;

use super::dialect::Event;
use crate::limits::PEER_LINE_BYTES_MAX;

/// The one subscription to what is published.
const DELIVERIES: &str = "1";

/// The subscription to answers.
const ANSWERS: &str = "2";

/// Whether what is published is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Core NATS: a message is sent, and nobody says what became of it.
    None,
    /// JetStream: the stream that takes it says so.
    JetStream,
}

/// One connection's half of the protocol.
#[derive(Debug)]
pub(crate) struct Nats {
    answers: Answers,
    inbox: String,
}

/// An answer of JetStream: to a message, or to a request about streams. What else it says does not matter here.
#[derive(Deserialize)]
struct Answer {
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: u32,
    #[serde(default)]
    description: String,
}

impl Nats {
    /// `name` tells this connection from all others.
    pub(crate) fn new(name: &str, answers: Answers) -> Self {
        Self { answers, inbox: format!("_INBOX.{name}") }
    }

    /// What follows the handshake, up to the server's word that it has understood.
    pub(crate) fn open(&self, out: &mut BytesMut) {
        let version = env!("CARGO_PKG_VERSION");
        put(
            out,
            format_args!(
                "CONNECT {{\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"protocol\":1,\"echo\":true,\
                 \"lang\":\"rust\",\"name\":\"carillon-loadtest\",\"version\":\"{version}\"}}\r\n"
            ),
        );
        if self.answers == Answers::JetStream {
            put(out, format_args!("SUB {}.* {ANSWERS}\r\n", self.inbox));
        }
        put(out, format_args!("PING\r\n"));
    }

    /// Asks for what is published to this subject.
    pub(crate) fn subscribe(&self, subject: &str, out: &mut BytesMut) {
        put(out, format_args!("SUB {subject} {DELIVERIES}\r\nPING\r\n"));
    }

    /// Publishes, under a number that comes back with the answer, if there is one.
    pub(crate) fn publish(&self, subject: &str, number: u32, payload: &[u8], out: &mut BytesMut) {
        match self.answers {
            Answers::None => put(out, format_args!("PUB {subject} {}\r\n", payload.len())),
            Answers::JetStream => {
                put(out, format_args!("PUB {subject} {}.{number} {}\r\n", self.inbox, payload.len()));
            }
        }
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    /// Takes the next operation that matters from what has come; what the server must be told goes into `out`. `None`: more
    /// bytes are needed.
    ///
    /// # Errors
    /// The server said what it may not say, or ends the connection.
    pub(crate) fn take(&self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Event>, String> {
        while let Some(end) = line_end(input)? {
            let line = std::str::from_utf8(&input[..end]).map_err(|_| "a line that is no text".to_owned())?;
            let (operation, rest) = line.split_once(' ').unwrap_or((line, ""));
            match operation {
                "MSG" => {
                    let message = Message::parse(rest).ok_or_else(|| format!("no message: {line:?}"))?;
                    let (begin, whole) = (end + 2, end + 2 + message.bytes + 2);
                    if input.len() < whole {
                        return Ok(None);
                    }
                    let (is_delivery, number, bytes) = (message.sid == DELIVERIES, message.number(), message.bytes);
                    let mut operation = input.split_to(whole).freeze();
                    operation.advance(begin);
                    operation.truncate(bytes);
                    return if is_delivery { Ok(Some(Event::Message(operation))) } else { answer(number, &operation) };
                }
                "PING" => out.extend_from_slice(b"PONG\r\n"),
                "PONG" => {
                    input.advance(end + 2);
                    return Ok(Some(Event::Confirmed));
                }
                "-ERR" => return Err(format!("the server says {rest}")),
                "INFO" | "+OK" => {}
                other => return Err(format!("the server says {other:?}, which nobody here knows")),
            }
            input.advance(end + 2);
        }
        Ok(None)
    }
}

/// The head of a message.
struct Message<'a> {
    subject: &'a str,
    sid: &'a str,
    bytes: usize,
}

impl<'a> Message<'a> {
    fn parse(rest: &'a str) -> Option<Self> {
        let mut words = rest.split_ascii_whitespace();
        let (subject, sid) = (words.next()?, words.next()?);
        let bytes = words.next_back()?.parse().ok()?;
        (bytes <= PEER_LINE_BYTES_MAX).then_some(Self { subject, sid, bytes })
    }

    /// What it answers, if it came to the inbox.
    fn number(&self) -> Option<u32> {
        self.subject.rsplit_once('.')?.1.parse().ok()
    }
}

/// Where the first line ends, without its CR LF.
fn line_end(input: &[u8]) -> Result<Option<usize>, String> {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && input[end - 1] == b'\r' => Ok(Some(end - 1)),
        Some(_) => Err("a line that does not end with CR LF".to_owned()),
        None if input.len() > PEER_LINE_BYTES_MAX => Err("a line without an end".to_owned()),
        None => Ok(None),
    }
}

fn answer(number: Option<u32>, payload: &Bytes) -> Result<Option<Event>, String> {
    let number = number.ok_or("an answer to nothing")?;
    let answer: Answer = serde_json::from_slice(payload).map_err(|error| format!("an answer that is none: {error}"))?;
    Ok(Some(match answer.error {
        None => Event::Accepted(number),
        Some(error) => Event::Refused(format!("{} (code {})", error.description, error.code)),
    }))
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a buffer grows");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the codec these bytes, in every possible pair of parts, and compares the events and what is said back.
    fn check(input: &[u8], events: &[Event], said: &[u8]) {
        for cut in 0..=input.len() {
            let nats = Nats::new("a", Answers::JetStream);
            let (mut buffer, mut out, mut seen) = (BytesMut::new(), BytesMut::new(), Vec::new());
            for part in [&input[..cut], &input[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(event) = nats.take(&mut buffer, &mut out).unwrap() {
                    seen.push(event);
                }
            }
            assert_eq!(seen, events, "cut at {cut}");
            assert_eq!(&out[..], said, "cut at {cut}");
        }
    }

    #[test]
    fn what_the_server_says_is_understood_however_it_is_cut() {
        check(b"INFO {\"max_payload\":1}\r\nPONG\r\n", &[Event::Confirmed], b"");
        check(b"MSG here 1 5\r\nab\r\nc\r\nPING\r\n", &[Event::Message(Bytes::from_static(b"ab\r\nc"))], b"PONG\r\n");
        check(b"MSG here 1 back 0\r\n\r\n", &[Event::Message(Bytes::new())], b"");
        check(b"MSG _INBOX.a.7 2 24\r\n{\"stream\":\"s\",\"seq\":123}\r\n", &[Event::Accepted(7)], b"");
        check(
            b"MSG _INBOX.a.8 2 42\r\n{\"error\":{\"code\":503,\"description\":\"no\"}} \r\n",
            &[Event::Refused("no (code 503)".to_owned())],
            b"",
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (input, why) in [
            (&b"-ERR 'Unknown'\r\n"[..], "Unknown"),
            (b"WHAT 1\r\n", "WHAT"),
            (b"PONG\n", "CR LF"),
            (b"MSG here 1 x\r\n", "no message"),
            (b"MSG here 1 99999999999\r\n", "no message"),
            (b"MSG _INBOX.a 2 2\r\n{}\r\n", "answer to nothing"),
            (b"MSG _INBOX.a.1 2 2\r\n[]\r\n", "that is none"),
        ] {
            let refused = Nats::new("a", Answers::None).take(&mut BytesMut::from(input), &mut BytesMut::new());
            assert!(refused.as_ref().is_err_and(|text| text.contains(why)), "{refused:?}, expected {why}");
        }
        let endless = vec![b'a'; PEER_LINE_BYTES_MAX + 1];
        let refused = Nats::new("a", Answers::None).take(&mut BytesMut::from(&endless[..]), &mut BytesMut::new());
        assert!(refused.is_err());
    }

    #[test]
    fn what_is_said_to_the_server_is_as_documented() {
        let (core, stream) = (Nats::new("a", Answers::None), Nats::new("a", Answers::JetStream));
        let mut out = BytesMut::new();
        core.subscribe("here", &mut out);
        core.publish("here", 3, b"abc", &mut out);
        stream.publish("here", 4, b"", &mut out);
        assert_eq!(&out[..], b"SUB here 1\r\nPING\r\nPUB here 3\r\nabc\r\nPUB here _INBOX.a.4 0\r\n\r\n");
        out.clear();
        stream.open(&mut out);
        let text = std::str::from_utf8(&out).unwrap();
        let json = text.strip_prefix("CONNECT ").unwrap().split_once("\r\n").unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(json.0).is_ok(), "{text}");
        assert_eq!(json.1, "SUB _INBOX.a.* 2\r\nPING\r\n");
    }
}
