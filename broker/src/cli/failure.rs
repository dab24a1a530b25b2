//! What went wrong, in one line that says what to do, and the exit code that scripts can rely on.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use carillon_client::{Cause, ConnectError, ErrorCode, PublishError, RequestError};

use carillon::report::escape;

/// The exit codes, as `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Refused by the broker, or a file could not be used.
    Failed = 1,
    /// Wrong arguments, context or configuration.
    Usage = 2,
    /// No broker answers.
    Unreachable = 3,
    /// The token, the role or the broker's certificate.
    NotAllowed = 4,
    /// The broker's journal, or one of its sockets, failed while it served.
    Broker = 70,
}

/// Why a command ended before it was done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told.
    Told {
        /// What it means for a script.
        exit: Exit,
        /// What was wrong and what to do.
        text: String,
        /// For `--verbose`.
        cause: Option<Cause>,
    },
    /// Nobody reads the output any more (`| head`): not an error, and nobody to tell.
    BrokenPipe,
}

impl Failure {
    /// A failure without a cause.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::Told { exit, text: text.into(), cause: None }
    }

    /// Wrong arguments, context or configuration.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Something could not be done, and this is why.
    pub(crate) fn caused(exit: Exit, text: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Told { exit, text: text.into(), cause: Some(cause.into()) }
    }

    /// As [`From<RequestError>`], saying what was asked for.
    pub(crate) fn request(what: &str, error: RequestError) -> Self {
        Self::from(error).about(what)
    }

    /// Puts what was being done in front.
    pub(crate) fn about(self, what: &str) -> Self {
        match self {
            Self::Told { exit, text, cause } => Self::Told { exit, text: format!("{what}: {text}"), cause },
            Self::BrokenPipe => Self::BrokenPipe,
        }
    }

    /// The code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Told { exit, .. } => ExitCode::from(*exit as u8),
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }

    /// What it means for a script; `None` when there is nobody to tell.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Told { exit, .. } => Some(*exit),
            Self::BrokenPipe => None,
        }
    }

    /// The broker's code, if it is a refusal of the broker.
    pub(crate) fn refusal(&self) -> Option<ErrorCode> {
        let Self::Told { cause: Some(cause), .. } = self else { return None };
        match (cause.downcast_ref(), cause.downcast_ref()) {
            (Some(PublishError::Refused { code, .. }), _) | (_, Some(RequestError::Refused { code, .. })) => {
                Some(*code)
            }
            _ => None,
        }
    }

    /// Whether the broker's journal is another than the one the command's ids are of: what follows would fail alike.
    pub(crate) fn is_reset(&self) -> bool {
        let Self::Told { cause: Some(cause), .. } = self else { return false };
        matches!(cause.downcast_ref(), Some(PublishError::Reset))
            || matches!(cause.downcast_ref(), Some(RequestError::Reset))
    }

    /// The line for people, without a newline; with `verbose` one more for each cause. `None` when there is nobody to tell.
    pub(crate) fn report(&self, verbose: bool) -> Option<String> {
        let Self::Told { text, cause, .. } = self else { return None };
        let mut report = format!("carillon: {}", escape(text));
        let mut next: Option<&dyn Error> = cause.as_deref().map(|cause| cause as _);
        while let Some(cause) = next.filter(|_| verbose) {
            write!(report, "\n  because: {}", escape(&cause.to_string())).expect("a string takes all");
            next = cause.source();
        }
        Some(report)
    }
}

/// Output: a reader that went away is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::caused(Exit::Failed, format!("cannot write the output: {error}"), error),
        }
    }
}

fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::UNAUTHENTICATED | ErrorCode::TOKEN_EXPIRED | ErrorCode::FORBIDDEN => Exit::NotAllowed,
        ErrorCode::DRAINING | ErrorCode::SESSIONS_EXHAUSTED => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let (exit, text) = match &error {
            RequestError::Refused { code, text } => (exit_of(*code), format!("{text} ({code})")),
            RequestError::Token(_) => (Exit::NotAllowed, error.to_string()),
            RequestError::Interrupted | RequestError::Closed => (Exit::Unreachable, error.to_string()),
            RequestError::TooLarge { .. } => (Exit::Usage, error.to_string()),
            RequestError::Reset | RequestError::UnexpectedReply { .. } => (Exit::Failed, error.to_string()),
        };
        Self::caused(exit, text, error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (exit, text) = match &error {
            PublishError::Refused { code, text } => (exit_of(*code), format!("{text} ({code})")),
            PublishError::TooLarge { .. } => (Exit::Usage, error.to_string()),
            PublishError::NoProducer | PublishError::Reset => (Exit::Failed, error.to_string()),
            PublishError::Closed => (Exit::Unreachable, error.to_string()),
        };
        Self::caused(exit, text, error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let (exit, text) = match &error {
            ConnectError::Config(_) => (Exit::Usage, error.to_string()),
            ConnectError::Tls(cause) => (
                Exit::NotAllowed,
                format!(
                    "the broker did not prove that it is the one of this context: {cause}; is another broker there?"
                ),
            ),
            ConnectError::Resolve { .. } | ConnectError::Unreachable { .. } => (Exit::Unreachable, error.to_string()),
            ConnectError::Refused { code: code @ ErrorCode::FENCED, .. } => (
                Exit::Failed,
                format!("another session of the same device took over ({code}): was the state directory copied?"),
            ),
            ConnectError::Refused { code, text } => (exit_of(*code), format!("the broker refused: {text} ({code})")),
            ConnectError::Store(_) => (Exit::Failed, error.to_string()),
        };
        Self::caused(exit, text, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_exit_code_of_their_kind() {
        let refused = |code| RequestError::Refused { code, text: "no".into() };
        for (code, exit) in [
            (ErrorCode::NOT_FOUND, Exit::Failed),
            (ErrorCode::FORBIDDEN, Exit::NotAllowed),
            (ErrorCode::DRAINING, Exit::Unreachable),
        ] {
            let Failure::Told { exit: found, text, .. } = Failure::request("asking", refused(code)) else { panic!() };
            assert_eq!(found, exit, "{code}");
            assert_eq!(text, format!("asking: no ({code})"));
        }
    }

    #[test]
    fn a_report_is_one_line_and_causes_are_for_verbose() {
        let failure = Failure::caused(Exit::Failed, "bad\u{1b}[2J", io::Error::other("disk"));
        assert_eq!(failure.report(false).unwrap(), "carillon: bad\\u{1b}[2J");
        assert_eq!(failure.report(true).unwrap(), "carillon: bad\\u{1b}[2J\n  because: disk");
    }

    #[test]
    fn a_broken_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.report(true).is_none());
    }
}
