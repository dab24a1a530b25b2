//! The command line: one file per subcommand, and what they share.
//!
//! Owns arguments, output and exit codes. Knows the broker only by starting it ([`dev`], [`serve`]), and talks to it as any application
//! does: through the SDK.

mod backup;
mod completions;
mod config;
mod context;
mod conversation;
mod data;
mod dev;
mod ding;
mod failure;
mod history;
mod journal;
mod logs;
mod names;
mod out;
mod progress;
mod publish;
mod read;
mod restore;
mod running;
mod serve;
mod session;
mod show;
mod slots;
mod status;
mod subscribe;
mod supervisor;
mod table;
mod time;
mod token;
mod user;

use std::process::ExitCode;
use std::time::Duration;

use carillon::config::LogFormat;
use clap::{Parser, Subcommand};

use failure::{Exit, Failure};
use out::note;

/// What a stuck blocking read (of a terminal, say) may hold the process up after the command is done.
const LEAVE_AFTER: Duration = Duration::from_millis(100);

/// Names the configuration of a broker.
const CONFIG_VARIABLE: &str = "CARILLON_CONFIG";

const EXAMPLES: &str = "\
Start here, in two terminals:
  carillon dev                                      a broker, and a tour of what it does
  carillon sub --user bob                           what is addressed to bob, as it comes
  carillon pub --user alice --to bob hello          a message to bob

Commands find the broker through a context file: --context FILE, else CARILLON_CONTEXT, else ./carillon-data/context.toml, which `carillon dev` writes.

Exit codes:
  0  done
  1  refused by the broker, or a file could not be used
  2  wrong arguments, input, context or configuration
  3  no broker answers
  4  not allowed: the token, the role, or the broker's certificate
 70  the broker's journal or socket failed while it served (dev, serve)

CARILLON_LOG sets the log on standard error (error, warn, info, debug, or carillon=debug,…), CARILLON_LOG_FORMAT=json its form. NO_COLOR turns colours off.";

/// Carillon: a real-time messaging broker. Messages, receipts and DINGs over QUIC, through a durable journal.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// Say what caused an error, and log more
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Serve(serve::Args),
    Config(config::Args),
    Token(token::Args),
    #[command(name = "pub")]
    Publish(publish::Args),
    #[command(name = "sub")]
    Subscribe(subscribe::Args),
    History(history::Args),
    Read(read::Args),
    Status(status::Args),
    Ding(ding::Args),
    Conversation(conversation::Args),
    User(user::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Journal(journal::Args),
    Completions(completions::Args),
}

impl Command {
    /// The level of the log; `None` for a broker that serves, whose configuration says it. The others tell only what goes
    /// wrong.
    fn log_level(&self, verbose: bool) -> Option<&'static str> {
        match self {
            Self::Serve(_) => None,
            _ if verbose => Some("info"),
            Self::Dev(_) => Some("warn"),
            _ => Some("error"),
        }
    }

    async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Dev(args) => dev::run(args).await,
            Self::Serve(args) => serve::run(args).await,
            Self::Config(args) => config::run(args),
            Self::Token(args) => token::run(args),
            Self::Publish(args) => publish::run(args).await,
            Self::Subscribe(args) => subscribe::run(args).await,
            Self::History(args) => history::run(args).await,
            Self::Read(args) => read::run(args).await,
            Self::Status(args) => status::run(args).await,
            Self::Ding(args) => ding::run(args).await,
            Self::Conversation(args) => conversation::run(args).await,
            Self::User(args) => user::run(args).await,
            Self::Backup(args) => backup::run(args),
            Self::Restore(args) => restore::run(args),
            Self::Journal(args) => journal::run(args),
            Self::Completions(args) => completions::run(&args),
        }
    }
}

/// Runs the command of the process's arguments.
pub(crate) fn main() -> ExitCode {
    let Cli { verbose, command } = Cli::parse();
    let logs = command.log_level(verbose).map_or(Ok(()), |level| logs::start(level, LogFormat::Text));
    match logs.and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(report) = failure.report(verbose) {
                note(report);
            }
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::caused(Exit::Failed, format!("cannot start: {error}"), error))?;
    let done = runtime.block_on(command.run());
    runtime.shutdown_timeout(LEAVE_AFTER);
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    /// All commands that do something, with their path.
    fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            if below.has_subcommands() {
                found.extend(leaves(below, &path));
            } else {
                found.push((path, below.clone()));
            }
        }
        found
    }

    #[test]
    fn every_subcommand_explains_itself_with_an_example() {
        let leaves = leaves(&Cli::command(), "carillon");
        assert!(leaves.len() > 20, "{}", leaves.len());
        for (path, command) in leaves {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("xample") && help.contains(&path), "{path} --help shows no example");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} --help is silent about {}", argument.get_id());
            }
        }
    }
}
