//! Events as lines: for people, and for programs.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carillon_client::{
    Change, ConversationId, ConversationKind, DingProgress, DingPush, DingUpdate, Event, Membership, Message,
    MessageKind, ReadCountsEntry, ReadCountsUpdate, ReadUpdate, Role, Seq, SignalKind, Signalled, USER_NONE,
};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::ding::state_name;
use super::failure::Failure;
use super::out::{Look, Out};
use super::session::Session;
use super::time::{local, rfc3339};
use carillon::report::escape;

/// For people.
pub(super) struct Human {
    zone: TimeZone,
}

impl Human {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone }
    }

    /// Prints an event's line, if it has one.
    pub(super) async fn print(&self, event: &Event, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        match event {
            Event::Message(message) => self.message(message, session, out).await,
            Event::Membership(membership) => self.membership(membership, session, out).await,
            Event::Read(read) => Self::read(read, session, out).await,
            Event::ReadCounts(update) => Self::read_counts(update, session, out).await,
            Event::Ding(ding) => self.ding(ding, session, out).await,
            Event::DingUpdate(update) => self.ding_update(update, session, out).await,
            Event::DingProgress(progress) => {
                let text = format!("{} * {}", local(progress.time, &self.zone), progress_line(progress));
                Ok(out.line(out.styled(Look::Faint, text))?)
            }
            Event::DingOver(ding) => {
                let text = format!("* DING {ding} is over: confirmed elsewhere, expired or recalled meanwhile");
                Ok(out.line(out.styled(Look::Faint, text))?)
            }
            Event::Signal(signal) => Self::signal(signal, session, out).await,
            Event::Truncated(gap) => {
                let (first, last) = (gap.first, gap.last);
                let what = "are gone: retention deleted them, or they are damaged on the broker's disk";
                Self::gap(gap.conversation, first, last, what, session, out).await
            }
            Event::Skipped(gap) => {
                let (first, last) = (gap.first, gap.last);
                Self::gap(gap.conversation, first, last, "were left out of the catch-up", session, out).await
            }
            _ => Ok(()),
        }
    }

    async fn message(&self, message: &Message, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let author = session.names.handle(message.author).await?;
        let label = session.names.label(message.conversation).await?;
        let time = out.styled(Look::Faint, local(message.time, &self.zone));
        let author = out.styled(Look::Strong, escape(&author));
        let content = content(message.kind, &message.payload);
        Ok(out.line(format_args!("{time} {label}#{} {author}: {content}", message.seq))?)
    }

    async fn membership(&self, event: &Membership, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let changed = &event.changed;
        let by = session.names.handle(changed.by).await?;
        let label = session.names.label(changed.conversation).await?;
        let (time, by) = (local(event.time, &self.zone), escape(&by));
        let text = match changed.change {
            Change::ADDED if changed.kind == ConversationKind::DIRECT => {
                format!("a direct conversation, {label}, was begun by {by}")
            }
            Change::ADDED => format!("{by} made you {} of {label}", with_article(changed.role)),
            Change::REMOVED => format!("{by} removed you from {label}"),
            Change::LEFT => format!("you left {label}"),
            Change::ROLE => format!("{by} made you {} of {label}", with_article(changed.role)),
            _ => format!("your membership of {label} has changed"),
        };
        Ok(out.line(out.styled(Look::Faint, format_args!("{time} * {text}")))?)
    }

    async fn read(read: &ReadUpdate, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let user = session.names.handle(read.user).await?;
        let label = session.names.label(read.conversation).await?;
        let text = format!("* {} has read {label} up to #{}", escape(&user), read.read_up_to);
        Ok(out.line(out.styled(Look::Faint, text))?)
    }

    async fn read_counts(update: &ReadCountsUpdate, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let label = session.names.label(update.conversation).await?;
        for entry in &update.entries {
            let (read, all) = (entry.read, u64::from(entry.read) + u64::from(entry.unread));
            let text = format!("* {read} of {all} have read {label}#{}", entry.seq);
            out.line(out.styled(Look::Faint, text))?;
        }
        Ok(())
    }

    async fn ding(&self, ding: &DingPush, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let sender = session.names.handle(ding.sender).await?;
        let time = out.styled(Look::Faint, local(ding.time, &self.zone));
        let loud = out.styled(Look::Loud, format_args!("DING {}", ding.ding));
        let (sender, content) = (out.styled(Look::Strong, escape(&sender)), content(ding.kind, &ding.payload));
        let expires = local(ding.expires_at, &self.zone);
        let about = match ding.conversation {
            ConversationId(0) => String::new(),
            conversation => format!(" (about {}#{})", session.names.label(conversation).await?, ding.seq),
        };
        out.line(format_args!("{time} {loud} {sender}: {content}{about}"))?;
        let user = escape(&session.user);
        let how = format!("  confirm before {expires}: carillon ding confirm --user {user} {}", ding.ding);
        Ok(out.line(out.styled(Look::Faint, how))?)
    }

    async fn ding_update(&self, update: &DingUpdate, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let state = state_name(update.state);
        let (ding, time) = (update.ding, local(update.time, &self.zone));
        let (confirmed, recipients) = (update.confirmed, update.recipients);
        let who = match update.user {
            USER_NONE => String::new(),
            user => format!(" by {}", escape(&session.names.handle(user).await?)),
        };
        let text = format!("{time} * DING {ding} {state}{who}; {confirmed} of {recipients} have confirmed");
        Ok(out.line(out.styled(Look::Faint, text))?)
    }

    async fn signal(signal: &Signalled, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let user = session.names.handle(signal.user).await?;
        let label = session.names.label(signal.conversation).await?;
        let what = match signal.kind {
            SignalKind::TYPING => "is writing in",
            SignalKind::TYPING_STOPPED => "has stopped writing in",
            SignalKind::PRESENT => "is looking at",
            SignalKind::AWAY => "no longer looks at",
            _ => "signals something in",
        };
        Ok(out.line(out.styled(Look::Faint, format_args!("* {} {what} {label}", escape(&user))))?)
    }

    async fn gap(
        conversation: ConversationId,
        first: Seq,
        last: Seq,
        what: &str,
        session: &mut Session,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let label = session.names.label(conversation).await?;
        let text = format!("! {label}#{first} to #{last} {what}");
        Ok(out.line(out.styled(Look::Bad, text))?)
    }
}

