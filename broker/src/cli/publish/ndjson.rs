//! A message as a line of JSON.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::Kind;
use super::input::{Bad, Target, Wanted};
use crate::cli::failure::Failure;

/// What the line has beside the payload: 4 KiB for the names and the id. JSON writes a byte of text as up to six (`\u0001`).
pub(super) const fn line_bytes_max(payload_bytes_max: usize) -> usize {
    payload_bytes_max * 6 + 4 * 1024
}

/// The object, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Object {
    id: Option<Value>,
    to: Option<String>,
    conversation: Option<Value>,
    kind: Option<Kind>,
    text: Option<String>,
    payload_base64: Option<String>,
}

/// What a line asks for.
pub(super) fn parse(line: &[u8]) -> Result<Wanted, Bad> {
    let object: Object = serde_json::from_slice(line).map_err(|error| {
        // It may be known to its sender all the same.
        let id = serde_json::from_slice(line).ok().and_then(|mut value: Value| value.get_mut("id").map(Value::take));
        Bad { id, failure: Failure::caused(crate::cli::failure::Exit::Usage, explain(&error), error) }
    })?;
    let Object { id, to, conversation, kind, text, payload_base64 } = object;
    match target(to, conversation).and_then(|target| Ok((target, payload(text, payload_base64)?))) {
        Ok((target, payload)) => Ok(Wanted { id, target, kind, payload: payload.into() }),
        Err(failure) => Err(Bad { id, failure }),
    }
}

fn target(to: Option<String>, conversation: Option<Value>) -> Result<Option<Target>, Failure> {
    match (to, conversation) {
        (None, None) => Ok(None),
        (Some(handle), None) => Ok(Some(Target::User(handle))),
        (None, Some(Value::String(name))) => Ok(Some(Target::Conversation(name))),
        (None, Some(Value::Number(id))) if id.is_u64() => Ok(Some(Target::Conversation(id.to_string()))),
        (None, Some(_)) => Err(Failure::usage("`conversation` must be an id or a name")),
        (Some(_), Some(_)) => Err(Failure::usage("it has both `to` and `conversation`: leave one out")),
    }
}

fn payload(text: Option<String>, payload_base64: Option<String>) -> Result<Vec<u8>, Failure> {
    match (text, payload_base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).map_err(|error| {
            Failure::usage(format!("`payload_base64` is no base64 of the usual alphabet with padding: {error}"))
        }),
        (None, None) => Err(Failure::usage("it has nothing to send: `text` or `payload_base64` is missing")),
        (Some(_), Some(_)) => Err(Failure::usage("it has both `text` and `payload_base64`: leave one out")),
    }
}

/// What the parser says, without a line number: for it, every line is the first.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if error.is_data() { text.to_owned() } else { format!("it is no JSON: {text}, at column {}", error.column()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(line: &str) -> (Option<Value>, String) {
        let Bad { id, failure } = parse(line.as_bytes()).unwrap_err();
        (id, failure.report(false).unwrap())
    }

    #[test]
    fn a_line_says_what_and_to_whom() {
        let whole = br#"{"id":7,"to":"bob","kind":"picture","payload_base64":"AP8="}"#;
        let target = Some(Target::User("bob".into()));
        let expected = Wanted { id: Some(7.into()), target, kind: Some(Kind::Picture), payload: b"\0\xff"[..].into() };
        assert_eq!(parse(whole).unwrap(), expected);
        let short = parse(r#"{"text":"gr\u00fc\u00df dich"}"#.as_bytes()).unwrap();
        assert_eq!(short, Wanted { payload: "grüß dich".into(), ..Wanted::default() });
        for conversation in ["281474976710657", "\"281474976710657\""] {
            let line = format!("{{\"conversation\":{conversation},\"text\":\"\"}}");
            let wanted = parse(line.as_bytes()).unwrap();
            assert_eq!(wanted.target, Some(Target::Conversation("281474976710657".into())));
        }
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_and_keeps_its_id() {
        for (line, says) in [
            ("hello", "it is no JSON: expected value, at column 1"),
            (r#"{"text":"a""#, "it is no JSON: EOF"),
            ("[1]", "expected"),
            ("7", "expected an object"),
            (r#"{"txt":"a"}"#, "unknown field `txt`, expected one of `id`, `to`"),
            (r#"{"text":"a","kind":"vioce"}"#, "unknown variant `vioce`, expected one of `text`, `voice`"),
            (r#"{"text":1}"#, "invalid type: integer `1`, expected a string"),
            (r#"{"to":"b"}"#, "`text` or `payload_base64` is missing"),
            (r#"{"text":"a","payload_base64":"AA=="}"#, "both `text` and `payload_base64`"),
            (r#"{"to":"b","conversation":1,"text":"a"}"#, "both `to` and `conversation`"),
            (r#"{"conversation":-1,"text":"a"}"#, "must be an id or a name"),
            (r#"{"payload_base64":"A"}"#, "no base64"),
        ] {
            let (_, report) = bad(line);
            assert!(report.contains(says), "{line}: {report}");
        }
        assert_eq!(bad(r#"{"id":"x1","txt":"a"}"#).0, Some("x1".into()));
        assert_eq!(bad(r#"{"id":{"a":1},"to":"b"}"#).0, Some(serde_json::json!({ "a": 1 })));
    }

    #[test]
    fn the_longest_text_fits_a_line() {
        let text = "\u{1}".repeat(1_000);
        let line = serde_json::json!({ "text": text, "to": "b".repeat(64), "id": u64::MAX }).to_string();
        assert!(line.len() <= line_bytes_max(1_000));
    }
}
