//! From a request and a tenant's policy to the terms of a DING, or to a refusal that says what is allowed.

use std::collections::BTreeMap;

use carillon_core::input::{Audience, Authority, DingTerms, QuietWindow, Refused};
use carillon_core::limits::{DING_EXPIRES_AFTER_MS_MAX, DING_STEP_TIMES_MAX};
use carillon_core::record::PlannedStep;
use carillon_protocol::ding::{DingCreate, DingStep};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::kinds::{Outlet, QuietHours};
use carillon_protocol::limits::DING_STEPS_MAX;
use jiff::tz::TimeZone;

use super::rates::Rates;

/// Who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Every user of the tenant.
    Everyone,
    /// Services and admins.
    Managers,
    /// Nobody.
    Nobody,
}

impl Allowed {
    fn permits(self, authority: Authority) -> bool {
        match self {
            Self::Everyone => true,
            Self::Managers => authority.manages_tenant(),
            Self::Nobody => false,
        }
    }
}

/// Hours of the day in which some outlets do not begin a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Quiet {
    /// Minute of the local day, inclusive.
    pub from_min: u16,
    /// Minute of the local day, exclusive.
    pub to_min: u16,
    /// Whose day.
    pub zone: TimeZone,
    /// The outlets that heed them.
    pub outlets: Vec<Outlet>,
}

impl Quiet {
    /// In minutes of the day in UTC, by the zone's offset at this time. A DING keeps it, also over a change to summer time.
    fn window(&self, at: Timestamp) -> QuietWindow {
        const DAY_MIN: i64 = 1_440;
        let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let offset_min = i64::from(self.zone.to_offset(at).seconds()) / 60;
        let utc = |local_min: u16| {
            let minute = (i64::from(local_min) - offset_min).rem_euclid(DAY_MIN);
            u16::try_from(minute).expect("a minute of the day")
        };
        QuietWindow { from_min: utc(self.from_min), to_min: utc(self.to_min) }
    }
}

/// What one tenant allows.
#[derive(Clone, Debug, PartialEq)]
pub struct DingPolicy {
    /// The plan of a DING that brings none.
    pub steps: Vec<DingStep>,
    /// From its start, of a DING that does not say.
    pub expires_after_ms: u64,
    /// At the most.
    pub expires_after_ms_max: u64,
    /// What a DING's own plan, and a reminder, may use. Services and admins may use them too, and no others.
    pub outlets: Vec<Outlet>,
    /// Steps of a DING's own plan; 0: none brings its own.
    pub own_steps_max: usize,
    /// How often each step of a DING's own plan may begin, but those by the app.
    pub own_times_max: u16,
    /// Quiet hours, if there are any.
    pub quiet: Option<Quiet>,
    /// Who may override them.
    pub override_quiet: Allowed,
    /// Who may send DINGs.
    pub senders: Allowed,
    /// To whom.
    pub audience: Audience,
    /// How many in a minute.
    pub rates: Rates,
}

impl Default for DingPolicy {
    fn default() -> Self {
        let app = DingStep { outlet: Outlet::APP, times: 60, after_ms: 0, repeat_every_ms: 60_000 };
        Self {
            steps: vec![app],
            expires_after_ms: 24 * 3_600_000,
            expires_after_ms_max: DING_EXPIRES_AFTER_MS_MAX,
            outlets: vec![Outlet::APP],
            own_steps_max: DING_STEPS_MAX,
            own_times_max: 10,
            quiet: None,
            override_quiet: Allowed::Managers,
            senders: Allowed::Everyone,
            audience: Audience::Tenant,
            rates: Rates::default(),
        }
    }
}

/// What each tenant allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DingPolicies {
    /// Of a tenant that has none of its own.
    pub default: DingPolicy,
    /// By name.
    pub tenants: BTreeMap<String, DingPolicy>,
}

impl DingPolicies {
    /// The default for every tenant, at these rates.
    pub fn at(rates: Rates) -> Self {
        Self { default: DingPolicy { rates, ..DingPolicy::default() }, tenants: BTreeMap::new() }
    }

    /// What this tenant allows.
    pub fn of(&self, tenant: &str) -> &DingPolicy {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }
}

