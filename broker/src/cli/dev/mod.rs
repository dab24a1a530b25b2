//! `carillon dev`: a broker for one's own machine, and a tour of it.
//!
//! ```text
//! <data>/ca.pem server.pem server.key token.key token.pub    development material
//!        context.toml                                        how other commands find this broker
//!        journal/                                            all that the broker knows
//!        state/                                              devices of this machine: slots, and the tour's
//! ```

mod actor;
mod check;
mod ledger;
mod tour;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use carillon::dings::DingPolicies;
use carillon::dings::rates::Rates;
use carillon::material::{Material, SERVER_NAME};
use carillon::server::{Options, Server};
use carillon::{DEFAULT_PORT, tls};

use super::context::{Context, DATA_DEFAULT, FILE_NAME};
use super::failure::{Exit, Failure};
use super::out::{Look, Out};
use super::running::{self, Choose, Ends};

const CHOOSE: Choose =
    Choose { data: "--data DIR", listen: "--listen HOST:PORT (`--listen 127.0.0.1:0` takes a free port)" };

/// The tenant of a development broker.
const TENANT: &str = "dev";

/// Two edges at least, so that development sees what production does: sessions of one conversation on different threads.
const EDGES_MIN: usize = 2;

/// Run a broker on this machine, give a tour of what it does, then keep serving
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon dev
  carillon dev --once --data /tmp/carillon          the tour alone; the exit code says whether all of it happened

Everything is kept in the data directory: end the broker, even by `kill -9`, start it again on the same directory, and the tour shows that nothing is lost and nothing doubled. To begin anew, remove the directory.

Whoever can read the directory can be any user: it is for development alone. For the rest there is `carillon serve`.")]
pub(crate) struct Args {
    /// Where certificates, keys, journal and context are kept; made if missing
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// Where to listen (UDP); port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))]
    listen: SocketAddr,
    /// End after the tour; the exit code says whether all of it happened
    #[arg(long)]
    once: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { data, listen, once } = args;
    let server = start(&data, listen)?;
    let mut ends = Ends::watch(&server)?;
    let mut out = Out::new();
    let done = serve(&data, &server, once, &mut ends, &mut out).await;
    if let Err(failure @ Failure::Told { exit: Exit::Broker, .. }) = done {
        return Err(failure);
    }
    let stopped = ends.stop(server).await;
    done.and(stopped)?;
    out.line("Stopped. All that was acknowledged is in the journal.")?;
    Ok(out.flush()?)
}

/// Starts the broker.
fn start(data: &Path, listen: SocketAddr) -> Result<Server, Failure> {
    let unusable = |error: tls::TlsError| {
        let text =
            format!("{error}; to have it made anew, remove the file and what belongs to it from {}", data.display());
        Failure::caused(Exit::Failed, text, error)
    };
    let material = Material::ensure(data).map_err(|error| {
        Failure::caused(
            Exit::Failed,
            format!("cannot make the data directory: {error}; choose another with --data"),
            error,
        )
    })?;
    let tls = tls::server_config(&material.certificate, &material.key).map_err(unusable)?;
    let token_keys = vec![tls::token_key(&material.token_public_key).map_err(unusable)?];
    let options = Options {
        edges: thread::available_parallelism().map_or(1, usize::from).clamp(EDGES_MIN, carillon::config::EDGES_MAX),
        dings: Arc::new(DingPolicies::at(Rates::TRIAL)),
        ..Options::new(data.to_owned(), listen, tls, token_keys)
    };
    // Recovery blocks, and nothing else runs yet.
    running::start(options, &CHOOSE)
}

/// Tells, tours and waits.
async fn serve(data: &Path, server: &Server, once: bool, ends: &mut Ends, out: &mut Out) -> Result<(), Failure> {
    let context = write_context(data, server.address())?;
    introduce(data, server, out)?;
    let toured = tokio::select! {
        toured = tour::give(&context, server.recovery().created, out) => toured,
        ended = ends.wait() => return ended,
    };
    match toured {
        Err(failure) if once => return Err(failure.about("the tour stopped")),
        // The broker may be of use all the same.
        Err(failure @ Failure::Told { .. }) => {
            let report = failure.about("the tour stopped").report(true).unwrap_or_default();
            out.line(out.styled(Look::Bad, report))?;
        }
        Err(failure @ Failure::BrokenPipe) => return Err(failure),
        Ok(()) if once => return Ok(out.flush()?),
        Ok(()) => {}
    }
    invite(data, server, out)?;
    ends.wait().await
}

