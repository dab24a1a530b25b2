//! How many DINGs a sender and a tenant may send in a minute: the generic cell rate algorithm (ITU-T I.371), volatile.
//!
//! A sender that has sent nothing for a minute may send as many at once as it may in a minute; then one each time its share of
//! the minute has passed.

use std::collections::BTreeMap;

use carillon_core::input::Refused;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{TenantId, Timestamp, UserId};

const MINUTE_MS: u64 = 60_000;

/// Senders and tenants that have sent within the last minute: 40 bytes each. When there are more, a DING is refused as `BUSY`; the
/// tenants' own rates keep their senders far below.
const SENDERS_MAX: usize = 65_536;

/// DINGs and reminders in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one sender.
    pub per_sender_a_minute: u32,
    /// Of all of a tenant.
    pub per_tenant_a_minute: u32,
}

impl Rates {
    /// As much as a configuration may allow: for trying things out and for load tests, where one sender is many.
    pub const TRIAL: Self = Self { per_sender_a_minute: 60_000, per_tenant_a_minute: 60_000 };
}

impl Default for Rates {
    fn default() -> Self {
        Self { per_sender_a_minute: 20, per_tenant_a_minute: 1_000 }
    }
}

/// When each sender, and each tenant as a whole, will have used up no more than its share.
#[derive(Debug, Default)]
pub struct DingRates {
    used_until: BTreeMap<(TenantId, Option<UserId>), u64>,
}

impl DingRates {
    /// Whether this sender may send one more now. Nothing is counted.
    ///
    /// # Errors
    /// It would be one too many.
    pub fn check(&mut self, rates: Rates, tenant: TenantId, user: UserId, now: Timestamp) -> Result<(), Refused> {
        if self.used_until.len() + 2 > SENDERS_MAX {
            self.used_until.retain(|_, until| *until > now.0);
            if self.used_until.len() + 2 > SENDERS_MAX {
                let text = "too many senders of DINGs at once: try again in a minute".into();
                return Err(Refused { code: ErrorCode::BUSY, text });
            }
        }
        let sender = self.next((tenant, Some(user)), rates.per_sender_a_minute, now);
        let whole = self.next((tenant, None), rates.per_tenant_a_minute, now);
        sender.map_err(|wait| too_many("you", rates.per_sender_a_minute, wait))?;
        whole.map_err(|wait| too_many("your organisation", rates.per_tenant_a_minute, wait))?;
        Ok(())
    }

    /// Counts one of this sender, which [`DingRates::check`] let pass.
    pub fn spend(&mut self, rates: Rates, tenant: TenantId, user: UserId, now: Timestamp) {
        for (whose, a_minute) in
            [((tenant, Some(user)), rates.per_sender_a_minute), ((tenant, None), rates.per_tenant_a_minute)]
        {
            if let Ok(until) = self.next(whose, a_minute, now) {
                self.used_until.insert(whose, until);
            }
        }
    }

    /// Until when one more uses up the share, or how long to wait for it.
    fn next(&mut self, whose: (TenantId, Option<UserId>), a_minute: u32, now: Timestamp) -> Result<u64, u64> {
        let share = MINUTE_MS.checked_div(u64::from(a_minute)).ok_or(MINUTE_MS)?.max(1);
        let used = match self.used_until.get_mut(&whose) {
            Some(until) => {
                // A clock that was set back must not lock a sender out.
                *until = (*until).clamp(now.0, now.0 + MINUTE_MS);
                *until
            }
            None => now.0,
        };
        let until = used + share;
        if until > now.0 + MINUTE_MS { Err(until - now.0 - MINUTE_MS) } else { Ok(until) }
    }
}

fn too_many(who: &str, a_minute: u32, wait_ms: u64) -> Refused {
    let wait_s = wait_ms.div_ceil(1_000);
    let text = format!("{who} may send {a_minute} DINGs and reminders a minute: try again in {wait_s} s");
    Refused { code: ErrorCode::RATE_LIMITED, text: text.as_str().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { per_sender_a_minute: 3, per_tenant_a_minute: 5 };
    const ACME: TenantId = TenantId(0);

    fn take_at(rates: &mut DingRates, at: Rates, (tenant, user): (TenantId, u32), now: u64) -> Result<(), Refused> {
        rates.check(at, tenant, UserId(user), Timestamp(now))?;
        rates.spend(at, tenant, UserId(user), Timestamp(now));
        Ok(())
    }

    fn take(rates: &mut DingRates, user: u32, now: u64) -> Result<(), ErrorCode> {
        take_at(rates, RATES, (ACME, user), now).map_err(|refused| refused.code)
    }

    #[test]
    fn a_sender_gets_its_share_of_a_minute_and_a_burst_of_it() {
        let mut rates = DingRates::default();
        assert!((0..3).all(|_| take(&mut rates, 1, 1_000).is_ok()));
        assert_eq!(take(&mut rates, 1, 1_000), Err(ErrorCode::RATE_LIMITED));
        assert_eq!(take(&mut rates, 1, 20_999), Err(ErrorCode::RATE_LIMITED));
        assert_eq!((take(&mut rates, 1, 21_000), take(&mut rates, 1, 21_000)), (Ok(()), Err(ErrorCode::RATE_LIMITED)));
        assert!((0..3).all(|_| take(&mut rates, 1, 200_000).is_ok()));
    }

    #[test]
    fn a_tenants_senders_share_its_rate_and_a_refusal_counts_for_nothing() {
        let mut rates = DingRates::default();
        assert!((1..=5).all(|user| take(&mut rates, user, 1_000).is_ok()));
        assert!((0..9).all(|_| take(&mut rates, 6, 1_000) == Err(ErrorCode::RATE_LIMITED)));
        assert!((0..3).all(|_| take(&mut rates, 6, 61_000).is_ok()), "what was refused did not count");
        let refused = take_at(&mut rates, RATES, (ACME, 6), 61_000).unwrap_err();
        assert_eq!(refused.text.as_str(), "you may send 3 DINGs and reminders a minute: try again in 20 s");
        assert!(take_at(&mut rates, RATES, (TenantId(1), 6), 61_000).is_ok(), "another tenant's user");
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_long() {
        let mut rates = DingRates::default();
        assert!((0..3).all(|_| take(&mut rates, 1, 9_000_000).is_ok()));
        assert_eq!((take(&mut rates, 1, 1_000), take(&mut rates, 1, 21_000)), (Err(ErrorCode::RATE_LIMITED), Ok(())));
    }

    #[test]
    fn a_rate_of_nothing_permits_nothing() {
        let none = Rates { per_sender_a_minute: 0, ..RATES };
        assert!(take_at(&mut DingRates::default(), none, (ACME, 1), 1).is_err());
    }
}
