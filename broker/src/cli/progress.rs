//! How far a command is, on standard error, while somebody looks: a bar when the end is known, else a count.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, shown as KiB, MiB…
    Bytes,
    /// Things of this name, in the plural.
    Things(&'static str),
}

/// A bar; nothing at all if standard error is no terminal. It is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins to show how far `what` is; `total` if the end is known, or will be by the first [`Progress::at_of`].
    pub(crate) fn new(what: &'static str, total: Option<u64>, unit: Unit) -> Self {
        if !io::stderr().is_terminal() {
            return Self::hidden();
        }
        let counts = match (unit, total) {
            (Unit::Bytes, Some(_)) => "{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left".to_owned(),
            (Unit::Bytes, None) => "{bytes}, {bytes_per_sec}".to_owned(),
            (Unit::Things(things), Some(_)) => format!("{{human_pos}} of {{human_len}} {things}, {{eta}} left"),
            (Unit::Things(things), None) => format!("{{human_pos}} {things}, {{per_sec}}"),
        };
        let bar = if total.is_some() { "[{bar:32}] " } else { "" };
        let style = ProgressStyle::with_template(&format!("{{msg}} {bar}{counts}")).expect("the template is ours");
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what);
        Self { bar }
    }

    /// Where the output itself is on the screen, a bar would only be in its way.
    pub(crate) fn beside_output(what: &'static str, total: Option<u64>, unit: Unit) -> Self {
        if io::stdout().is_terminal() { Self::hidden() } else { Self::new(what, total, unit) }
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// So much is done, of all. Cheap: the screen is drawn some times a second.
    pub(crate) fn at(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// So much is done, of so much: where the end is learnt on the way.
    pub(crate) fn at_of(&self, done: u64, total: u64) {
        self.bar.set_length(total.max(done));
        self.at(done);
    }

    /// Prints a line on standard error above the bar.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        self.bar.suspend(|| super::out::note(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_a_template_that_is_understood() {
        for unit in [Unit::Bytes, Unit::Things("lines")] {
            for total in [None, Some(7)] {
                let progress = Progress::new("reading", total, unit);
                progress.at(3);
                progress.at_of(4, 9);
            }
        }
    }
}
