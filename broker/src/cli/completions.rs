//! `carillon completions`: what a shell must know to complete the command.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::failure::Failure;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, for the user who runs them; then begin a new shell:
  carillon completions bash > ~/.local/share/bash-completion/completions/carillon
  carillon completions zsh  > ~/.zfunc/_carillon      (with `fpath+=~/.zfunc` before compinit in .zshrc)
  carillon completions fish > ~/.config/fish/completions/carillon.fish

For all users: /usr/share/bash-completion/completions/carillon, /usr/share/zsh/site-functions/_carillon, /usr/share/fish/vendor_completions.d/carillon.fish.")]
pub(crate) struct Args {
    /// Whose
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Written at once afterwards: clap's generators panic when a pipe breaks.
    let mut script = Vec::new();
    generate(args.shell, &mut super::Cli::command(), "carillon", &mut script);
    let mut stream = std::io::stdout().lock();
    stream.write_all(&script)?;
    Ok(stream.flush()?)
}
