//! A DING to be sent: to whom, with which content, by which plan.

mod news;
mod requests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use carillon_protocol::ding::{DingCreate, DingStep};
use carillon_protocol::ding_status::{STATES_ALL, STATES_UNCONFIRMED, state_bit};
use carillon_protocol::ids::{ConversationId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{DingState, MessageKind, Outlet, QuietHours, Target};
use carillon_protocol::limits::{DING_RECIPIENTS_MAX, DING_STEPS_MAX};

use crate::error::RequestError;
use crate::requests::check_size;
pub(crate) use news::DingNews;

/// Who gets a DING.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// These users, 1 to 10,000.
    Users(Vec<UserId>),
    /// The members of this conversation as they are then, but the sender.
    Conversation(ConversationId),
}

/// When a DING starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starts {
    /// At once.
    Now,
    /// At this time, at most 90 days ahead; at once if it is past.
    At(SystemTime),
    /// So long after [`Client::ding`](crate::Client::ding) is called, by the broker's clock.
    After(Duration),
}

/// One step of a DING's plan.
///
/// ```
/// # use carillon_client::{Outlet, Step};
/// # use std::time::Duration;
/// // Phone calls after 3, 8 and 13 minutes.
/// let calls = Step::after(Outlet::PHONE, Duration::from_mins(3)).repeated(3, Duration::from_mins(5));
/// # assert_eq!((calls.times, calls.every), (3, Duration::from_mins(5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What carries it.
    pub outlet: Outlet,
    /// From the DING's start.
    pub after: Duration,
    /// How often it begins; at least once.
    pub times: u16,
    /// From one time to the next; does not matter if it begins once.
    pub every: Duration,
}

impl Step {
    /// Once, so long after the DING's start.
    pub const fn after(outlet: Outlet, after: Duration) -> Self {
        Self { outlet, after, times: 1, every: Duration::ZERO }
    }

    /// So many times in all, so far apart.
    #[must_use]
    pub const fn repeated(self, times: u16, every: Duration) -> Self {
        Self { times, every, ..self }
    }

    fn on_the_wire(self) -> Result<DingStep, RequestError> {
        let Self { outlet, after, times, every } = self;
        let (after_ms, every_ms) = (short("step's delay in ms", after)?, short("step's interval in ms", every)?);
        let repeat_every_ms = if times == 1 { 0 } else { every_ms };
        Ok(DingStep { outlet, times, after_ms, repeat_every_ms })
    }
}

/// A DING to be sent. What it does not say is as its tenant has it: the plan, and when it gives up.
///
/// ```
/// # use carillon_client::{ConversationId, Ding, MessageKind, Outlet, Recipients, Seq, Step, UserId};
/// # use std::time::Duration;
/// let ding = Ding::new(Recipients::Users(vec![UserId(8), UserId(9)]), MessageKind::TEXT, "server room is hot")
///     .about(ConversationId(281_474_976_710_698), Seq(501))
///     .expires_after(Duration::from_hours(1))
///     .step(Step::after(Outlet::APP, Duration::ZERO).repeated(10, Duration::from_mins(1)))
///     .step(Step::after(Outlet::SMS, Duration::from_mins(1)))
///     .override_quiet_hours();
/// # assert_eq!(ding.steps.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ding {
    /// Who gets it.
    pub recipients: Recipients,
    /// What the payload is.
    pub kind: MessageKind,
    /// Opaque.
    pub payload: Bytes,
    /// The message it refers to, which the sender and every recipient must be entitled to.
    pub about: Option<(ConversationId, Seq)>,
    /// When it starts.
    pub starts: Starts,
    /// Gives up so long after its start, at most 30 days; `None`: as the tenant has it.
    pub expires_after: Option<Duration>,
    /// Its plan, at most 8 steps, one of them by [`Outlet::APP`]; empty: the tenant's.
    pub steps: Vec<Step>,
    /// What it does about quiet hours.
    pub quiet: QuietHours,
}

impl Ding {
    /// A DING that starts now, by the tenant's plan.
    pub fn new(recipients: Recipients, kind: MessageKind, payload: impl Into<Bytes>) -> Self {
        let (payload, starts, steps, quiet) = (payload.into(), Starts::Now, Vec::new(), QuietHours::HEED);
        Self { recipients, kind, payload, about: None, starts, expires_after: None, steps, quiet }
    }

    /// Refers to a message.
    #[must_use]
    pub fn about(self, conversation: ConversationId, seq: Seq) -> Self {
        Self { about: Some((conversation, seq)), ..self }
    }

    /// Starts at this time.
    #[must_use]
    pub fn starts_at(self, time: SystemTime) -> Self {
        Self { starts: Starts::At(time), ..self }
    }

    /// Starts so long after it is sent.
    #[must_use]
    pub fn starts_after(self, delay: Duration) -> Self {
        Self { starts: Starts::After(delay), ..self }
    }

    /// Gives up so long after its start.
    #[must_use]
    pub fn expires_after(self, after: Duration) -> Self {
        Self { expires_after: Some(after), ..self }
    }

    /// Adds a step to its plan, which is then no longer the tenant's.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Steps begin in quiet hours too, if the tenant allows it.
    #[must_use]
    pub fn override_quiet_hours(self) -> Self {
        Self { quiet: QuietHours::OVERRIDE, ..self }
    }

