//! What people write of DINGs on the command line: outlets, steps, states, messages.

use std::time::Duration;

use carillon_client::{DingState, Outlet, Seq, Step};

use crate::cli::time::parse_duration;

/// The states of a recipient that can be asked for, in the order in which they are passed.
const STATES: [(&str, DingState); 7] = [
    ("scheduled", DingState::SCHEDULED),
    ("sent", DingState::SENT),
    ("delivered", DingState::DELIVERED),
    ("confirmed", DingState::CONFIRMED),
    ("expired", DingState::EXPIRED),
    ("recalled", DingState::RECALLED),
    ("failed", DingState::FAILED),
];

const OUTLETS: [(&str, Outlet); 5] = [
    ("app", Outlet::APP),
    ("sms", Outlet::SMS),
    ("phone", Outlet::PHONE),
    ("mail", Outlet::MAIL),
    ("push", Outlet::PUSH),
];

/// What an outlet is called; the operator's own have numbers.
pub(crate) fn outlet_name(outlet: Outlet) -> String {
    let known = OUTLETS.iter().find(|(_, known)| *known == outlet);
    known.map_or_else(|| outlet.0.to_string(), |(name, _)| (*name).to_owned())
}

/// What a DING's state is called.
pub(crate) fn state_name(state: DingState) -> &'static str {
    STATES.iter().find(|(_, known)| *known == state).map_or("other", |(name, _)| name)
}

/// An outlet, for clap.
pub(super) fn parse_outlet(text: &str) -> Result<Outlet, String> {
    let known = OUTLETS.iter().find(|(name, _)| *name == text).map(|(_, outlet)| *outlet);
    let own = || text.parse().ok().filter(|number| *number >= 64).map(Outlet);
    known.or_else(own).ok_or_else(|| {
        "an outlet is app, sms, phone, mail, push, or the number of one of the operator's own, from 64 on".to_owned()
    })
}

/// A state of a recipient, for clap.
pub(super) fn parse_state(text: &str) -> Result<DingState, String> {
    let known = STATES.iter().find(|(name, _)| *name == text);
    known.map(|(_, state)| *state).ok_or_else(|| {
        let names: Vec<_> = STATES.iter().map(|(name, _)| *name).collect();
        format!("a state is one of {}", names.join(", "))
    })
}

/// A step, for clap: `app:0`, `sms:60s`, `phone:3m:5mx3`.
pub(super) fn parse_step(text: &str) -> Result<Step, String> {
    let mut parts = text.split(':');
    let (Some(outlet), Some(after), repeats, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("write a step as OUTLET:AFTER or OUTLET:AFTER:EVERYxTIMES, such as phone:3m:5mx3".to_owned());
    };
    let step = Step::after(parse_outlet(outlet)?, delay(after)?);
    let Some(repeats) = repeats else { return Ok(step) };
    let wrong =
        || format!("{repeats:?} is no repeat: write EVERYxTIMES, such as 5mx3 for 3 times in all, 5 minutes apart");
    let (every, times) = repeats.split_once('x').ok_or_else(wrong)?;
    let times = times.parse().ok().filter(|times| *times > 0).ok_or_else(wrong)?;
    Ok(step.repeated(times, delay(every)?))
}

/// A duration; nothing needs no unit.
fn delay(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { parse_duration(text).map_err(|how| format!("{text:?}: {how}")) }
}

/// A message, for clap: its conversation's id or name, and its seq.
pub(super) fn parse_message(text: &str) -> Result<(String, Seq), String> {
    let parts = text.rsplit_once(':').filter(|(conversation, _)| !conversation.is_empty());
    let message = parts.and_then(|(conversation, seq)| Some((conversation.to_owned(), Seq(seq.parse().ok()?))));
    let message = message.filter(|(_, seq)| *seq > Seq(0));
    message.ok_or_else(|| "write a message as CONVERSATION:SEQ, such as tour:3".to_owned())
}

/// How a step is read: when it begins, and how often.
pub(super) fn planned(after: Duration, times: u16, every: Duration) -> String {
    let after = if after.is_zero() { "at once".to_owned() } else { format!("after {}", short(after)) };
    if times > 1 { format!("{after}, {times} times, every {}", short(every)) } else { after }
}

/// A duration in the units that it fills, as [`parse_duration`] reads it.
fn short(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = milliseconds;
    let mut text = String::new();
    for (unit, unit_ms) in units {
        let count = rest / unit_ms;
        rest %= unit_ms;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_as_outlet_delay_and_repeats() {
        let minutes = Duration::from_mins;
        assert_eq!(parse_step("app:0"), Ok(Step::after(Outlet::APP, Duration::ZERO)));
        assert_eq!(parse_step("sms:60s"), Ok(Step::after(Outlet::SMS, minutes(1))));
        assert_eq!(parse_step("phone:3m:5mx3"), Ok(Step::after(Outlet::PHONE, minutes(3)).repeated(3, minutes(5))));
        assert_eq!(parse_step("64:1h30m"), Ok(Step::after(Outlet(64), minutes(90))));
        for (wrong, why) in [
            ("app", "OUTLET:AFTER"),
            ("app:0:1mx2:3", "OUTLET:AFTER"),
            ("fax:0", "an outlet is app, sms"),
            ("9:0", "from 64 on"),
            ("sms:soon", "\"soon\": write it as 30s"),
            ("sms:1m:5m", "\"5m\" is no repeat"),
            ("sms:1m:5mx0", "\"5mx0\" is no repeat"),
            ("sms:1m:5mx70000", "is no repeat"),
            ("sms:1m:x3", "write it as 30s"),
        ] {
            let error = parse_step(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_message_is_a_conversation_and_a_seq() {
        assert_eq!(parse_message("tour:3"), Ok(("tour".to_owned(), Seq(3))));
        assert_eq!(parse_message("a:b:3"), Ok(("a:b".to_owned(), Seq(3))), "names may have colons");
        for wrong in ["tour", "tour:", ":3", "tour:0", "tour:x"] {
            assert!(parse_message(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_state_and_outlet_of_the_protocol_has_a_name_that_is_read_back() {
        for (state, _) in DingState::ALL {
            assert_eq!(parse_state(state_name(*state)), Ok(*state));
        }
        for outlet in Outlet::ALL.iter().map(|(outlet, _)| *outlet).chain([Outlet(64), Outlet(255)]) {
            assert_eq!(parse_outlet(&outlet_name(outlet)), Ok(outlet));
        }
        assert!(parse_state("open").unwrap_err().contains("scheduled, sent"));
        assert_eq!((state_name(DingState(99)), outlet_name(Outlet(9)).as_str()), ("other", "9"));
    }

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        let planned = |text: &str| {
            let step = parse_step(text).unwrap();
            planned(step.after, step.times, step.every)
        };
        assert_eq!(planned("app:0"), "at once");
        assert_eq!(planned("sms:90s"), "after 1m30s");
        assert_eq!(planned("phone:3m:5mx3"), "after 3m, 3 times, every 5m");
        assert_eq!(short(Duration::from_millis(86_400_001)), "1d1ms");
    }
}
