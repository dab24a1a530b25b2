//! A record as its kind and fields.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carillon_core::record::{
    CatchUpBounded, CursorsMoved, DingAdded, DingDelivery, DingOutcome, Grant, Message, PlannedStep, ReadMarked, Record,
};
use carillon_protocol::ids::UserId;
use serde_json::{Value, json};

type Fields = Vec<(&'static str, Value)>;

/// The fields of a list, by name.
macro_rules! fields {
    ($($name:ident: $value:expr),* $(,)?) => {
        vec![$((stringify!($name), json!($value))),*]
    };
}

/// A record's kind and its fields, the time apart. Identifiers of 64 bits are texts: JSON's numbers are too small.
pub(super) fn describe(record: &Record, payloads: bool) -> (&'static str, Fields) {
    match record {
        Record::Message(record) => ("Message", message(record, payloads)),
        Record::TenantAdded(record) => ("TenantAdded", fields! { tenant: record.tenant.0, name: &*record.name }),
        Record::UserAdded(record) => (
            "UserAdded",
            fields! {
                tenant: record.tenant.0, user: record.user.0, personal: record.personal.to_string(),
                handle: &*record.handle,
            },
        ),
        Record::DeviceAdded(record) => {
            ("DeviceAdded", fields! { tenant: record.tenant.0, user: record.user.0, device: record.device.to_string() })
        }
        Record::DeviceRetired(record) => (
            "DeviceRetired",
            fields! { tenant: record.tenant.0, user: record.user.0, device: record.device.to_string() },
        ),
        Record::ProducerAdded(record) => (
            "ProducerAdded",
            fields! { tenant: record.tenant.0, user: record.user.0, producer: record.producer.to_string() },
        ),
        Record::ProducerRetired(record) => (
            "ProducerRetired",
            fields! { tenant: record.tenant.0, user: record.user.0, producer: record.producer.to_string() },
        ),
        Record::ConversationAdded(record) => (
            "ConversationAdded",
            fields! {
                tenant: record.tenant.0, conversation: record.conversation.to_string(),
                conversation_kind: format!("{:?}", record.kind), post_policy: format!("{:?}", record.post_policy),
                by: record.by.0, name: &*record.name, members: grants(&record.grants),
            },
        ),
        Record::MembersAdded(record) => (
            "MembersAdded",
            fields! {
                conversation: record.conversation.to_string(), by: record.by.0, members: grants(&record.grants),
            },
        ),
        Record::MembersRemoved(record) => (
            "MembersRemoved",
            fields! {
                conversation: record.conversation.to_string(), by: record.by.0,
                change: format!("{:?}", record.change), users: users(&record.users),
            },
        ),
        Record::ReadMarked(record) => ("ReadMarked", read_marked(record)),
        Record::CursorsMoved(record) => ("CursorsMoved", cursors_moved(record)),
        Record::CatchUpBounded(record) => ("CatchUpBounded", catch_up_bounded(record)),
        Record::DingAdded(record) => ("DingAdded", ding(record, payloads)),
        Record::DingAttempted(record) => (
            "DingAttempted",
            fields! { ding: record.ding.to_string(), step: record.step, outlet: format!("{:?}", record.outlet) },
        ),
        Record::DingDeferred(record) => {
            ("DingDeferred", fields! { ding: record.ding.to_string(), step: record.step, until_ms: record.until.0 })
        }
        Record::DingsDelivered(record) => ("DingsDelivered", fields! { entries: deliveries(&record.entries) }),
        Record::DingOutcomes(record) => ("DingOutcomes", fields! { entries: outcomes(&record.entries) }),
        Record::DingConfirmed(record) => (
            "DingConfirmed",
            fields! { ding: record.ding.to_string(), user: record.user.0, via: format!("{:?}", record.via) },
        ),
        Record::DingEnded(record) => {
            ("DingEnded", fields! { ding: record.ding.to_string(), state: format!("{:?}", record.state) })
        }
        Record::DingForgotten(record) => ("DingForgotten", fields! { ding: record.ding.to_string() }),
    }
}

fn message(Message { meta, deliver }: &Message, payloads: bool) -> Fields {
    let mut fields = fields! {
        tenant: meta.tenant.0, conversation: deliver.conversation.to_string(), seq: deliver.seq.0,
        author: deliver.author.0, message_kind: format!("{:?}", deliver.kind), producer: meta.producer.to_string(),
        number: meta.number, low: meta.low, payload_bytes: deliver.payload.len(),
    };
    if payloads {
        fields.push(payload(&deliver.payload));
    }
    fields
}

fn ding(record: &DingAdded, payloads: bool) -> Fields {
    let mut fields = fields! {
        tenant: record.tenant.0, ding: record.ding.to_string(), sender: record.sender.0, key: record.key.to_string(),
        starts_at_ms: record.starts_at.0, expires_at_ms: record.expires_at.0,
        conversation: record.conversation.to_string(), seq: record.seq.0, quiet_from_min: record.quiet_from_min,
        quiet_to_min: record.quiet_to_min, steps: steps(&record.steps), message_kind: format!("{:?}", record.kind), recipients: users(&record.recipients),
        payload_bytes: record.payload.len(),
    };
    if payloads {
        fields.push(payload(&record.payload));
    }
    fields
}

fn steps(steps: &[PlannedStep]) -> Vec<Value> {
    let step = |step: &PlannedStep| {
        json!({
            "outlet": format!("{:?}", step.outlet), "after_ms": step.after_ms, "times": step.times,
            "repeat_every_ms": step.repeat_every_ms, "heeds_quiet": step.heeds_quiet,
        })
    };
    steps.iter().map(step).collect()
}

fn deliveries(entries: &[DingDelivery]) -> Vec<Value> {
    entries.iter().map(|entry| json!({ "ding": entry.ding.to_string(), "user": entry.user.0 })).collect()
}

fn outcomes(entries: &[DingOutcome]) -> Vec<Value> {
    let outcome = |outcome: &DingOutcome| {
        json!({
            "ding": outcome.ding.to_string(), "user": outcome.user.0, "attempt": outcome.attempt,
            "state": format!("{:?}", outcome.state), "cancel": format!("{:?}", outcome.cancel), "detail": outcome.detail,
        })
    };
    entries.iter().map(outcome).collect()
}

fn read_marked(record: &ReadMarked) -> Fields {
    fields! { conversation: record.conversation.to_string(), user: record.user.0, up_to: record.up_to.0 }
}

fn cursors_moved(record: &CursorsMoved) -> Fields {
    let moved = record.moves.iter().map(|moved| {
        json!({
            "tenant": moved.tenant.0, "user": moved.user.0, "device": moved.device.to_string(),
            "position": moved.position.0,
        })
    });
    fields! { moves: moved.collect::<Vec<_>>() }
}

fn catch_up_bounded(record: &CatchUpBounded) -> Fields {
    fields! {
        tenant: record.tenant.0, user: record.user.0, device: record.device.to_string(), from: record.from.0,
        through: record.through.0, newest: record.newest,
    }
}

fn grants(grants: &[Grant]) -> Vec<Value> {
    let member = |grant: &Grant| json!({ "user": grant.user.0, "role": format!("{:?}", grant.role) });
    grants.iter().map(member).collect()
}

fn users(users: &[UserId]) -> Vec<u32> {
    users.iter().map(|user| user.0).collect()
}

/// Text if it is, else base64.
fn payload(payload: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(payload) {
        Ok(text) => ("text", json!(text)),
        Err(_) => ("base64", json!(BASE64_STANDARD.encode(payload))),
    }
}
