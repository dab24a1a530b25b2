//! The log, on standard error, where it does not mix with what a command prints.

use tracing_subscriber::EnvFilter;

/// What decides which lines are written, in the syntax of `tracing-subscriber`: `info`, `carillon=debug,warn`…
const VARIABLE: &str = "CARILLON_LOG";

/// Starts the log at this level, unless `CARILLON_LOG` says otherwise.
pub(crate) fn start(level: &str) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only a second start in one process fails, and the first one serves.
    log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init().ok();
}
