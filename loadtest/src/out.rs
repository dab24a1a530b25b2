//! The one way to the terminal: figures on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// One line of result.
///
/// # Errors
/// Standard output is gone.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// A note on standard error, where it does not mix with what a script reads. If that is gone, nobody wants it.
pub(crate) fn note(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Notes of a run under way. On a terminal one that begins like the note before it, up to a colon, takes its place: a phase that tells
/// how far it is has one line.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    topic: Option<String>,
}

impl Notes {
    /// Shows the next one.
    pub(crate) fn show(&mut self, text: &str) {
        let topic = text.split_once(": ").map(|(topic, _)| topic.to_owned());
        let goes_on = topic.is_some() && topic == self.topic && io::stderr().is_terminal();
        self.topic = topic;
        if goes_on {
            // Up one line, and clear it.
            note(format_args!("\x1b[1A\x1b[2K{text}"));
        } else {
            note(text);
        }
    }
}
