//! The log, on standard error, where it does not mix with what a command prints.
//!
//! What peers send stands in it (names, texts of errors), so nothing in a line may act on a terminal or look like a line
//! of its own: every line is escaped as a whole when it is written, whoever wrote it. Hence no colours.

use std::env;
use std::io::{self, Stderr, Write};

use carillon::config::{LogFormat, log_filter};
use carillon::report::{escape, escape_json};
use tracing_subscriber::fmt::MakeWriter;

use super::failure::Failure;

/// What decides which lines are written, in the syntax of `tracing-subscriber`: `info`, `carillon=debug,warn`…
const LEVEL_VARIABLE: &str = "CARILLON_LOG";

/// `text` or `json`.
const FORMAT_VARIABLE: &str = "CARILLON_LOG_FORMAT";

/// Starts the log. What `CARILLON_LOG` and `CARILLON_LOG_FORMAT` say goes before the arguments.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let wrong = |name: &str, why: String| Failure::usage(format!("{name} in the environment: {why}"));
    let level = variable(LEVEL_VARIABLE).unwrap_or_else(|| level.to_owned());
    let filter = log_filter(&level).map_err(|why| wrong(LEVEL_VARIABLE, why))?;
    let format = match variable(FORMAT_VARIABLE).as_deref() {
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        Some(other) => return Err(wrong(FORMAT_VARIABLE, format!("{other:?} is neither text nor json"))),
        None => format,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Escaped(format));
    // Only a second start in one process fails, and the first one serves.
    match format {
        LogFormat::Text => log.try_init().ok(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init().ok(),
    };
    Ok(())
}

/// Makes the writers of lines.
struct Escaped(LogFormat);

impl<'a> MakeWriter<'a> for Escaped {
    type Writer = Line<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { format: self.0, to: io::stderr() }
    }
}

/// Writes one line, whole: the subscriber hands over each with one call.
struct Line<W> {
    format: LogFormat,
    to: W,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut safe = match self.format {
            LogFormat::Text => escape(text),
            LogFormat::Json => escape_json(text),
        }
        .into_owned();
        safe.push('\n');
        self.to.write_all(safe.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: LogFormat, line: &str, written: &str) {
        let mut writer = Line { format, to: Vec::new() };
        writer.write_all(line.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(writer.to).unwrap(), written);
    }

    #[test]
    fn a_line_stays_one_line_and_moves_no_cursor() {
        check(
            LogFormat::Text,
            "closed text=\"a\nERROR forged\u{1b}[2J\"\n",
            "closed text=\"a\\nERROR forged\\u{1b}[2J\"\n",
        );
        check(LogFormat::Text, "plain\n", "plain\n");
        check(LogFormat::Json, "{\"text\":\"\u{9b}\u{202e}\"}\n", "{\"text\":\"\\u009b\\u202e\"}\n");
    }
}
