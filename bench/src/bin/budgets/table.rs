//! The table of budgets, and how counts compare with it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::count::Count;

/// How much more or less than its budget a bench may count before something is said. Another release of a dependency, or
/// the compiler's other mind about inlining, is less than that.
const TOLERANCE_PERCENT: u64 = 5;

/// What stands above the budgets in the file.
const HEAD: &str = "\
# How many instructions the benches of benches/instructions may count, each doing its operation so many `times`.
# Written by `bench/budgets.sh update`; README.md says when one may.
# Beyond 5 % more, or beyond a budget's own `tolerance_percent`, which has a `why`, a check fails.
";

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    times: u64,
    instructions: u64,
    tolerance_percent: Option<u64>,
    why: Option<String>,
}

impl Budget {
    fn tolerance_percent(&self) -> u64 {
        self.tolerance_percent.unwrap_or(TOLERANCE_PERCENT)
    }
}

/// All budgets, by the names of their benches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    budgets: BTreeMap<String, Budget>,
}

impl Table {
    pub(crate) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        Ok(Self { budgets: toml::from_str(text)? })
    }

    /// Each budget beside its count, and each count without a budget.
    pub(crate) fn compare(&self, counts: &BTreeMap<String, Count>) -> Comparison {
        let mut rows: Vec<_> = self
            .budgets
            .iter()
            .map(|(name, budget)| Row {
                name: name.clone(),
                budget: Some(budget.clone()),
                now: counts.get(name).copied(),
            })
            .collect();
        let unknown = counts.iter().filter(|(name, _)| !self.budgets.contains_key(*name));
        rows.extend(unknown.map(|(name, now)| Row { name: name.clone(), budget: None, now: Some(*now) }));
        Comparison { rows }
    }

    /// What was counted becomes the budget; what is said of tolerances stays.
    pub(crate) fn update(&mut self, counts: BTreeMap<String, Count>) {
        let mut old = std::mem::take(&mut self.budgets);
        self.budgets = counts
            .into_iter()
            .map(|(name, Count { times, instructions })| {
                let (tolerance_percent, why) =
                    old.remove(&name).map(|old| (old.tolerance_percent, old.why)).unwrap_or_default();
                (name, Budget { times, instructions, tolerance_percent, why })
            })
            .collect();
    }
}

/// The file.
impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{HEAD}")?;
        for (name, budget) in &self.budgets {
            let Budget { times, instructions, tolerance_percent, why } = budget;
            write!(out, "{name} = {{ times = {}, instructions = {}", grouped(*times), grouped(*instructions))?;
            if let Some(percent) = tolerance_percent {
                write!(out, ", tolerance_percent = {percent}")?;
            }
            if let Some(why) = why {
                write!(out, ", why = {}", toml::Value::from(why.as_str()))?;
            }
            writeln!(out, " }}")?;
        }
        Ok(())
    }
}

/// With `_` between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// A bench with its budget and its count, of which one may be missing.
struct Row {
    name: String,
    budget: Option<Budget>,
    now: Option<Count>,
}

/// What is to be said of a bench, and of all of them: the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It is as it was.
    Kept,
    /// It takes so much less that the budget should follow.
    Lower,
    /// It takes more, or one of the two is missing.
    Broken,
}

impl Row {
    fn verdict(&self) -> (Verdict, &'static str) {
        let (Some(budget), Some(now)) = (&self.budget, self.now) else {
            let missing = if self.budget.is_none() { "NO BUDGET: update" } else { "NO BENCH of this name: update" };
            return (Verdict::Broken, missing);
        };
        if now.times != budget.times {
            return (Verdict::Broken, "DONE ANOTHER NUMBER OF TIMES: update");
        }
        let (counted, kept) = (u128::from(now.instructions) * 100, u128::from(budget.instructions));
        let percent = u128::from(budget.tolerance_percent());
        if counted > kept * (100 + percent) {
            return (Verdict::Broken, "MORE THAN IT MAY");
        }
        // A tolerance of a whole and more has nothing below it.
        if counted < kept * 100u128.saturating_sub(percent) {
            return (Verdict::Lower, "less: lower the budget");
        }
        (Verdict::Kept, "")
    }
}

