//! Where and how something was measured, and whether it was the load generator that was.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{MACHINE_BUSY_SHARE, OWN_BUSY_SHARE, OWN_LATE};
use crate::phases::Cost;

/// The common head of all reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// What measured.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// What was run.
    pub scenario: String,
    /// When it began, by the machine's clock, UTC.
    pub at: String,
    /// How long it took in all, preparations included, in seconds.
    pub took_s: f64,
    /// Where.
    pub machine: Machine,
    /// The arguments, as they were given.
    pub arguments: Vec<String>,
    /// What the load generator did for it.
    pub generator: Generator,
}

/// What it was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of its processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
}

/// What a scenario knows of its own work while it measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// How long that was, in seconds.
    pub took_s: f64,
    /// CPU of the load generator, in seconds.
    pub own_cpu_s: f64,
    /// CPU of the broker, if its process id was given.
    pub broker_cpu_s: Option<f64>,
    /// Threads that played the sessions.
    pub threads: u32,
    /// How late something was sent at worst.
    pub late_ms_max: f64,
}

/// What the load generator did, and what that means for the figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// CPU that it used while it measured, in seconds.
    pub cpu_s: f64,
    /// Its share of the cores that its threads could have had, 0 to 1.
    pub share: f64,
    /// How late it sent something at worst, in milliseconds.
    pub late_ms_max: f64,
    /// What bounded the figures.
    pub limit: Limit,
    /// The same in a sentence.
    pub verdict: String,
}

/// What bounded the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Nothing on this side: it is the broker that was measured.
    None,
    /// The generator's CPU.
    OwnCpu,
    /// It could not keep to its schedule.
    Late,
    /// The cores of the machine, which both sides share.
    Machine,
}

impl Head {
    /// Of a run that began at this time since the Unix epoch.
    pub fn new(scenario: &str, began: Duration, took: Duration, arguments: Vec<String>, load: &Load) -> Self {
        let machine = Machine::this();
        Self {
            tool: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.to_owned(),
            at: utc(began.as_secs()),
            took_s: took.as_secs_f64(),
            generator: Generator::judge(load, machine.cores),
            machine,
            arguments,
        }
    }
}

impl Machine {
    /// The machine that this runs on. What it does not tell is unknown.
    fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|memory| memory.strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_mib, kernel } = self;
        write!(f, "{cores} cores of {cpu}, {memory_mib} MiB, Linux {kernel}")
    }
}

impl Load {
    /// From what the phases of a run took: the one in which the generator had most to do.
    pub(crate) fn of_costs(costs: &[Cost], threads: u32, late_ms_max: f64) -> Self {
        let busy = |cost: &Cost| cost.own_cpu_s / cost.took_s.max(1e-6);
        let busiest = costs.iter().max_by(|one, other| busy(one).total_cmp(&busy(other)));
        busiest.map_or(Self { threads, late_ms_max, ..Self::default() }, |cost| Self {
            took_s: cost.took_s,
            own_cpu_s: cost.own_cpu_s,
            broker_cpu_s: cost.broker_user_s.zip(cost.broker_system_s).map(|(user, system)| user + system),
            threads,
            late_ms_max,
        })
    }
}

impl Generator {
    fn judge(load: &Load, cores: usize) -> Self {
        let Load { took_s, own_cpu_s, broker_cpu_s, threads, late_ms_max } = *load;
        let took_s = took_s.max(1e-6);
        let most = f64::from(threads.max(1)).min(cores as f64);
        let share = own_cpu_s / took_s / most;
        let both = (own_cpu_s + broker_cpu_s.unwrap_or_default()) / took_s / cores as f64;
        let late_ms_most = OWN_LATE.as_secs_f64() * 1e3;
        let percent = |share: f64| share * 100.0;
        let (limit, verdict) = if share >= OWN_BUSY_SHARE {
            let verdict = format!(
                "the generator used {:.0} % of the CPU that its {threads} thread(s) can have: it is the generator that was measured",
                percent(share)
            );
            (Limit::OwnCpu, verdict)
        } else if late_ms_max >= late_ms_most {
            let verdict = format!(
                "the generator was {late_ms_max:.1} ms late at worst: latencies up to that may be its own, not the broker's"
            );
            (Limit::Late, verdict)
        } else if both >= MACHINE_BUSY_SHARE {
            let verdict = format!(
                "generator and broker together used {:.0} % of the machine: rates and latencies are what both of them reach on it",
                percent(both)
            );
            (Limit::Machine, verdict)
        } else {
            let verdict = format!(
                "the generator had room: {:.0} % of the CPU that its thread(s) can have, {late_ms_max:.1} ms late at worst",
                percent(share)
            );
            (Limit::None, verdict)
        };
        Self { cpu_s: own_cpu_s, share, late_ms_max, limit, verdict }
    }
}

/// A time since the Unix epoch as RFC 3339 has it, to the second, in the Gregorian calendar.
fn utc(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_people_write_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    fn check(own_cpu_s: f64, broker_cpu_s: f64, late_ms_max: f64, limit: Limit) {
        let load = Load { took_s: 10.0, own_cpu_s, broker_cpu_s: Some(broker_cpu_s), threads: 1, late_ms_max };
        let found = Generator::judge(&load, 2);
        assert_eq!(found.limit, limit, "{}", found.verdict);
    }

    #[test]
    fn it_is_said_when_it_is_the_generator_that_was_measured() {
        check(2.0, 5.0, 0.5, Limit::None);
        check(9.8, 1.0, 0.5, Limit::OwnCpu);
        check(2.0, 5.0, 80.0, Limit::Late);
        check(8.0, 11.8, 0.5, Limit::Machine);
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine}");
    }
}
