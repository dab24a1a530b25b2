//! The page that compares Carillon with its peers, made from the reports of alternating runs.
//!
//! Owns what is compared and how it is said; what ran, and on which machine, it is told by files beside the reports. Runs nothing.

mod figures;
mod page;
mod runs;

use std::fs;
use std::io;
use std::path::Path;

use crate::failure::Failure;
use page::Page;
use runs::Runs;

/// Lines of `what: how it was`, such as the machine and the versions.
const FACTS: &str = "facts.txt";

/// What was run, as it was.
const COMMANDS: &str = "commands.txt";

/// The page in Markdown, from a directory with `KIND.CONTENDER.ROUND.json` and, if they are there, `facts.txt` and
/// `commands.txt`.
///
/// # Errors
/// A file cannot be read or is no report, or there is no complete run.
pub fn page(directory: &Path) -> Result<String, Failure> {
    let runs = Runs::read(directory)?;
    let (facts, commands) = (read_if_there(&directory.join(FACTS))?, read_if_there(&directory.join(COMMANDS))?);
    let page = Page { runs: &runs, facts: &facts, commands: &commands };
    if page.is_empty() {
        let why = format!("{} has no report of a complete run: KIND.CONTENDER.ROUND.json", directory.display());
        return Err(Failure::Usage(why));
    }
    Ok(page.to_string())
}

fn read_if_there(path: &Path) -> Result<String, Failure> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| Failure::Read { path: path.to_owned(), source }),
    }
}
