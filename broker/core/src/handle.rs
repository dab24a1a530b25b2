//! Validation of inputs: each becomes records, or a refusal that changes nothing.
//!
//! A handler checks everything before its first record, so that a refused input leaves no trace.

use carillon_protocol::Frame;
use carillon_protocol::error::Error;
use carillon_protocol::ids::Timestamp;

use crate::effect::{Effects, Reply};
use crate::error::Refusal;
use crate::input::{Principal, Request};
use crate::shard::Shard;

mod attach;
mod publish;

impl Shard {
    pub(crate) fn handle_request(&mut self, now: Timestamp, who: Principal, request: Request, effects: &mut Effects) {
        let _ = now;
        let number = 0;
        let answer: Result<Frame, Refusal> = match request {
            _ => Err(Refusal::invalid("not built yet")),
        };
        let frame = match answer {
            Ok(frame) => frame,
            Err(Refusal { code, text }) => Error { request: number, code, text: text.into() }.into(),
        };
        let _ = who;
        effects.reply = Some(Reply::Frame(frame));
    }

    pub(crate) fn handle_cursors(
        &mut self,
        _now: Timestamp,
        _moves: &[crate::input::CursorMove],
        _effects: &mut Effects,
    ) {
    }

    pub(crate) fn handle_tick(&mut self, _now: Timestamp, _effects: &mut Effects) {}
}

/// Whether a text can be a tenant's name or a user's handle.
fn is_handle(text: &str) -> bool {
    (1..=carillon_protocol::limits::HANDLE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}
