//! What is compared: which figure of which report, and what Carillon wants of it.

/// A kind of run: what the files of one experiment begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Against a server that has just started: what sessions cost.
    Connect,
    /// One message a round.
    Thin,
    /// Many messages a round.
    Thick,
    /// Many producers, each with a window.
    Pipelined,
    /// One producer, one message at a time.
    Single,
}

/// Which is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// One figure of a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// Where the report's JSON has it.
    pub(super) pointer: &'static str,
    pub(super) better: Better,
}

/// What a goal's figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// So many times this contender's.
    Ratio { to: &'static str, goal: f64 },
    /// This, in the figure's unit.
    Absolute { goal: f64 },
}

/// What Carillon wants to reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) kind: Kind,
    pub(super) pointer: &'static str,
    pub(super) bound: Bound,
}

const CONNECT: &[Figure] = &[
    less("server's CPU a connection", "µs", "/broker/cpu_us_per_connect"),
    less("resident memory a session, idle", "KiB", "/broker/resident_kib_per_session"),
    less("resident memory a session, after messages", "KiB", "/broker/resident_kib_per_session_after"),
    more("connections a second", "1/s", "/connects_per_s"),
];

const FANOUT: &[Figure] = &[
    less("server's CPU a delivery", "µs", "/broker/cpu_us_per_delivery"),
    more("deliveries a second within a round", "1/s", "/round_per_s"),
    less("latency, half of the deliveries", "ms", "/latency/p50_ms"),
    less("latency, 99 of 100", "ms", "/latency/p99_ms"),
    less("generator's CPU in the run", "s", "/own_cpu_s"),
];

const PUBLISH: &[Figure] = &[
    more("acknowledged a second", "1/s", "/acknowledged_per_s"),
    less("server's CPU a message", "µs", "/broker/cpu_us_per_message"),
    less("until acknowledged, half", "ms", "/published/p50_ms"),
    less("until acknowledged, 99 of 100", "ms", "/published/p99_ms"),
    less("generator's CPU in the run", "s", "/own_cpu_s"),
];

/// In the order of the page. Those in microseconds were set where nats-server took 3.2 µs a delivery and 242 µs a connection: beside each
/// stands the same as a share of what nats-server takes in the same runs.
pub(super) const GOALS: &[Goal] = &[
    ratio(Kind::Thin, "/broker/cpu_us_per_delivery", "nats", 0.65),
    ratio(Kind::Thick, "/round_per_s", "nats", 2.5),
    absolute(Kind::Thick, "/broker/cpu_us_per_delivery", 0.6),
    ratio(Kind::Thick, "/broker/cpu_us_per_delivery", "nats", 0.19),
    absolute(Kind::Connect, "/broker/cpu_us_per_connect", 200.0),
    ratio(Kind::Connect, "/broker/cpu_us_per_connect", "nats", 0.83),
    absolute(Kind::Connect, "/broker/resident_kib_per_session", 16.0),
    ratio(Kind::Pipelined, "/acknowledged_per_s", "jetstream-always", 5.0),
    ratio(Kind::Single, "/acknowledged_per_s", "jetstream-always", 1.0),
];

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Connect, Self::Thin, Self::Thick, Self::Pipelined, Self::Single];

    /// What a file's name begins with.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Thin => "thin",
            Self::Thick => "thick",
            Self::Pipelined => "pipelined",
            Self::Single => "single",
        }
    }

    /// A heading.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Connect => "Sessions: connecting, and holding them",
            Self::Thin => "Thin fan-out: one message to every session",
            Self::Thick => "Thick fan-out: many messages to every session at once",
            Self::Pipelined => "Publishing: many producers, each with several messages on their way",
            Self::Single => "Publishing: one producer, one message at a time",
        }
    }

    pub(super) fn figures(self) -> &'static [Figure] {
        match self {
            Self::Connect => CONNECT,
            Self::Thin | Self::Thick => FANOUT,
            Self::Pipelined | Self::Single => PUBLISH,
        }
    }

    /// The figure at this place of the report.
    pub(super) fn figure(self, pointer: &str) -> Option<&'static Figure> {
        self.figures().iter().find(|figure| figure.pointer == pointer)
    }
}

const fn less(name: &'static str, unit: &'static str, pointer: &'static str) -> Figure {
    Figure { name, unit, pointer, better: Better::Less }
}

const fn more(name: &'static str, unit: &'static str, pointer: &'static str) -> Figure {
    Figure { name, unit, pointer, better: Better::More }
}

const fn ratio(kind: Kind, pointer: &'static str, to: &'static str, goal: f64) -> Goal {
    Goal { kind, pointer, bound: Bound::Ratio { to, goal } }
}

const fn absolute(kind: Kind, pointer: &'static str, goal: f64) -> Goal {
    Goal { kind, pointer, bound: Bound::Absolute { goal } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_of_a_figure_that_is_shown() {
        for goal in GOALS {
            assert!(goal.kind.figure(goal.pointer).is_some(), "{goal:?}");
        }
    }
}
