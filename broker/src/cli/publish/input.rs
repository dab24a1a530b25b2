//! Standard input as lines, each with its number, read by a task of its own.

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use super::ndjson;
use crate::cli::failure::{Exit, Failure};

/// Lines that are read and not yet sent: up to 16 × 400 KiB. Full: no more is read.
const LINES_READ_MAX: usize = 16;

/// What a line of standard input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The payload.
    Text,
    /// An object that says what is to be sent, and where.
    Object,
}

/// What a line asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// What its sender calls it.
    pub(super) id: Option<Value>,
    /// To whom, if it is not the command's default.
    pub(super) target: Option<Target>,
    /// What it is, if it is not the command's default.
    pub(super) kind: Option<super::Kind>,
    pub(super) payload: Bytes,
}

/// To whom, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The user with this handle.
    User(String),
    /// The conversation with this id or name.
    Conversation(String),
}

/// A line that asks for nothing that can be done.
#[derive(Debug)]
pub(super) struct Bad {
    /// What its sender calls it, if that could be read.
    pub(super) id: Option<Value>,
    pub(super) failure: Failure,
}

/// A line that was read.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Bytes of the input up to its end.
    pub(super) end: u64,
    pub(super) wanted: Result<Wanted, Bad>,
}

/// Lines on their way; an error is the input's, and the last.
pub(super) type Lines = mpsc::Receiver<Result<Line, Failure>>;

/// Begins to read standard input. The task ends with the input, or when nobody takes its lines any more.
pub(super) fn read(form: Form, payload_bytes_max: usize) -> Lines {
    let (sender, lines) = mpsc::channel(LINES_READ_MAX);
    let line_bytes_max = match form {
        Form::Text => payload_bytes_max,
        Form::Object => ndjson::line_bytes_max(payload_bytes_max),
    };
    tokio::spawn(async move {
        let mut reader = Reader {
            input: BufReader::with_capacity(64 * 1024, tokio::io::stdin()),
            form,
            line_bytes_max,
            end: 0,
            number: 0,
        };
        while let Some(line) = reader.next().await.transpose() {
            let is_last = line.is_err();
            if sender.send(line).await.is_err() || is_last {
                break;
            }
        }
    });
    lines
}

struct Reader<R> {
    input: R,
    form: Form,
    line_bytes_max: usize,
    /// Bytes read.
    end: u64,
    /// Lines read.
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Reader<R> {
    /// The next line that asks for something; `None` at the end. At most `line_bytes_max` bytes of it are held.
    async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let mut line = Vec::new();
            let limit = self.line_bytes_max as u64 + 1;
            self.end += read_up_to_newline(&mut self.input, limit, &mut line).await?;
            if line.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            let is_whole = line.last() == Some(&b'\n');
            if is_whole {
                line.pop();
            }
            let wanted = if line.len() > self.line_bytes_max {
                self.skip_the_rest().await?;
                let bytes_max = self.line_bytes_max;
                let text = format!("it is longer than the {bytes_max} bytes it may have: cut it, or send it as a file");
                Err(Bad { id: None, failure: Failure::usage(text) })
            } else if self.form == Form::Text {
                Ok(Wanted { payload: line.into(), ..Wanted::default() })
            } else if line.trim_ascii().is_empty() {
                continue;
            } else {
                ndjson::parse(&line)
            };
            return Ok(Some(Line { number: self.number, end: self.end, wanted }));
        }
    }

    /// Passes over what is left of a line that is too long.
    async fn skip_the_rest(&mut self) -> Result<(), Failure> {
        let mut part = Vec::new();
        loop {
            part.clear();
            let read = read_up_to_newline(&mut self.input, 64 * 1024, &mut part).await?;
            self.end += read;
            if read == 0 || part.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}

async fn read_up_to_newline(
    input: &mut (impl AsyncBufRead + Unpin),
    limit: u64,
    line: &mut Vec<u8>,
) -> Result<u64, Failure> {
    let read = input.take(limit).read_until(b'\n', line).await;
    let read =
        read.map_err(|error| Failure::caused(Exit::Failed, format!("cannot read standard input: {error}"), error))?;
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(form: Form, input: &[u8], line_bytes_max: usize) -> Vec<(u64, u64, Result<Bytes, String>)> {
        let mut reader = Reader { input: BufReader::with_capacity(3, input), form, line_bytes_max, end: 0, number: 0 };
        let mut lines = Vec::new();
        while let Some(Line { number, end, wanted }) = reader.next().await.unwrap() {
            let wanted = wanted.map(|wanted| wanted.payload).map_err(|bad| bad.failure.report(false).unwrap());
            lines.push((number, end, wanted));
        }
        lines
    }

    #[tokio::test]
    async fn lines_are_taken_as_they_are() {
        let found = lines(Form::Text, b"one\n\n two \r\nlast", 6).await;
        let expected = [(1, 4, &b"one"[..]), (2, 5, b""), (3, 12, b" two \r"), (4, 16, b"last")];
        assert_eq!(found, expected.map(|(number, end, line)| (number, end, Ok(line.into()))).to_vec());
        assert!(lines(Form::Text, b"", 4).await.is_empty());
    }

    #[tokio::test]
    async fn a_long_line_is_bad_and_what_follows_it_is_not() {
        assert!(lines(Form::Text, b"four\nfour", 4).await.iter().all(|(_, _, line)| line.is_ok()));
        let found = lines(Form::Text, b"four\na longer one\nfine\nfives", 4).await;
        assert!(found[1].2.as_ref().unwrap_err().contains("longer than the 4 bytes"), "{found:?}");
        assert_eq!(found[2], (3, 23, Ok("fine".into())));
        assert!(found[3].2.is_err());
        assert_eq!(found.len(), 4);
    }

    #[tokio::test]
    async fn between_objects_lines_may_be_empty_and_are_counted() {
        let found = lines(Form::Object, b"\n{\"text\":\"a\"}\n  \r\n{\"text\":\"b\"}\n", 100).await;
        let texts: Vec<_> = found.into_iter().map(|(number, _, line)| (number, line.unwrap())).collect();
        assert_eq!(texts, [(2, Bytes::from("a")), (4, Bytes::from("b"))]);
    }
}
