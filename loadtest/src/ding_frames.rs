//! The frames of DINGs, as far as a load test says and hears them: the only file that names them.

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::ding::{DingConfirm, DingCreate, DingStep};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, DingId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{MessageKind, Outlet, QuietHours, Target};

/// DINGs that nobody confirms, because the run was cut short, give up after this.
const EXPIRES_AFTER_MS: u64 = 10 * 60 * 1_000;

/// A DING to one user, pushed once and on every connect.
pub(crate) fn create(request: u32, key: u64, recipient: UserId, payload: Bytes) -> Bytes {
    DingCreate {
        request,
        key,
        target: Target::USERS,
        target_id: 0,
        starts_at: Timestamp(0),
        expires_after_ms: EXPIRES_AFTER_MS,
        quiet: QuietHours::HEED,
        kind: MessageKind::TEXT,
        conversation: ConversationId(0),
        seq: Seq(0),
        recipients: vec![recipient],
        steps: vec![DingStep { outlet: Outlet::APP, times: 1, after_ms: 0, repeat_every_ms: 0 }],
        payload,
    }
    .to_bytes()
}

/// "I have seen it."
pub(crate) fn confirm(request: u32, ding: DingId) -> Bytes {
    DingConfirm { request, ding }.to_bytes()
}

/// What the broker says of DINGs.
pub(crate) enum Heard {
    /// To the sender: it is durable.
    Created { request: u32, ding: DingId },
    /// To a recipient: confirm this.
    Push { ding: DingId, payload: Bytes },
    /// To a recipient: its confirmation is durable.
    Confirmed,
    /// To the sender: every recipient has confirmed.
    Known { ding: DingId },
    /// A request was refused.
    Refused { why: String },
    /// Nothing that matters here.
    Other,
}

/// Sorts what came on the control stream or the urgent lane.
pub(crate) fn hear(frame: Frame) -> Heard {
    match frame {
        Frame::DingCreated(created) => Heard::Created { request: created.request, ding: created.ding },
        Frame::DingPush(push) => Heard::Push { ding: push.ding, payload: push.payload },
        Frame::DingConfirmed(_) => Heard::Confirmed,
        Frame::DingUpdate(update) if update.confirmed == update.recipients => Heard::Known { ding: update.ding },
        Frame::Error(error) => Heard::Refused { why: format!("{} ({})", error.code, error.text) },
        _ => Heard::Other,
    }
}
