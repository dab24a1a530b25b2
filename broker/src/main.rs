//! The `carillon` command: arguments in, a command run, an exit code out. Everything is in [`cli`].

mod allocator;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
