//! The one way to the terminal: standard output, collected and flushed on purpose, and notes on standard error.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use carillon::report::escape_json;
use clap::builder::styling::{AnsiColor, Effects, Style};

/// Written at once; a command that streams flushes when nothing more is there.
const BUFFER_BYTES: usize = 64 * 1024;

/// Standard output.
pub(crate) struct Out {
    stream: BufWriter<Stdout>,
    is_styled: bool,
}

/// How a part of a line looks on a terminal; plain elsewhere.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// Headings and names.
    Strong,
    /// What went well.
    Good,
    /// What did not.
    Bad,
    /// What is only there for those who look for it.
    Faint,
    /// What rings.
    Loud,
}

impl Look {
    fn style(self) -> Style {
        match self {
            Self::Strong => Style::new().effects(Effects::BOLD),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().effects(Effects::BOLD),
            Self::Faint => Style::new().effects(Effects::DIMMED),
            Self::Loud => AnsiColor::Yellow.on_default().effects(Effects::BOLD),
        }
    }
}

impl Out {
    /// Standard output; styled if it is a terminal and nobody asked for `NO_COLOR`.
    pub(crate) fn new() -> Self {
        let stream = io::stdout();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_styled = stream.is_terminal() && !refused;
        Self { stream: BufWriter::with_capacity(BUFFER_BYTES, stream), is_styled }
    }

    /// One line. What comes from users must be escaped by the caller.
    pub(crate) fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.stream, "{line}")
    }

    /// A part of a line with a look.
    pub(crate) fn styled(&self, look: Look, text: impl Display) -> String {
        if !self.is_styled {
            return text.to_string();
        }
        let style = look.style();
        format!("{style}{text}{style:#}")
    }

    /// One line of JSON, safe to print: what a terminal would obey is escaped, and means the same to a program.
    pub(crate) fn json(&mut self, value: &serde_json::Value) -> io::Result<()> {
        writeln!(self.stream, "{}", escape_json(&value.to_string()))
    }

    /// Shows what was written. What comes after this may rely on it having been seen.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("is_styled", &self.is_styled).finish_non_exhaustive()
    }
}

/// A note on standard error, where it does not mix with what a script reads. A standard error that is gone is no reason to end.
pub(crate) fn note(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}