impl DingPolicy {
    /// What a request comes to.
    ///
    /// # Errors
    /// The tenant does not allow it; the text says what it does allow.
    pub fn terms(&self, authority: Authority, create: &DingCreate, now: Timestamp) -> Result<DingTerms, Refused> {
        if !self.senders.permits(authority) {
            return Err(forbidden("in this tenant only services and admins send DINGs"));
        }
        let expires_after_ms = match create.expires_after_ms {
            0 => self.expires_after_ms,
            given if given > self.expires_after_ms_max => {
                let text =
                    format!("in this tenant a DING expires after {} ms at the latest", self.expires_after_ms_max);
                return Err(invalid(&text));
            }
            given => given,
        };
        let overridden = match create.quiet {
            QuietHours::HEED => false,
            QuietHours::OVERRIDE if self.override_quiet.permits(authority) => true,
            QuietHours::OVERRIDE => {
                return Err(forbidden("in this tenant you may not override quiet hours: heed them"));
            }
            _ => return Err(invalid("quiet must be heed (0) or override (1)")),
        };
        let quiet = self.quiet.as_ref().filter(|_| !overridden);
        let steps = if create.steps.is_empty() { &self.steps } else { self.check_own(&create.steps)? };
        let heeds = |outlet| u8::from(quiet.is_some_and(|quiet| quiet.outlets.contains(&outlet)));
        let planned = |step: &DingStep| PlannedStep {
            outlet: step.outlet,
            heeds_quiet: heeds(step.outlet),
            times: step.times,
            after_ms: step.after_ms,
            repeat_every_ms: step.repeat_every_ms,
        };
        Ok(DingTerms {
            steps: steps.iter().map(planned).collect(),
            quiet: quiet.map_or(QuietWindow::NONE, |quiet| quiet.window(now.max(create.starts_at))),
            expires_after_ms,
            audience: self.audience,
        })
    }

    /// Whether a reminder may go by this outlet now.
    ///
    /// # Errors
    /// The tenant does not allow it, or not in these hours.
    pub fn reminder(&self, authority: Authority, outlet: Outlet, now: Timestamp) -> Result<(), Refused> {
        if !self.senders.permits(authority) {
            return Err(forbidden("in this tenant only services and admins send DINGs"));
        }
        self.check_outlet(outlet)?;
        let heeded = self.quiet.as_ref().filter(|quiet| quiet.outlets.contains(&outlet));
        let over_at = heeded.map_or(now, |quiet| quiet.window(now).over_at(now));
        if over_at > now && !self.override_quiet.permits(authority) {
            let minutes = (over_at.0 - now.0).div_ceil(60_000);
            let text = format!(
                "quiet hours: a reminder by {outlet:?} waits for another {minutes} minutes, or goes by the app"
            );
            return Err(forbidden(&text));
        }
        Ok(())
    }

    /// A DING's own plan is within what the tenant allows.
    fn check_own<'a>(&self, steps: &'a [DingStep]) -> Result<&'a [DingStep], Refused> {
        if steps.len() > self.own_steps_max {
            let text = match self.own_steps_max {
                0 => "in this tenant DINGs go by the tenant's plan: send no steps".to_owned(),
                max => format!("in this tenant a plan has {max} steps at most"),
            };
            return Err(invalid(&text));
        }
        for step in steps {
            self.check_outlet(step.outlet)?;
            if step.outlet != Outlet::APP && step.times > self.own_times_max {
                let text =
                    format!("in this tenant a step begins {} times at most, but one by the app", self.own_times_max);
                return Err(invalid(&text));
            }
        }
        Ok(steps)
    }

    fn check_outlet(&self, outlet: Outlet) -> Result<(), Refused> {
        if self.outlets.contains(&outlet) {
            return Ok(());
        }
        let allowed: Vec<_> = self.outlets.iter().map(|outlet| format!("{outlet:?}")).collect();
        Err(invalid(&format!("in this tenant DINGs do not go by {outlet:?}, but by {}", allowed.join(", "))))
    }

    /// Whether the shard would refuse every DING that goes by this plan; says why.
    pub fn fault(&self) -> Option<&'static str> {
        let steps = &self.steps;
        if !(1..=DING_STEPS_MAX).contains(&steps.len()) {
            return Some("a plan has 1 to 8 steps");
        }
        if !steps.iter().any(|step| step.outlet == Outlet::APP) {
            return Some("a plan has a step by the app: devices that connect are shown the DING in any case");
        }
        if steps.iter().map(|step| usize::from(step.times)).sum::<usize>() > DING_STEP_TIMES_MAX {
            return Some("the steps of a plan begin 192 times in all at most: repeat less often");
        }
        None
    }
}

fn invalid(text: &str) -> Refused {
    Refused { code: ErrorCode::INVALID, text: text.into() }
}

