//! How often each operation of the hot path may ask the allocator. The budgets stand in [`budgets`], with the reason of each.
//!
//! Everything counted is deterministic: one thread does the work, its clock stands still, no hash has a random seed. So a budget is met
//! exactly, and less than it is a failure too, which asks for the lower number. `bench/README.md` says when a budget may be raised.

mod budgets;
mod counting;
mod edge;
mod parts;
mod transport;

use std::backtrace::Backtrace;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use budgets::Budget;
use counting::{Asked, asked_by, traced};

/// Done before anything is counted: what is kept for reuse has its size then.
const WARM_UP: u64 = 2_000;

/// Callers of an allocation that a failure names.
const CALLERS_SHOWN: usize = 4;

/// Does an operation as often as its budget says, each time with what `prepare` made for it, and holds it against its budget.
fn check<S, T, R>(
    budget: &Budget,
    state: &mut S,
    mut prepare: impl FnMut(&mut S) -> T,
    mut run: impl FnMut(&mut S, T) -> R,
) {
    for _ in 0..WARM_UP {
        let prepared = prepare(state);
        run(state, prepared);
    }
    let mut asked = Asked::default();
    for _ in 0..budget.operations {
        let prepared = prepare(state);
        asked += asked_by(|| run(state, prepared)).1;
    }
    hold(budget, asked, || {
        let prepared = prepare(state);
        traced(|| run(state, prepared)).1
    });
}

/// Panics with a text that says what to do, if the count is not what the budget says. `again` does one operation more
/// and says who asks.
fn hold(budget: &Budget, asked: Asked, mut again: impl FnMut() -> Vec<Backtrace>) {
    let Budget { operation, operations, allocations, why } = budget;
    let counted = asked.allocations + asked.reallocations;
    if counted == *allocations {
        return;
    }
    let found = format!(
        "{operations} times \"{operation}\" asked the allocator {counted} times ({} of them to resize); the budget says {allocations}: {why}.",
        asked.reallocations
    );
    if counted < *allocations {
        panic!(
            "{found}\nLess is good news: write {counted} into bench/tests/allocations/budgets.rs, so that it stays so.\n"
        );
    }
    // Some ask now and then.
    let traces = (0..*operations).map(|_| again()).find(|traces| !traces.is_empty()).unwrap_or_default();
    panic!(
        "{found}\nWho asked in one more of them:\n{}\
        If that must be, raise the budget in bench/tests/allocations/budgets.rs and say why; bench/README.md says when one may.\n",
        callers(&traces)
    );
}

/// The allocations by their callers in this project, the most frequent first.
fn callers(traces: &[Backtrace]) -> String {
    let mut sites: BTreeMap<String, usize> = BTreeMap::new();
    for trace in traces {
        *sites.entry(callers_of(&trace.to_string())).or_default() += 1;
    }
    let mut sites: Vec<_> = sites.into_iter().collect();
    sites.sort_by_key(|(_, times)| Reverse(*times));
    sites.iter().fold(String::new(), |mut text, (site, times)| {
        let _ = writeln!(text, "  {times} x {site}");
        text
    })
}

/// The innermost frames of a backtrace that lie in this project, the set-up and this test apart.
fn callers_of(trace: &str) -> String {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = bench.parent().expect("the workspace");
    let mut ours = Vec::new();
    let mut lines = trace.lines().peekable();
    while let Some(line) = lines.next() {
        // A frame is two lines: its number and function, and then, where it is known, its place.
        let Some((_, function)) = line.split_once(": ") else { continue };
        let Some(place) = lines.next_if(|next| next.trim_start().starts_with("at ")) else { continue };
        let place = bench.join(place.trim_start().trim_start_matches("at "));
        if let Ok(place) = place.strip_prefix(project)
            && !place.starts_with("bench")
        {
            ours.push(format!("{function} at {}", place.display()));
        }
    }
    if ours.is_empty() {
        return "what the test itself does".to_owned();
    }
    ours.truncate(CALLERS_SHOWN);
    ours.join("\n      ")
}