/// All rows, for people.
pub(crate) struct Comparison {
    rows: Vec<Row>,
}

impl Comparison {
    pub(crate) fn verdict(&self) -> Verdict {
        self.rows.iter().map(|row| row.verdict().0).max().unwrap_or(Verdict::Broken)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        writeln!(out, "{:widest$}  {:>12} {:>12}  ratio", "instructions an operation", "budget", "now")?;
        for row in &self.rows {
            let each = |count: Option<(u64, u64)>| match count {
                Some((instructions, times)) => format!("{:.1}", ratio(instructions, times)),
                None => "-".to_owned(),
            };
            let budget = row.budget.as_ref().map(|budget| (budget.instructions, budget.times));
            let now = row.now.map(|now| (now.instructions, now.times));
            let by = match (budget, now) {
                (Some((budget, _)), Some((now, _))) => format!("{:.3}", ratio(now, budget)),
                _ => "-".to_owned(),
            };
            let line =
                format!("{:widest$}  {:>12} {:>12}  {by:>5}  {}", row.name, each(budget), each(now), row.verdict().1);
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Both are counts of far less than 2⁵³.
#[allow(clippy::cast_precision_loss, reason = "for people to read, of counts that a float holds exactly")]
fn ratio(number: u64, of: u64) -> f64 {
    number as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, Count> {
        of.iter()
            .map(|(name, instructions)| ((*name).to_owned(), Count { times: 10, instructions: *instructions }))
            .collect()
    }

    const TABLE: &str = r#"
        firm = { times = 10, instructions = 100_000 }
        loose = { times = 10, instructions = 100_000, tolerance_percent = 20, why = "a \"reason\"" }
    "#;

    fn check(firm: u64, loose: u64, expected: Verdict) {
        let comparison = Table::parse(TABLE).expect("a table").compare(&counts(&[("firm", firm), ("loose", loose)]));
        assert_eq!(comparison.verdict(), expected, "{comparison}");
    }

    #[test]
    fn more_than_the_tolerance_fails_and_less_is_told() {
        check(100_000, 100_000, Verdict::Kept);
        check(105_000, 120_000, Verdict::Kept);
        check(105_001, 100_000, Verdict::Broken);
        check(100_000, 120_001, Verdict::Broken);
        check(95_000, 80_000, Verdict::Kept);
        check(94_999, 100_000, Verdict::Lower);
        check(100_000, 79_999, Verdict::Lower);
        check(1, 120_001, Verdict::Broken);
    }

    #[test]
    fn a_bench_without_a_budget_and_a_budget_without_a_bench_fail() {
        let table = Table::parse(TABLE).expect("a table");
        assert_eq!(table.compare(&counts(&[("firm", 100_000)])).verdict(), Verdict::Broken);
        let more = counts(&[("firm", 100_000), ("loose", 100_000), ("new", 1)]);
        assert_eq!(table.compare(&more).verdict(), Verdict::Broken);
        assert_eq!(Table::default().compare(&BTreeMap::new()).verdict(), Verdict::Broken, "nothing was compared");
        let mut others = counts(&[("firm", 100_000), ("loose", 100_000)]);
        others.insert("firm".to_owned(), Count { times: 11, instructions: 100_000 });
        assert_eq!(table.compare(&others).verdict(), Verdict::Broken, "the operation is done another number of times");
    }

    #[test]
    fn an_update_keeps_tolerances_and_is_read_back() {
        let mut table = Table::parse(TABLE).expect("a table");
        let new = counts(&[("loose", 1_234_567), ("new", 7)]);
        table.update(new.clone());
        let text = table.to_string();
        assert!(
            text.contains("loose = { times = 10, instructions = 1_234_567, tolerance_percent = 20, why = "),
            "{text}"
        );
        assert!(!text.contains("firm"), "{text}");
        let read = Table::parse(&text).expect("a table");
        assert_eq!(read, table);
        assert_eq!(read.compare(&new).verdict(), Verdict::Kept);
    }
}
