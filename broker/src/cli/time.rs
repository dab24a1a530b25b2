//! Times and durations as people write and read them.

use std::time::Duration;

use carillon::clock::{Clock, SystemClock};
use carillon_client::Timestamp;
use jiff::SignedDuration;
use jiff::tz::TimeZone;

/// Now, by the machine's clock.
pub(crate) fn now() -> Timestamp {
    SystemClock.wall()
}

/// A duration such as `90s`, `10m` or `1h 30m`, for clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|_| "write it as 30s, 10m or 1h30m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "it must not be negative".to_owned())
}

/// The time of day here, with the date if that is not today's.
pub(crate) fn local(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = |time: Timestamp| instant(time).to_zoned(zone.clone());
    let at = zoned(time);
    let format = if at.date() == zoned(now()).date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(format).to_string()
}

/// RFC 3339, UTC, for programs.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    format!("{:.3}", instant(time))
}

/// A time beyond what a calendar holds is shown as its end.
fn instant(time: Timestamp) -> jiff::Timestamp {
    let milliseconds = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        assert_eq!(parse_duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_mins(90)));
        assert!(parse_duration("-5s").is_err());
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn any_time_of_a_peer_can_be_shown() {
        assert_eq!(rfc3339(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(local(Timestamp(1_700_000_000_123), &TimeZone::UTC), "2023-11-14 22:13:20");
        assert!(rfc3339(Timestamp(u64::MAX)).starts_with("9999-"));
    }
}
