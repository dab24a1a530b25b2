//! Runs the simulation: one seed with what it did last, or many on all cores.
//!
//! `cargo run --release -p carillon-tests --bin sim -- --seed 7` replays one; `--seeds 0..1000` runs these, `--minutes 5` runs seeds
//! that nobody has tried. A failure is cut down to as few steps as it takes, and printed with the command that replays it.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use carillon::clock::SystemClock;
use carillon_tests::sim::{Coverage, Failure, Machine, RunOptions, attempt, run_on, shrink};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Runs the broker in a simulation that a seed repeats.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Replays this seed and shows what it did.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Runs these seeds: the first one, and the one after the last.
    #[arg(long, value_name = "A..B", value_parser = parse_range, conflicts_with = "minutes")]
    seeds: Option<Range<u64>>,
    /// Runs seeds that nobody has tried for so long.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// What it runs on.
    #[arg(long, value_enum, default_value_t = On::Failing)]
    machine: On,
    /// Ends each run after so many steps.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    steps: usize,
    /// Shows so many of the last actions of a run that failed; 4,000 are kept.
    #[arg(long, value_name = "N", default_value_t = 60)]
    actions: usize,
    /// Seeds that run side by side; all cores unless given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// The machine, by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum On {
    /// Nothing fails.
    Reliable,
    /// The process dies, and the disk fails and forgets.
    Failing,
}

impl On {
    const fn machine(self) -> Machine {
        match self {
            Self::Reliable => Machine::Reliable,
            Self::Failing => Machine::Failing,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Failing => "failing",
        }
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let malformed = || format!("{text:?} is no range: write two numbers as 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(malformed)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| malformed());
    let range = number(first)?..number(end)?;
    if range.is_empty() { Err(format!("{text:?} holds no seed")) } else { Ok(range) }
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    // A failure is told once, by what was wrong; not by each try to cut it down.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments.seed {
        Some(seed) => replay(&arguments, seed),
        None => run_many(&arguments),
    }
}

/// One seed, with its actions.
fn replay(arguments: &Arguments, seed: u64) -> io::Result<ExitCode> {
    let (machine, steps_max) = (arguments.machine.machine(), arguments.steps);
    match attempt(RunOptions { seed, machine, steps_max, noted: true }) {
        Ok(coverage) => {
            print_coverage(&coverage)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            print_failure(arguments, &failure, failure.step)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What the threads share.
struct Shared {
    next: AtomicU64,
    end: Option<u64>,
    deadline: Option<Instant>,
    stop: AtomicBool,
    found: Mutex<(Coverage, Option<Failure>)>,
}

impl Shared {
    fn next(&self) -> Option<u64> {
        let over = self.deadline.is_some_and(|deadline| now() >= deadline);
        let stop = self.stop.load(Ordering::Relaxed);
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        Some(seed).filter(|seed| !over && !stop && self.end.is_none_or(|end| *seed < end))
    }

    fn work(&self, machine: Machine, bar: &ProgressBar) {
        while let Some(seed) = self.next() {
            let ran = run_on(seed, machine);
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            match ran {
                Ok(coverage) => found.0.add(&coverage),
                Err(failure) => {
                    self.stop.store(true, Ordering::Relaxed);
                    found.1.get_or_insert(failure);
                }
            }
            bar.inc(1);
        }
    }
}

fn now() -> Instant {
    carillon_transport::Clock::now(&SystemClock)
}

/// Many seeds, until one fails.
fn run_many(arguments: &Arguments) -> io::Result<ExitCode> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (begun, machine) = (now(), arguments.machine.machine());
    let fresh = RandomState::new().hash_one("a fresh set") >> 16;
    let (first, end) = match (&arguments.seeds, arguments.minutes) {
        (Some(seeds), _) => (seeds.start, Some(seeds.end)),
        (None, Some(_)) => (fresh, None),
        (None, None) => (0, Some(1_000)),
    };
    let shared = Shared {
        next: AtomicU64::new(first),
        end,
        deadline: arguments.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes)),
        stop: AtomicBool::new(false),
        found: Mutex::default(),
    };
    let bar = bar(end.map(|end| end - first));
    thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores).max(1) {
            scope.spawn(|| shared.work(machine, &bar));
        }
    });
    bar.finish_and_clear();
    let took = now().saturating_duration_since(begun);
    let (coverage, failure) = shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    print_coverage(&coverage)?;
    let a_minute = coverage.runs as f64 / took.as_secs_f64().max(0.001) * 60.0;
    let seconds = took.as_secs_f64();
    writeln!(io::stdout(), "seeds from {first} on: {} in {seconds:.1} s, {a_minute:.0} a minute", coverage.runs)?;
    let Some(failure) = failure else { return Ok(ExitCode::SUCCESS) };
    writeln!(io::stdout(), "seed {} fails in step {} after {seconds:.1} s", failure.seed, failure.step)?;
    let (steps, smallest) = shrink(failure, machine);
    print_failure(arguments, &smallest, steps)?;
    Ok(ExitCode::FAILURE)
}

fn bar(seeds: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let counts =
        if seeds.is_some() { "[{bar:32}] {human_pos} of {human_len} seeds, {eta} left" } else { "{human_pos} seeds" };
    let style = ProgressStyle::with_template(&format!("{{msg}} {counts}")).expect("the template is ours");
    let bar = ProgressBar::with_draw_target(seeds, ProgressDrawTarget::stderr());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message("simulating");
    bar
}

fn print_coverage(coverage: &Coverage) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, count) in coverage.counts() {
        writeln!(out, "{:>12} {}", count, name.replace('_', " "))?;
    }
    writeln!(out, "{:>#18x} trace", coverage.trace)
}

fn print_failure(arguments: &Arguments, failure: &Failure, steps: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nthe last actions:")?;
    for action in failure.last_actions(arguments.actions) {
        writeln!(out, "{action}")?;
    }
    let (seed, machine) = (failure.seed, arguments.machine.name());
    writeln!(out, "\nseed {seed} fails in step {}, {steps} steps suffice: {}", failure.step, failure.why)?;
    writeln!(
        out,
        "replay it with: cargo run --release -p carillon-tests --bin sim -- --machine {machine} --seed {seed} --steps {steps}"
    )
}
