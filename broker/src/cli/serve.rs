//! `carillon serve`: the broker.

use std::path::PathBuf;
use std::sync::Arc;

use carillon::clock::SystemClock;
use carillon::config::Config;
use carillon::server::Options;
use carillon::tls;
use carillon_transport::TransportConfig;

use super::failure::{Exit, Failure};
use super::out::Out;
use super::running::{self, Choose, Ends};

const CHOOSE: Choose = Choose { data: "`data` in the configuration", listen: "`listen` in the configuration" };

/// Run the broker until SIGTERM or SIGINT, then let go of the sessions in good order
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A small configuration:
  data = \"/var/lib/carillon\"
  listen = \"0.0.0.0:4455\"
  [tls]
  certificate = \"server.pem\"
  key = \"server.key\"
  [tokens]
  keys = [\"token.pub\"]

Paths are relative to the file. The log goes to standard error, at the level of CARILLON_LOG (default: info).
Exit code 70 says that the journal or a socket failed: nothing that was acknowledged is lost.")]
pub(crate) struct Args {
    /// The configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = Config::load(&args.config).map_err(|error| Failure::caused(Exit::Usage, error.to_string(), error))?;
    let unusable = |error: tls::TlsError| Failure::caused(Exit::Usage, error.to_string(), error);
    let token_keys = config.tokens.keys.iter().map(|path| tls::token_key(path)).collect::<Result<_, _>>();
    let options = Options {
        data: config.data,
        listen: config.listen,
        edges: config.edges,
        tls: tls::server_config(&config.tls.certificate, &config.tls.key).map_err(unusable)?,
        token_keys: token_keys.map_err(unusable)?,
        transport: TransportConfig::server(),
        clock: Arc::new(SystemClock),
    };
    // Recovery blocks, and nothing else runs yet.
    let server = running::start(options, &CHOOSE)?;
    let mut ends = Ends::watch(&server)?;
    let mut out = Out::new();
    out.line(format_args!("carillon listens on {} (UDP), journal head {}", server.address(), server.recovery().head))?;
    out.flush()?;
    ends.wait().await?;
    ends.stop(server).await
}
