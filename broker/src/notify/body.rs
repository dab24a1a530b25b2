//! The JSON of a call and of a gateway's answer. `docs/DING.md` has examples, byte for byte; a test compares them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::kinds::MessageKind;
use serde::{Deserialize, Serialize};

use super::call::{Call, Verb};

/// What a POST says.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'a>,
}

/// Numbers that may not fit into 53 bits are texts, as everywhere in Carillon's JSON.
#[derive(Serialize)]
struct Data<'a> {
    key: String,
    outlet: &'a str,
    tenant: &'a str,
    recipient: &'a str,
    sender: &'a str,
    ding: String,
    step: u8,
    attempt: u16,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<String>,
    created_at: String,
    expires_at: String,
}

/// The id that tells start and cancel of one key apart.
pub(super) fn id(call: &Call) -> String {
    let verb = match call.verb {
        Verb::Start => "start",
        Verb::Cancel => "cancel",
    };
    format!("{}-{verb}", call.key)
}

/// The body, the same over retries and restarts. A cancel carries no content: there is nothing to be shown.
///
/// # Panics
/// Never: every field has a form in JSON.
pub(super) fn body(call: &Call, outlet: &str) -> Vec<u8> {
    let text = if call.kind == MessageKind::TEXT { std::str::from_utf8(&call.payload).ok() } else { None };
    let (r#type, text, payload) = match call.verb {
        Verb::Start if text.is_some() => ("ding.step.started", text, None),
        Verb::Start => ("ding.step.started", None, Some(BASE64.encode(&call.payload))),
        Verb::Cancel => ("ding.step.cancelled", None, None),
    };
    let data = Data {
        key: call.key.to_string(),
        outlet,
        tenant: &call.tenant,
        recipient: &call.recipient,
        sender: &call.sender,
        ding: call.key.ding.to_string(),
        step: call.step,
        attempt: call.key.attempt,
        kind: kind(call.kind),
        text,
        payload,
        conversation: (call.conversation.0 > 0).then(|| call.conversation.to_string()),
        seq: (call.seq.0 > 0).then(|| call.seq.to_string()),
        created_at: rfc3339(call.created_at),
        expires_at: rfc3339(call.expires_at),
    };
    serde_json::to_vec(&Event { r#type, timestamp: rfc3339(call.started_at), data })
        .expect("every field has a form in JSON")
}

/// `text`, `voice`…; of a kind this version has no name for, its number.
fn kind(kind: MessageKind) -> String {
    let named = MessageKind::ALL.iter().find(|(known, _)| *known == kind);
    named.map_or_else(|| kind.0.to_string(), |(_, name)| name.to_ascii_lowercase())
}

/// With milliseconds, so that every time has one length.
fn rfc3339(time: Timestamp) -> String {
    let time = i64::try_from(time.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

/// What a gateway may say of a start, with a status of 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// It will try.
    Accepted,
    /// It has reached the recipient's device or mailbox.
    Delivered,
    /// The recipient has confirmed.
    Answered,
    /// It will not reach the recipient.
    Failed,
}

/// Reads an answer's body. What is not understood, a page of HTML perhaps, says no more than the HTTP status did.
pub(super) fn status(body: &[u8]) -> Status {
    #[derive(Deserialize)]
    struct Answer {
        status: Status,
    }
    serde_json::from_slice(body).map_or(Status::Accepted, |answer: Answer| answer.status)
}