/// Writes how other commands find this broker. Only once it serves: a second broker must not take the place of the first.
fn write_context(data: &Path, address: SocketAddr) -> Result<Context, Failure> {
    let failed = |error: std::io::Error| {
        Failure::caused(Exit::Failed, format!("cannot write the context in {}: {error}", data.display()), error)
    };
    // One listens on all addresses, and connects to one.
    let host = match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let context = Context {
        address: SocketAddr::new(host, address.port()).to_string(),
        server_name: SERVER_NAME.to_owned(),
        ca: "ca.pem".into(),
        tenant: TENANT.to_owned(),
        token_key: Some("token.key".into()),
        token_file: None,
        token: None,
        state: "state".into(),
        user: None,
    };
    fs::create_dir_all(data.join(&context.state)).map_err(failed)?;
    let path = data.join(FILE_NAME);
    context.save(&path).map_err(failed)?;
    Context::load(&path)
}

/// Says what runs, and what it found.
fn introduce(data: &Path, server: &Server, out: &mut Out) -> Result<(), Failure> {
    let report = server.recovery();
    out.line(out.styled(Look::Strong, "Carillon, a development broker"))?;
    out.line(format_args!("  listens on  {} (QUIC over UDP), process {}", server.address(), std::process::id()))?;
    out.line(format_args!("  data        {}", data.display()))?;
    if report.created {
        out.line("  journal     new")?;
    } else {
        let (records, batches) = (report.head, report.replayed_batches);
        out.line(format_args!("  journal     recovered {records} records in {batches} batches"))?;
    }
    if let Some(cut) = &report.cut {
        let (bytes, segment) = (cut.bytes, &cut.segment);
        out.line(format_args!(
            "              cut {bytes} bytes off {segment}: an unfinished commit, never acknowledged"
        ))?;
    }
    Ok(out.flush()?)
}

/// Shows what to try.
fn invite(data: &Path, server: &Server, out: &mut Out) -> Result<(), Failure> {
    let program = program();
    out.line("")?;
    out.line(out.styled(Look::Strong, "The broker keeps serving. Try, in other terminals:"))?;
    if data != Path::new(DATA_DEFAULT) {
        let context = std::path::absolute(data.join(FILE_NAME))?;
        out.line(format_args!("  export CARILLON_CONTEXT={}", shell_quote(&context.display().to_string())))?;
    }
    for (arguments, what) in [
        ("sub --user bob", "what is addressed to bob, as it comes"),
        ("pub --user alice --to bob hello", "a message to bob"),
        ("ding send --user alice --to bob 'fire drill'", "a DING, which bob must confirm"),
        ("status --user alice tour 1", "who has read the tour's first message"),
        ("conversation list --user bob", "where bob is a member"),
    ] {
        out.line(format_args!("  {program} {arguments:<46} {}", out.styled(Look::Faint, what)))?;
    }
    let pid = std::process::id();
    out.line(format_args!(
        "Ctrl-C ends the broker on {}; so does `kill -9 {pid}`. Start it again on the same data, and see.",
        server.address()
    ))?;
    Ok(out.flush()?)
}

/// The command as it was called.
fn program() -> String {
    std::env::args().next().map_or_else(|| "carillon".to_owned(), |program| shell_quote(&program))
}

fn shell_quote(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_pasted() {
        assert_eq!(shell_quote("target/release/carillon"), "target/release/carillon");
        assert_eq!(shell_quote("/tmp/it's here"), r"'/tmp/it'\''s here'");
    }

    #[test]
    fn a_context_leads_to_where_the_broker_listens() {
        let data = tempfile::tempdir().unwrap();
        let address = |listen: &str| write_context(data.path(), listen.parse().unwrap()).unwrap().address;
        assert_eq!(address("0.0.0.0:4455"), "127.0.0.1:4455");
        assert_eq!(address("[::]:1"), "[::1]:1");
        assert_eq!(address("192.0.2.1:4455"), "192.0.2.1:4455");
    }
}
