//! `[ding]` and `[tenant.NAME.ding]`: what tenants allow of DINGs.

use std::collections::BTreeMap;

use carillon_core::input::Audience;
use carillon_core::limits::{DING_EXPIRES_AFTER_MS_MAX, DING_STEP_TIMES_MAX};
use carillon_protocol::ding::DingStep;
use carillon_protocol::kinds::Outlet;
use carillon_protocol::limits::DING_STEPS_MAX;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use super::value;
use crate::dings::rates::Rates;
use crate::dings::{Allowed, DingPolicy, Quiet};

const EXPIRES_AFTER_S_MAX: u64 = DING_EXPIRES_AFTER_MS_MAX / 1_000;

/// What a name stands for in a tenant's plan.
pub(super) type OutletNames = BTreeMap<String, Outlet>;

/// `[ding]`, and for one tenant `[tenant.NAME.ding]`, which replaces it whole.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ding {
    /// From its start, of a DING that does not say.
    #[serde(deserialize_with = "value::between::<1, EXPIRES_AFTER_S_MAX, _, _>")]
    pub expires_after_s: u64,
    /// What a DING may say.
    #[serde(deserialize_with = "value::between::<1, EXPIRES_AFTER_S_MAX, _, _>")]
    pub expires_after_s_max: u64,
    /// What a DING's own plan, and a reminder, may use.
    pub outlets: Vec<Spanned<String>>,
    /// Steps of a DING's own plan; 0: none brings its own.
    #[serde(deserialize_with = "value::between::<0, { DING_STEPS_MAX as u64 }, _, _>")]
    pub own_steps_max: usize,
    /// How often each step of a DING's own plan may begin, but those by the app.
    #[serde(deserialize_with = "value::between::<1, { DING_STEP_TIMES_MAX as u64 }, _, _>")]
    pub own_times_max: u16,
    /// Who may send DINGs.
    pub senders: Who,
    /// To whom.
    pub audience: ToWhom,
    /// Who may override quiet hours.
    pub override_quiet: Who,
    /// DINGs and reminders of one sender in a minute.
    #[serde(deserialize_with = "value::between::<0, 60_000, _, _>")]
    pub per_sender_a_minute: u32,
    /// Of all of a tenant's senders together.
    #[serde(deserialize_with = "value::between::<0, 60_000, _, _>")]
    pub per_tenant_a_minute: u32,
    /// The plan of a DING that brings none.
    pub steps: Vec<Step>,
    /// Hours of the day in which some outlets do not begin a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet: Option<QuietHours>,
}

impl Default for Ding {
    fn default() -> Self {
        let policy = DingPolicy::default();
        Self {
            expires_after_s: policy.expires_after_ms / 1_000,
            expires_after_s_max: policy.expires_after_ms_max / 1_000,
            outlets: vec![app()],
            own_steps_max: policy.own_steps_max,
            own_times_max: policy.own_times_max,
            senders: Who::Everyone,
            audience: ToWhom::Tenant,
            override_quiet: Who::Managers,
            per_sender_a_minute: policy.rates.per_sender_a_minute,
            per_tenant_a_minute: policy.rates.per_tenant_a_minute,
            steps: vec![Step { outlet: app(), after_s: 0, every_s: 60, times: 60 }],
            quiet: None,
        }
    }
}

fn app() -> Spanned<String> {
    Spanned::new(0..0, "app".to_owned())
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `app`, or the name of an `[outlet.NAME]`.
    pub outlet: Spanned<String>,
    /// From the DING's start.
    #[serde(default, deserialize_with = "value::between::<0, EXPIRES_AFTER_S_MAX, _, _>")]
    pub after_s: u32,
    /// From one time to the next.
    #[serde(default, deserialize_with = "value::between::<0, EXPIRES_AFTER_S_MAX, _, _>")]
    pub every_s: u32,
    /// How often it begins.
    #[serde(default = "once", deserialize_with = "value::between::<1, { DING_STEP_TIMES_MAX as u64 }, _, _>")]
    pub times: u16,
}

const fn once() -> u16 {
    1
}

/// Hours of the day, by the clock of a time zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// When they begin, as in `22:00`.
    #[serde(deserialize_with = "time_of_day")]
    pub from: String,
    /// When they end.
    #[serde(deserialize_with = "time_of_day")]
    pub to: String,
    /// A name of the time zone database.
    #[serde(deserialize_with = "time_zone")]
    pub time_zone: String,
    /// The outlets that heed them.
    pub outlets: Vec<Spanned<String>>,
}

