//! The page's Markdown.

use std::fmt;

use super::figures::{Better, Bound, GOALS, Goal, Kind};
use super::runs::{OURS, Runs, Spread};

const HEAD: &str = "\
# Carillon beside its peers

Made by `loadtest/compare.sh`; do not edit. The figures are of one machine that holds the server and the load: compare the columns with each
other and with no other page. Each figure is the median of alternating runs, with the least and the most; the last column is
Carillon's median divided by that of the row.
";

/// See the module.
pub(super) struct Page<'a> {
    pub(super) runs: &'a Runs,
    pub(super) facts: &'a str,
    pub(super) commands: &'a str,
}

impl Page<'_> {
    pub(super) fn is_empty(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.runs.contenders(kind).next().is_none())
    }

    fn goals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## Goals\n\n| what | goal | seen | |\n| --- | --- | ---: | --- |")?;
        for goal in GOALS {
            self.goal(f, goal)?;
        }
        Ok(())
    }

    fn goal(&self, f: &mut fmt::Formatter<'_>, goal: &Goal) -> fmt::Result {
        let figure = goal.kind.figure(goal.pointer).expect("every goal is of a figure");
        let word = match figure.better {
            Better::Less => "at most",
            Better::More => "at least",
        };
        let ours = self.runs.spread(goal.kind, OURS, figure).map(|spread| spread.median);
        let (bound, text, seen, unit) = match goal.bound {
            Bound::Ratio { to, goal: bound } => {
                let theirs = self.runs.spread(goal.kind, to, figure).map(|spread| spread.median);
                let seen = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
                (bound, format!("{word} {bound} × {to}'s"), seen, "×")
            }
            Bound::Absolute { goal: bound } => (bound, format!("{word} {bound} {}", figure.unit), ours, figure.unit),
        };
        let met = match (seen, figure.better) {
            (None, Better::Less | Better::More) => "not measured",
            (Some(seen), Better::Less) if seen <= bound => "met",
            (Some(seen), Better::More) if seen >= bound => "met",
            (Some(_), Better::Less | Better::More) => "**missed**",
        };
        let seen = seen.map_or("–".to_owned(), |seen| format!("{} {unit}", number(seen)));
        writeln!(f, "| {}: {} | {text} | {seen} | {met} |", goal.kind.word(), figure.name)
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, kind: Kind) -> fmt::Result {
        writeln!(f, "\n## {}\n", kind.title())?;
        writeln!(f, "| figure | of | runs | median | least … most | Carillon ÷ it |")?;
        writeln!(f, "| --- | --- | ---: | ---: | ---: | ---: |")?;
        for figure in kind.figures() {
            let ours = self.runs.spread(kind, OURS, figure);
            let mut name = format!("{}, {}", figure.name, figure.unit);
            for contender in self.runs.contenders(kind) {
                let Some(spread) = self.runs.spread(kind, contender, figure) else { continue };
                row(f, &name, contender, ours, spread)?;
                name.clear();
            }
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, contender: &str, ours: Option<Spread>, spread: Spread) -> fmt::Result {
    let Spread { runs, min, median, max } = spread;
    let ratio = match ours {
        Some(ours) if contender != OURS && median > 0.0 => format!("{:.2}", ours.median / median),
        Some(_) | None => String::new(),
    };
    let (min, median, max) = (number(min), number(median), number(max));
    writeln!(f, "| {name} | {contender} | {runs} | {median} | {min} … {max} | {ratio} |")
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        if !self.facts.is_empty() {
            writeln!(f, "\n| | |\n| --- | --- |")?;
            for line in self.facts.lines().filter(|line| !line.is_empty()) {
                let (what, how) = line.split_once(": ").unwrap_or((line, ""));
                writeln!(f, "| {what} | {how} |")?;
            }
        }
        self.goals(f)?;
        for kind in Kind::ALL {
            if self.runs.contenders(kind).next().is_some() {
                self.table(f, kind)?;
            }
        }
        if !self.runs.incomplete.is_empty() {
            writeln!(f, "\nNot complete, and in no figure: {}.", self.runs.incomplete.join(", "))?;
        }
        if !self.commands.is_empty() {
            write!(f, "\n## Commands\n\n```text\n{}```\n", ending_with_newline(self.commands))?;
        }
        Ok(())
    }
}

/// Three digits of what is small, whole numbers of what is large.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn ending_with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::page;
    use super::super::runs::tests::fanout;
    use super::number;
    use std::fs;

    #[test]
    fn a_page_has_medians_ratios_and_goals() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let empty = page(directory.path()).unwrap_err();
        assert!(empty.to_string().contains("no report"), "{empty}");
        for (round, cpu_us) in [(1, 4.0), (2, 6.0), (3, 5.0)] {
            put(&format!("thin.carillon.{round}.json"), &fanout(cpu_us, 300.0).to_string());
            put(&format!("thin.nats.{round}.json"), &fanout(2.0 * cpu_us, 100.0).to_string());
        }
        put("thin.nats.4.json", "{\"offered\": 1, \"delivered\": 0}");
        put("facts.txt", "cores: 2\nkernel: 6.1\n");
        put("commands.txt", "run this\n\n");
        let text = page(directory.path()).unwrap();
        for line in [
            "| cores | 2 |",
            "| server's CPU a delivery, µs | carillon | 3 | 5.00 | 4.00 … 6.00 |  |",
            "|  | nats | 3 | 10.0 | 8.00 … 12.0 | 0.50 |",
            "|  | nats | 3 | 100 | 100 … 100 | 3.00 |",
            "| thin: server's CPU a delivery | at most 0.65 × nats's | 0.50 × | met |",
            "| connect: server's CPU a connection | at most 0.83 × nats's | – | not measured |",
            "| single: acknowledged a second | at least 1 × jetstream-always's | – | not measured |",
            "Not complete, and in no figure: thin.nats.4.json.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        assert!(text.ends_with("```text\nrun this\n```\n"), "{text}");
        assert!(!text.contains("Thick fan-out"), "nothing is said of what did not run");
        put("thin.carillon.4.json", &fanout(20.0, 300.0).to_string());
        put("thin.carillon.5.json", &fanout(20.0, 300.0).to_string());
        put("thin.carillon.6.json", &fanout(20.0, 300.0).to_string());
        assert!(page(directory.path()).unwrap().contains("| 1.30 × | **missed** |"));
        put("thin.carillon.7.json", "none");
        assert!(page(directory.path()).unwrap_err().to_string().contains("is no report"));
    }

    #[test]
    fn numbers_have_three_digits_or_more() {
        for (value, text) in [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234"), (-12.0, "-12.0")] {
            assert_eq!(number(value), text);
        }
    }
}
