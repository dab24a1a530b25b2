//! `carillon config`: look at a configuration before a broker is started with it.

use std::path::{Path, PathBuf};

use carillon::clock::SystemClock;
use carillon::config::{self, Config, EXAMPLE, PATH_DEFAULT, Verdict};
use carillon::report::{Causes, escape};
use serde_json::json;

use super::failure::{Exit, Failure};
use super::out::{Look, Out};

/// Check a configuration, show it with its defaults, or print an example
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// See whether a broker would start with it: values, certificate, keys, directory, addresses
    #[command(after_help = "Example, as the broker's user, because files may be readable for that one alone:\n  \
                            sudo -u carillon carillon config check\n\n\
                            Changes nothing, and may be asked while a broker serves. Exit code 2: something is wrong.")]
    Check {
        #[command(flatten)]
        file: File,
        /// One JSON object for each thing that was looked at
        #[arg(long)]
        json: bool,
    },
    /// Print all of it as TOML, defaults filled in
    #[command(after_help = "Example:\n  carillon config show --config /etc/carillon/carillon.toml")]
    Show {
        #[command(flatten)]
        file: File,
    },
    /// Print an example with every key and what it is for
    #[command(after_help = "Example:\n  carillon config example > carillon.toml")]
    Example,
}

/// Where the configuration is: named alike by every command that reads one.
#[derive(Debug, clap::Args)]
pub(crate) struct File {
    /// The configuration, TOML
    #[arg(long = "config", value_name = "FILE", env = super::CONFIG_VARIABLE, default_value = PATH_DEFAULT)]
    pub(crate) path: PathBuf,
}

/// Reads a configuration.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| Failure::caused(Exit::Usage, Causes(&error).to_string(), error))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut out = Out::new();
    match args.what {
        What::Check { file, json } => return check(&file.path, json, &mut out),
        What::Show { file } => out.line(load(&file.path)?.to_toml().trim_end())?,
        What::Example => out.line(EXAMPLE.trim_end())?,
    }
    Ok(out.flush()?)
}

fn check(path: &Path, json: bool, out: &mut Out) -> Result<(), Failure> {
    let findings = config::check(&load(path)?, &SystemClock);
    for finding in &findings {
        let (word, look) = match finding.verdict {
            Verdict::Good => ("good", Look::Good),
            Verdict::Doubtful => ("look", Look::Loud),
            Verdict::Bad => ("bad", Look::Bad),
        };
        if json {
            out.json(&json!({ "key": finding.key, "verdict": word, "text": finding.text }))?;
        } else {
            let word = out.styled(look, format_args!("{word:4}"));
            out.line(format_args!("{word}  {:12}  {}", finding.key, escape(&finding.text)))?;
        }
    }
    out.flush()?;
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad > 0 {
        return Err(Failure::usage(format!("{}: {bad} of {} things are wrong", path.display(), findings.len())));
    }
    Ok(())
}
