//! Holds the instructions that the hot path takes against their budgets, or writes new budgets. `bench/budgets.sh` runs the benches
//! and hands it what they print: use that.
//!
//! Owns the table `bench/budgets.toml` and what is said of it. What is counted stands in `bench/benches/instructions`; this knows
//! nothing of it but names and counts.

mod count;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error;

use table::{Table, Verdict};

#[derive(Debug, Error)]
enum Error {
    #[error("run bench/budgets.sh, which hands what is counted to `budgets check` or `budgets update`")]
    Usage,
    #[error("the table {} cannot be read or written", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the table {} is not one of budgets; `budgets update` writes it anew if it is removed", path.display())]
    Table { path: PathBuf, source: toml::de::Error },
    #[error("there are no counts")]
    Count(#[from] count::Error),
    #[error("the result cannot be told")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            let mut text = format!("budgets: {error}");
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                text += &format!(": {next}");
                cause = next;
            }
            writeln!(io::stderr(), "{text}").ok();
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let mut words = std::env::args().skip(1);
    let verb = words.next();
    let (Some(verb), None) = (verb, words.next()) else { return Err(Error::Usage) };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets.toml");
    match verb.as_str() {
        "check" => check(&path),
        "update" => update(&path),
        _ => Err(Error::Usage),
    }
}

fn check(path: &Path) -> Result<ExitCode, Error> {
    let table = read(path)?;
    let comparison = table.compare(&count::read(io::stdin().lock())?);
    let mut out = io::stdout().lock();
    write!(out, "\n{comparison}")?;
    let said = match comparison.verdict() {
        Verdict::Kept => "Every budget is kept.",
        Verdict::Lower => {
            "Every budget is kept, and some are too large now: `bench/budgets.sh update`, so that it stays so."
        }
        Verdict::Broken => {
            "A budget is not kept. Where the instructions go, function by function (for the bench NAME):\n  \
             callgrind_annotate target/gungraun/carillon-bench/instructions/*/NAME.*/callgrind.*.out | head -40\n\
             The same of the commit before, beside it, shows what grew. If it must be so: `bench/budgets.sh update`, and say why in the commit; \
             bench/README.md says when one may."
        }
    };
    writeln!(out, "{said}")?;
    Ok(if comparison.verdict() == Verdict::Broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn update(path: &Path) -> Result<ExitCode, Error> {
    let mut table = if path.exists() { read(path)? } else { Table::default() };
    let counts = count::read(io::stdin().lock())?;
    let mut out = io::stdout().lock();
    write!(out, "\n{}", table.compare(&counts))?;
    table.update(counts);
    std::fs::write(path, table.to_string()).map_err(|source| Error::File { path: path.to_owned(), source })?;
    writeln!(out, "{} is written. Say in the commit why its numbers changed.", path.display())?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Table, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    Table::parse(&text).map_err(|source| Error::Table { path: path.to_owned(), source })
}
