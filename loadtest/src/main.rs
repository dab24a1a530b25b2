//! The command: arguments in, figures out, an exit code that a script can trust.

mod allocator;
mod args;
mod out;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;

fn main() -> ExitCode {
    match Cli::parse().scenario.run() {
        Ok(is_complete) if is_complete => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            out::note(format_args!("error: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}
