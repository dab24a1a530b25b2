//! The one way to the terminal: figures on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, Write};

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