/// How far a DING has come, in a line.
pub(super) fn progress_line(progress: &DingProgress) -> String {
    let DingProgress { ding, state, recipients, delivered, confirmed, failed, .. } = *progress;
    let mut line = format!("DING {ding} {}: {confirmed} of {recipients} have confirmed", state_name(state));
    if delivered > 0 {
        line.push_str(&format!(", {delivered} more {} it", if delivered == 1 { "has" } else { "have" }));
    }
    if failed > 0 {
        line.push_str(&format!(", {failed} could not be reached"));
    }
    line
}

/// Text as it may be printed; anything else by kind and size.
pub(super) fn content(kind: MessageKind, payload: &[u8]) -> Cow<'_, str> {
    match text_of(kind, payload) {
        Some(text) => escape(text),
        None => format!("[{}, {} bytes]", kind_name(kind), payload.len()).into(),
    }
}

fn text_of(kind: MessageKind, payload: &[u8]) -> Option<&str> {
    std::str::from_utf8(payload).ok().filter(|_| kind == MessageKind::TEXT)
}

/// What a kind of message is called.
pub(super) fn kind_name(kind: MessageKind) -> String {
    match kind {
        MessageKind::TEXT => "text",
        MessageKind::VOICE => "voice",
        MessageKind::PICTURE => "picture",
        MessageKind::FILE => "file",
        MessageKind::MAIL => "mail",
        MessageKind::CARD => "card",
        MessageKind::SYSTEM => "system",
        MessageKind::RECALL => "recall",
        MessageKind::EDIT => "edit",
        MessageKind(other) => return format!("kind {other}"),
    }
    .to_owned()
}

/// What a role is called.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::MEMBER => "member",
        Role::ADMIN => "admin",
        Role::OWNER => "owner",
        _ => "other",
    }
}

fn with_article(role: Role) -> String {
    let role = role_name(role);
    format!("{} {role}", if role == "member" { "a" } else { "an" })
}

fn signal_name(kind: SignalKind) -> &'static str {
    match kind {
        SignalKind::TYPING => "typing",
        SignalKind::TYPING_STOPPED => "typing_stopped",
        SignalKind::PRESENT => "present",
        SignalKind::AWAY => "away",
        _ => "other",
    }
}

fn change_name(change: Change) -> &'static str {
    match change {
        Change::ADDED => "added",
        Change::REMOVED => "removed",
        Change::LEFT => "left",
        Change::ROLE => "role",
        _ => "other",
    }
}

/// For programs. The shape is in the help of `sub`.
pub(super) struct Json;