/// Who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Every user.
    Everyone,
    /// Services and admins.
    Managers,
    /// Nobody.
    Nobody,
}

/// Whom senders may send DINGs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToWhom {
    /// Every user of the tenant.
    Tenant,
    /// Who is in a conversation with them.
    Acquainted,
}

/// `[tenant.NAME]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// What it allows of DINGs, instead of `[ding]`.
    pub ding: Ding,
}

fn time_of_day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse_time(&text) {
        Some(_) => Ok(text),
        None => Err(serde::de::Error::custom(format!("{text:?} is no time of the day: give one as in \"22:00\""))),
    }
}

/// The minute of the day.
fn parse_time(text: &str) -> Option<u16> {
    let time = Time::strptime("%H:%M", text).ok()?;
    u16::try_from(i32::from(time.hour()) * 60 + i32::from(time.minute())).ok()
}

fn time_zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    TimeZone::get(&text).map(|_| text).map_err(|error| {
        serde::de::Error::custom(format!(
            "{error}: give a time zone as in \"Asia/Shanghai\", or \"UTC\" (is tzdata installed?)"
        ))
    })
}

/// A name that stands for no outlet, or a plan that cannot be: where in the file, and what is wrong.
pub(super) type Fault = (usize, String);

impl Ding {
    /// What the tenant allows.
    ///
    /// # Errors
    /// A name is no outlet's, or no DING could go by the plan.
    pub(super) fn policy(&self, names: &OutletNames) -> Result<DingPolicy, Fault> {
        let outlet = |name: &Spanned<String>| {
            names.get(name.get_ref()).copied().ok_or_else(|| {
                let known: Vec<_> = names.keys().map(|known| format!("{known:?}")).collect();
                let text =
                    format!("{:?} is no outlet: name it in [outlet.{0}], or use {1}", name.get_ref(), known.join(", "));
                (name.span().start, text)
            })
        };
        let outlets = |names: &[Spanned<String>]| names.iter().map(outlet).collect::<Result<Vec<_>, Fault>>();
        let step = |step: &Step| {
            let repeats = step.times == 1 || step.every_s > 0;
            if !repeats {
                return Err((step.outlet.span().start, "a step that begins more than once needs every_s".to_owned()));
            }
            let (after_ms, repeat_every_ms) = (step.after_s * 1_000, step.every_s * 1_000);
            Ok(DingStep { outlet: outlet(&step.outlet)?, times: step.times, after_ms, repeat_every_ms })
        };
        let policy = DingPolicy {
            steps: self.steps.iter().map(step).collect::<Result<_, _>>()?,
            expires_after_ms: self.expires_after_s * 1_000,
            expires_after_ms_max: self.expires_after_s_max * 1_000,
            outlets: outlets(&self.outlets)?,
            own_steps_max: self.own_steps_max,
            own_times_max: self.own_times_max,
            quiet: self.quiet.as_ref().map(|quiet| quiet.policy(outlets(&quiet.outlets)?)).transpose()?,
            override_quiet: self.override_quiet.into(),
            senders: self.senders.into(),
            audience: self.audience.into(),
            rates: Rates {
                per_sender_a_minute: self.per_sender_a_minute,
                per_tenant_a_minute: self.per_tenant_a_minute,
            },
        };
        match policy.fault() {
            None => Ok(policy),
            Some(fault) => Err((self.steps.first().map_or(0, |step| step.outlet.span().start), fault.to_owned())),
        }
    }
}

impl QuietHours {
    fn policy(&self, outlets: Vec<Outlet>) -> Result<Quiet, Fault> {
        let at = self.outlets.first().map_or(0, |outlet| outlet.span().start);
        let time = |text: &str| parse_time(text).ok_or_else(|| (at, format!("{text:?} is no time of the day")));
        let zone = TimeZone::get(&self.time_zone).map_err(|error| (at, error.to_string()))?;
        Ok(Quiet { from_min: time(&self.from)?, to_min: time(&self.to)?, zone, outlets })
    }
}

impl From<Who> for Allowed {
    fn from(who: Who) -> Self {
        match who {
            Who::Everyone => Self::Everyone,
            Who::Managers => Self::Managers,
            Who::Nobody => Self::Nobody,
        }
    }
}

impl From<ToWhom> for Audience {
    fn from(audience: ToWhom) -> Self {
        match audience {
            ToWhom::Tenant => Self::Tenant,
            ToWhom::Acquainted => Self::Acquainted,
        }
    }
}
