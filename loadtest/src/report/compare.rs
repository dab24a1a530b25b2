//! Two reports side by side.

use std::fmt;

use serde::Serialize;

use super::Document;
use super::figures::{numbers, readable};

/// Figures that both reports have, and what makes them hard to compare.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// In the order of their names.
    pub rows: Vec<Compared>,
    /// Sentences.
    pub doubts: Vec<String>,
}

/// One figure of both.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Where the reports have it.
    pub figure: String,
    /// In the first one.
    pub a: f64,
    /// In the second one.
    pub b: f64,
    /// The second one divided by the first one; `None` if that is 0.
    pub ratio: Option<f64>,
}

impl Comparison {
    /// Of these two.
    pub fn of(a: &Document, b: &Document) -> Self {
        let others = numbers(&b.figures);
        let rows = numbers(&a.figures).into_iter().filter_map(|(figure, a)| {
            let place = others.binary_search_by(|(name, _)| name.as_str().cmp(&figure));
            // Lists keep their own order.
            let other = place.ok().map(|place| &others[place]).or_else(|| others.iter().find(|(of, _)| *of == figure));
            let b = other?.1;
            Some(Compared { figure, a, b, ratio: (a != 0.0).then_some(b / a) })
        });
        Self { rows: rows.collect(), doubts: doubts(a, b) }
    }
}

fn doubts(a: &Document, b: &Document) -> Vec<String> {
    let mut found = Vec::new();
    let (of_a, of_b) = (&a.head, &b.head);
    if of_a.scenario != of_b.scenario {
        found.push(format!("they are of two scenarios, {} and {}", of_a.scenario, of_b.scenario));
    }
    if of_a.machine != of_b.machine {
        found.push(format!("they ran on two machines: {}, and {}", of_a.machine, of_b.machine));
    }
    for (name, document) in [("A", a), ("B", b)] {
        if !document.is_complete {
            found.push(format!("{name} is of a run in which not everything was as it must be"));
        }
        if document.head.generator.limit != super::Limit::None {
            found.push(format!("in {name} {}", document.head.generator.verdict));
        }
    }
    found
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.rows.iter().map(|row| row.figure.chars().count()).max().unwrap_or(0).max("figure".len());
        write!(f, "{:<wide$}{:>14}{:>14}{:>10}", "figure", "A", "B", "B / A")?;
        for Compared { figure, a, b, ratio } in &self.rows {
            let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.3}"));
            write!(f, "\n{figure:<wide$}{:>14}{:>14}{ratio:>10}", readable(*a), readable(*b))?;
        }
        for doubt in &self.doubts {
            write!(f, "\nnote: {doubt}")?;
        }
        Ok(())
    }
}