impl Json {
    /// Prints an event's object, if it has one.
    pub(super) async fn print(&self, event: &Event, session: &mut Session, out: &mut Out) -> Result<(), Failure> {
        let names = &mut session.names;
        let object = match event {
            Event::Message(message) => {
                let object = json!({
                    "event": "message",
                    "conversation": message.conversation.to_string(),
                    "name": names.name(message.conversation).await?,
                    "seq": message.seq.0,
                    "position": message.position.0,
                    "author": names.handle(message.author).await?,
                    "author_id": message.author.0,
                    "time": rfc3339(message.time),
                });
                with_content(object, message.kind, &message.payload)
            }
            Event::Membership(membership) => json!({
                "event": "membership",
                "conversation": membership.changed.conversation.to_string(),
                "name": names.name(membership.changed.conversation).await?,
                "change": change_name(membership.changed.change),
                "role": role_name(membership.changed.role),
                "by": names.handle(membership.changed.by).await?,
                "position": membership.position.0,
                "time": rfc3339(membership.time),
            }),
            Event::Read(read) => json!({
                "event": "read",
                "conversation": read.conversation.to_string(),
                "user": names.handle(read.user).await?,
                "read_up_to": read.read_up_to.0,
                "position": read.position.0,
            }),
            Event::ReadCounts(update) => read_counts_object(update),
            Event::Ding(ding) => {
                let object = json!({
                    "event": "ding",
                    "ding": ding.ding.to_string(),
                    "sender": names.handle(ding.sender).await?,
                    "time": rfc3339(ding.time),
                    "expires_at": rfc3339(ding.expires_at),
                    "about": about_object(ding),
                });
                with_content(object, ding.kind, &ding.payload)
            }
            Event::DingUpdate(update) => json!({
                "event": "ding_update",
                "ding": update.ding.to_string(),
                "user": if update.user == USER_NONE { None } else { Some(names.handle(update.user).await?) },
                "state": state_name(update.state),
                "confirmed": update.confirmed,
                "recipients": update.recipients,
                "time": rfc3339(update.time),
            }),
            Event::DingProgress(progress) => progress_object(progress),
            Event::DingOver(ding) => json!({ "event": "ding_over", "ding": ding.to_string() }),
            Event::Signal(signal) => json!({
                "event": "signal",
                "conversation": signal.conversation.to_string(),
                "name": names.name(signal.conversation).await?,
                "user": names.handle(signal.user).await?,
                "signal": signal_name(signal.kind),
            }),
            Event::Truncated(gap) => gap_object(gap.conversation, gap.first, gap.last, "truncated"),
            Event::Skipped(gap) => gap_object(gap.conversation, gap.first, gap.last, "skipped"),
            Event::Reset => json!({ "event": "reset" }),
            _ => return Ok(()),
        };
        Ok(out.json(&object)?)
    }
}

fn progress_object(progress: &DingProgress) -> Value {
    json!({
        "event": "ding_progress",
        "ding": progress.ding.to_string(),
        "state": state_name(progress.state),
        "recipients": progress.recipients,
        "delivered": progress.delivered,
        "confirmed": progress.confirmed,
        "failed": progress.failed,
        "time": rfc3339(progress.time),
    })
}

/// The message that a DING refers to; null if it does not.
fn about_object(ding: &DingPush) -> Value {
    match ding.conversation {
        ConversationId(0) => Value::Null,
        conversation => json!({ "conversation": conversation.to_string(), "seq": ding.seq.0 }),
    }
}

fn read_counts_object(update: &ReadCountsUpdate) -> Value {
    let count = |entry: &ReadCountsEntry| json!({ "seq": entry.seq.0, "read": entry.read, "unread": entry.unread });
    let (conversation, position) = (update.conversation.to_string(), update.position.0);
    let counts: Vec<_> = update.entries.iter().map(count).collect();
    json!({ "event": "read_counts", "conversation": conversation, "counts": counts, "position": position })
}

/// What does not come, for programs.
pub(super) fn gap_object(conversation: ConversationId, first: Seq, last: Seq, reason: &str) -> Value {
    let conversation = conversation.to_string();
    json!({ "event": "gap", "conversation": conversation, "first": first.0, "last": last.0, "reason": reason })
}

fn with_content(mut object: Value, kind: MessageKind, payload: &[u8]) -> Value {
    object["kind"] = kind_name(kind).into();
    object["bytes"] = payload.len().into();
    match text_of(kind, payload) {
        Some(text) => object["text"] = text.into(),
        None => object["payload_base64"] = BASE64_STANDARD.encode(payload).into(),
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_text_or_named() {
        assert_eq!(content(MessageKind::TEXT, "héllo\u{7}".as_bytes()), "héllo\\u{7}");
        assert_eq!(content(MessageKind::TEXT, b"\xff\xfe"), "[text, 2 bytes]");
        assert_eq!(content(MessageKind::PICTURE, b"hello"), "[picture, 5 bytes]");
        assert_eq!(content(MessageKind(77), b""), "[kind 77, 0 bytes]");
    }

    #[test]
    fn bytes_survive_json() {
        let text = with_content(json!({}), MessageKind::TEXT, b"a\"b\n");
        assert_eq!(text.to_string(), r#"{"bytes":4,"kind":"text","text":"a\"b\n"}"#);
        let picture = with_content(json!({}), MessageKind::PICTURE, b"\x00\xff");
        assert_eq!(picture["payload_base64"], "AP8=");
    }
}
