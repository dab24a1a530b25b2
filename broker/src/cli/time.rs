//! Times and durations as people write and read them.

use std::time::{Duration, SystemTime};

use carillon::clock::{Clock, SystemClock};
use carillon_client::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};

/// Now, by the machine's clock.
pub(crate) fn now() -> Timestamp {
    SystemClock.wall()
}

/// A duration such as `90s`, `10m` or `1h 30m`, for clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|_| "write it as 30s, 10m or 1h30m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "it must not be negative".to_owned())
}

/// A point in time, for clap: `18:30` (the next one here), `2026-12-24 18:30` (here), or with a zone.
pub(crate) fn parse_time(text: &str) -> Result<SystemTime, String> {
    let now = instant(now()).to_zoned(TimeZone::system());
    time_at(text, &now).map(SystemTime::from)
}

fn time_at(text: &str, now: &Zoned) -> Result<jiff::Timestamp, String> {
    let here = |time: DateTime| time.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp());
    let far = |error: jiff::Error| format!("no such time here: {error}");
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    // Before a time of day: that would be read from a date's end too.
    if let Ok(time) = text.parse::<DateTime>() {
        return here(time).map_err(far);
    }
    let time = text.parse::<Time>().map_err(|_| "write it as 18:30, '2026-12-24 18:30' or 2026-12-24T18:30:00Z")?;
    let today = here(now.date().to_datetime(time)).map_err(far)?;
    if today > now.timestamp() {
        return Ok(today);
    }
    now.date().tomorrow().and_then(|date| here(date.to_datetime(time))).map_err(far)
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
    fn a_point_in_time_is_the_next_of_its_kind_or_a_date() {
        let now: Zoned = "2026-11-27T12:00:00+01:00[+01:00]".parse().unwrap();
        let at = |text: &str| time_at(text, &now).unwrap().to_string();
        assert_eq!(at("18:30"), "2026-11-27T17:30:00Z", "today");
        assert_eq!(at("11:59"), "2026-11-28T10:59:00Z", "tomorrow");
        assert_eq!(at("12:00"), "2026-11-28T11:00:00Z", "that is now");
        assert_eq!(at("2026-12-24 18:30"), "2026-12-24T17:30:00Z");
        assert_eq!(at("2026-12-24T18:30:00Z"), "2026-12-24T18:30:00Z", "a zone of its own");
        for wrong in ["soon", "25:00", "2026-13-01 10:00"] {
            assert!(time_at(wrong, &now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn any_time_of_a_peer_can_be_shown() {
        assert_eq!(rfc3339(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(local(Timestamp(1_700_000_000_123), &TimeZone::UTC), "2023-11-14 22:13:20");
        assert!(rfc3339(Timestamp(u64::MAX)).starts_with("9999-"));
    }
}