fn forbidden(text: &str) -> Refused {
    Refused { code: ErrorCode::FORBIDDEN, text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::ids::{ConversationId, Seq};
    use carillon_protocol::kinds::{MessageKind, Target};

    const NOON: Timestamp = Timestamp(1_767_268_800_000);

    fn create(steps: &[DingStep]) -> DingCreate {
        DingCreate {
            request: 1,
            key: 1,
            target: Target::USERS,
            target_id: 0,
            starts_at: Timestamp(0),
            expires_after_ms: 0,
            quiet: QuietHours::HEED,
            kind: MessageKind::TEXT,
            conversation: ConversationId(0),
            seq: Seq(0),
            recipients: Vec::new(),
            steps: steps.to_vec(),
            payload: bytes::Bytes::new(),
        }
    }

    fn step(outlet: Outlet, times: u16) -> DingStep {
        DingStep { outlet, times, after_ms: 0, repeat_every_ms: 60_000 }
    }

    fn policy() -> DingPolicy {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let quiet = Quiet { from_min: 22 * 60, to_min: 7 * 60, zone, outlets: vec![Outlet::SMS] };
        DingPolicy {
            steps: vec![step(Outlet::APP, 1), step(Outlet::SMS, 1)],
            outlets: vec![Outlet::APP, Outlet::SMS],
            own_steps_max: 2,
            own_times_max: 3,
            quiet: Some(quiet),
            ..DingPolicy::default()
        }
    }

    #[test]
    fn a_ding_without_a_plan_goes_by_the_tenants_and_heeds_its_quiet_hours() {
        let terms = policy().terms(Authority::User, &create(&[]), NOON).unwrap();
        let heeds: Vec<_> = terms.steps.iter().map(|step| (step.outlet, step.heeds_quiet)).collect();
        assert_eq!(heeds, [(Outlet::APP, 0), (Outlet::SMS, 1)]);
        assert_eq!(terms.quiet, QuietWindow { from_min: 14 * 60, to_min: 23 * 60 }, "22 to 7 at UTC+8");
        assert_eq!(terms.expires_after_ms, 86_400_000);
    }

    #[test]
    fn quiet_hours_are_overridden_by_who_may() {
        let overriding = DingCreate { quiet: QuietHours::OVERRIDE, ..create(&[]) };
        let refused = policy().terms(Authority::User, &overriding, NOON).unwrap_err();
        assert_eq!(refused.code, ErrorCode::FORBIDDEN);
        let terms = policy().terms(Authority::Service, &overriding, NOON).unwrap();
        assert!(terms.quiet == QuietWindow::NONE && terms.steps.iter().all(|step| step.heeds_quiet == 0));
    }

    #[test]
    fn a_plan_of_its_own_is_within_the_tenants_limits() {
        let check = |steps: &[DingStep], part: &str| match policy().terms(Authority::Service, &create(steps), NOON) {
            Ok(terms) => assert!(part.is_empty() && terms.steps.len() == steps.len(), "{steps:?} was accepted"),
            Err(refused) => {
                assert!(!part.is_empty() && refused.text.as_str().contains(part), "{}", refused.text.as_str())
            }
        };
        check(&[step(Outlet::APP, 99), step(Outlet::SMS, 3)], "");
        check(&[step(Outlet::APP, 1), step(Outlet::SMS, 4)], "3 times at most");
        check(&[step(Outlet::APP, 1), step(Outlet::PHONE, 1)], "by PHONE, but by APP, SMS");
        check(&[step(Outlet::APP, 1); 3], "2 steps at most");
    }

    #[test]
    fn who_may_send_and_remind_is_the_tenants_to_say() {
        let policy = DingPolicy { senders: Allowed::Managers, ..policy() };
        assert_eq!(policy.terms(Authority::User, &create(&[]), NOON).unwrap_err().code, ErrorCode::FORBIDDEN);
        assert_eq!(policy.reminder(Authority::User, Outlet::APP, NOON).unwrap_err().code, ErrorCode::FORBIDDEN);
        assert!(policy.terms(Authority::Admin, &create(&[]), NOON).is_ok());
        assert_eq!(policy.reminder(Authority::Admin, Outlet::PHONE, NOON).unwrap_err().code, ErrorCode::INVALID);
        assert_eq!(policy.reminder(Authority::Admin, Outlet::SMS, NOON), Ok(()));
    }

    #[test]
    fn a_reminder_heeds_quiet_hours_too() {
        // 23:00 at UTC+8.
        let night = Timestamp(NOON.0 + 3 * 3_600_000);
        let refused = policy().reminder(Authority::User, Outlet::SMS, night).unwrap_err();
        assert_eq!(
            refused.text.as_str(),
            "quiet hours: a reminder by SMS waits for another 480 minutes, or goes by the app"
        );
        assert_eq!(policy().reminder(Authority::User, Outlet::APP, night), Ok(()));
        assert_eq!(policy().reminder(Authority::Service, Outlet::SMS, night), Ok(()));
        assert_eq!(policy().reminder(Authority::User, Outlet::SMS, Timestamp(night.0 + 8 * 3_600_000)), Ok(()));
    }

    #[test]
    fn the_default_is_possible() {
        assert_eq!(DingPolicy::default().fault(), None);
        assert!(DingPolicy { steps: vec![step(Outlet::SMS, 1)], ..policy() }.fault().is_some());
    }
}
