//! Everybody else: a steady load that a probe keeps up beside a scenario, and that the scenario should not be noticed by.

use crate::crew;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::probe::{Probe, ProbePlan};
use crate::rig::{Rig, Terms};
use crate::target::Target;
use carillon_protocol::session::Cursor;

/// What a probe keeps up.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    /// Messages a second that it publishes.
    pub publish_rate: u32,
    /// Groups that it publishes into, with one listener each.
    pub listeners: u32,
    /// DINGs a second that it sends to the listeners in turn.
    pub ding_rate: u32,
    /// Services that send the DINGs, in turn.
    pub senders: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
}

impl Others {
    /// Makes the listeners and their groups by a service, and starts the probe with handles that begin with `prefix`; its sessions
    /// begin at `cursor`, its messages are those of `run`.
    pub(crate) fn start(
        &self,
        (rig, service): (&mut Rig<'_>, SessionIndex),
        (target, terms): (&Target, Terms),
        prefix: &str,
        (run, cursor): (u64, Cursor),
    ) -> Result<Probe, Failure> {
        let listeners: Vec<_> = (0..self.listeners).map(|number| format!("{prefix}-listener-{number}")).collect();
        let (conversations, recipients) = crew::enlist_each(rig, service, &format!("{prefix}/listener"), &listeners)?;
        Probe::start(ProbePlan {
            target: target.clone(),
            terms: Terms { sockets: 1, ..terms },
            prefix: prefix.to_owned(),
            run,
            payload_bytes: self.payload_bytes,
            publish_rate: self.publish_rate,
            conversations,
            ding_rate: self.ding_rate,
            recipients,
            senders: self.senders,
            listeners,
            cursor,
        })
    }
}