    /// The request under this key; `now` is the broker's time.
    fn into_request(self, key: u64, now: Timestamp) -> Result<DingCreate, RequestError> {
        let Self { recipients, kind, payload, about, starts, expires_after, steps, quiet } = self;
        let (target, target_id, recipients) = match recipients {
            Recipients::Users(users) => (Target::USERS, 0, users),
            Recipients::Conversation(conversation) => (Target::CONVERSATION, conversation.0, Vec::new()),
        };
        check_size("recipients", recipients.len(), DING_RECIPIENTS_MAX)?;
        check_size("steps", steps.len(), DING_STEPS_MAX)?;
        let starts_at = match starts {
            Starts::Now => 0,
            Starts::At(time) => time.duration_since(UNIX_EPOCH).map_or(0, milliseconds),
            Starts::After(delay) => now.0.saturating_add(milliseconds(delay)),
        };
        let (conversation, seq) = about.unwrap_or((ConversationId(0), Seq(0)));
        Ok(DingCreate {
            request: 0,
            key,
            target,
            target_id,
            starts_at: Timestamp(starts_at),
            // 0 stands for the tenant's: a DING that is to give up at once is refused rather than that.
            expires_after_ms: expires_after.map_or(0, |after| milliseconds(after).max(1)),
            quiet,
            kind,
            conversation,
            seq,
            recipients,
            steps: steps.into_iter().map(Step::on_the_wire).collect::<Result<_, _>>()?,
            payload,
        })
    }
}

/// A set of states of recipients, to ask for those who are in one of them.
///
/// ```
/// # use carillon_client::{DingState, DingStates};
/// let reached = DingStates::from([DingState::DELIVERED, DingState::CONFIRMED]);
/// assert!(reached.has(DingState::CONFIRMED) && !reached.has(DingState::SENT));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DingStates(u16);

impl DingStates {
    /// No recipients are wanted, only how the DING stands as a whole.
    pub const NONE: Self = Self(0);
    /// All recipients.
    pub const ALL: Self = Self(STATES_ALL);
    /// Those who have not confirmed.
    pub const UNCONFIRMED: Self = Self(STATES_UNCONFIRMED);

    /// Whether a state is in it.
    pub const fn has(self, state: DingState) -> bool {
        self.0 & state_bit(state) != 0
    }
}

impl<const N: usize> From<[DingState; N]> for DingStates {
    fn from(states: [DingState; N]) -> Self {
        states.into_iter().collect()
    }
}

impl FromIterator<DingState> for DingStates {
    fn from_iter<I: IntoIterator<Item = DingState>>(states: I) -> Self {
        Self(states.into_iter().fold(0, |bits, state| bits | state_bit(state)))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration that the wire has 32 bits for: 49 days.
fn short(what: &'static str, duration: Duration) -> Result<u32, RequestError> {
    let (have, max) = (usize::try_from(milliseconds(duration)).unwrap_or(usize::MAX), u32::MAX);
    u32::try_from(have).map_err(|_| RequestError::TooLarge { what, have, max: max as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn ding() -> Ding {
        Ding::new(Recipients::Users(vec![UserId(1)]), MessageKind::TEXT, "now")
    }

    fn request(ding: Ding) -> DingCreate {
        ding.into_request(7, NOW).unwrap()
    }

    #[test]
    fn what_a_ding_does_not_say_is_as_the_tenant_has_it() {
        let bare = request(ding());
        assert_eq!((bare.starts_at, bare.expires_after_ms, bare.quiet), (Timestamp(0), 0, QuietHours::HEED));
        assert_eq!((bare.conversation, bare.seq, bare.steps), (ConversationId(0), Seq(0), vec![]));
        assert_eq!(request(ding().expires_after(Duration::ZERO)).expires_after_ms, 1, "0 would be the tenant's");
    }

    #[test]
    fn a_start_is_a_time_of_the_calendar_or_counted_from_the_brokers_now() {
        let starts_at = |ding: Ding| request(ding).starts_at.0;
        assert_eq!(starts_at(ding().starts_at(UNIX_EPOCH + Duration::from_secs(5))), 5_000);
        assert_eq!(starts_at(ding().starts_at(UNIX_EPOCH - Duration::from_secs(5))), 0, "past is now");
        assert_eq!(starts_at(ding().starts_after(Duration::from_secs(5))), 1_005_000);
        assert_eq!(starts_at(ding().starts_after(Duration::MAX)), u64::MAX);
    }

    #[test]
    fn steps_go_out_as_they_were_planned_and_too_long_ones_do_not() {
        let once = Step::after(Outlet::APP, Duration::ZERO);
        let often = Step::after(Outlet::SMS, Duration::from_secs(60)).repeated(3, Duration::from_secs(300));
        let sent = request(ding().step(once).step(often)).steps;
        let step = |outlet, times, after_ms, repeat_every_ms| DingStep { outlet, times, after_ms, repeat_every_ms };
        assert_eq!(sent, [step(Outlet::APP, 1, 0, 0), step(Outlet::SMS, 3, 60_000, 300_000)]);
        let long = ding().step(Step::after(Outlet::APP, Duration::from_millis(u64::from(u32::MAX) + 1)));
        assert!(matches!(long.into_request(7, NOW), Err(RequestError::TooLarge { what: "step's delay in ms", .. })));
        let many = (0..9).fold(ding(), |ding, _| ding.step(once));
        assert!(matches!(many.into_request(7, NOW), Err(RequestError::TooLarge { what: "steps", have: 9, max: 8 })));
    }

    #[test]
    fn a_set_has_the_states_it_was_made_of() {
        let some: DingStates = [DingState::SENT, DingState::FAILED].into();
        let has = |set: DingStates| DingState::ALL.iter().filter(|(state, _)| set.has(*state)).count();
        assert_eq!((has(some), has(DingStates::NONE), has(DingStates::ALL)), (2, 0, DingState::ALL.len()));
        assert!(!DingStates::UNCONFIRMED.has(DingState::CONFIRMED) && DingStates::UNCONFIRMED.has(DingState::SENT));
    }
}
