//! `carillon token`: a signed token.

use std::path::PathBuf;
use std::time::Duration;

use carillon::material::{Grant, MaterialError, sign_token};
use carillon_client::protocol::limits::HANDLE_BYTES_MAX;
use clap::ValueEnum;

use super::context::{Context, Credential};
use super::failure::{Exit, Failure};
use super::out::Out;
use super::time::{self, parse_duration};

/// Ten years: longer than any key should live.
const SECONDS_MAX: u64 = 87_600 * 3_600;

/// What a token lets its bearer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// A person.
    User,
    /// A backend: may also name users and conversations, and look after any conversation.
    Service,
    /// An administrator of the tenant: may do what a service may.
    Admin,
}

impl Role {
    /// As the claim has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}

/// Print a signed token, for an application of one's own
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon token --user alice                       with the key and tenant of the context
  carillon token --key token.key --tenant acme --user billing --role service --expires 720h

The key is an Ed25519 private key in PEM (`openssl genpkey -algorithm ed25519`). The broker believes tokens that a key named in its configuration signed. A token cannot be taken back: keep its time short.")]
pub(crate) struct Args {
    /// The private key that signs; default: the context's
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The organisation; default: the context's
    #[arg(long)]
    tenant: Option<String>,
    /// Whose token
    #[arg(long, value_name = "HANDLE")]
    user: String,
    /// What it lets its bearer do
    #[arg(long, value_enum, default_value = "user")]
    role: Role,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    expires: Duration,
    /// As --expires, in hours
    #[arg(long, value_name = "N", hide = true, conflicts_with = "expires")]
    hours: Option<u32>,
    /// The context; default: ./carillon-data/context.toml
    #[arg(long, env = "CARILLON_CONTEXT", value_name = "FILE")]
    context: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let Args { key, tenant, user, role, expires, hours, context } = args;
    let seconds = hours.map_or(expires.as_secs(), |hours| u64::from(hours) * 3_600);
    if seconds == 0 || seconds > SECONDS_MAX {
        return Err(Failure::usage("a token is good for a second to ten years: say --expires 12h"));
    }
    let (key, tenant) = match (key, tenant) {
        (Some(key), Some(tenant)) => (key, tenant),
        (key, tenant) => {
            let context = Context::find(context.as_deref())?;
            let key = match key {
                Some(key) => key,
                None => context_key(&context)?,
            };
            (key, tenant.unwrap_or(context.tenant))
        }
    };
    check_name("tenant", &tenant)?;
    check_name("user", &user)?;
    let token = sign(&key, &tenant, &user, role, seconds)?;
    let mut out = Out::new();
    out.line(token)?;
    Ok(out.flush()?)
}

fn context_key(context: &Context) -> Result<PathBuf, Failure> {
    match context.credential()? {
        Credential::Key(key) => Ok(key),
        Credential::Token(_) => {
            Err(Failure::usage("the context has a token but no key to sign others with: name one with --key"))
        }
    }
}

/// Says before anything is sent what the broker would refuse.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > HANDLE_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Failure::usage(format!(
            "the {what} {name:?} must have 1 to {HANDLE_BYTES_MAX} bytes, without control characters"
        )));
    }
    Ok(())
}

/// A token that ends in so many seconds.
pub(crate) fn sign(
    key: &std::path::Path,
    tenant: &str,
    handle: &str,
    role: Role,
    seconds: u64,
) -> Result<String, Failure> {
    let expires_at_s = time::now().0 / 1_000 + seconds;
    let grant = Grant { tenant, handle, role: role.name(), expires_at_s };
    sign_token(key, &grant).map_err(|error: MaterialError| Failure::caused(Exit::Usage, error.to_string(), error))
}
