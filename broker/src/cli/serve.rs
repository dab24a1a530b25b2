//! `carillon serve`: the broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carillon::config::Config;
use carillon::renewal::Renewal;
use carillon::report::Causes;
use carillon::server::Options;
use carillon::tls::{self, Presented};
use tokio::signal::unix::SignalKind;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::config::{File, load};
use super::failure::{Exit, Failure};
use super::logs;
use super::out::Out;
use super::running::{self, Choose, Ends};
use super::supervisor::{self, Watchdog};

const CHOOSE: Choose = Choose { data: "`data` in the configuration", listen: "`listen` in the configuration" };

/// Run the broker until SIGTERM or SIGINT, then let go of the sessions in good order
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  carillon serve --config /etc/carillon/carillon.toml

A small configuration:
  data = \"/var/lib/carillon\"
  listen = \"0.0.0.0:4455\"
  [tls]
  certificate = \"server.pem\"
  key = \"server.key\"
  [tokens]
  keys = [\"token.pub\"]

Paths are relative to the file. `carillon config example` prints every key, `carillon config check` sees whether all is there.

SIGTERM, SIGINT  drain: accept nothing more, finish and deliver what was submitted, tell sessions to come back, exit 0
the second one   exit at once; what was acknowledged is in the journal
SIGHUP           read certificate and token keys anew

The log goes to standard error: CARILLON_LOG sets its level, CARILLON_LOG_FORMAT=json its form.
Exit code 70 says that the journal or a socket failed: nothing that was acknowledged is lost.")]
pub(crate) struct Args {
    #[command(flatten)]
    config: File,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = load(&args.config.path)?;
    logs::start(&config.log.level, config.log.format)?;
    let unusable = |error: tls::TlsError| Failure::caused(Exit::Usage, Causes(&error).to_string(), error);
    let presented = Presented::load(&config.tls.certificate, &config.tls.key).map_err(unusable)?;
    let token_keys = config.tokens.keys.iter().map(|path| tls::token_key(path)).collect::<Result<_, _>>();
    let tls = tls::server_config_of(presented.clone());
    let options = Options {
        edges: config.edges,
        transport: config.network.transport(),
        limits: config.limits(),
        index_memory_bytes_max: config.index.memory_bytes_max,
        drain_ms: config.drain_ms,
        http: config.http.listen,
        segment_bytes: config.journal.segment_bytes,
        free_bytes_min: config.journal.free_bytes_min,
        keeper: config.keeper(),
        dings: Arc::new(config.ding_policies()),
        outlets: config.outlets().map_err(|error| Failure::caused(Exit::Usage, Causes(&error).to_string(), error))?,
        callbacks: config.callbacks.listen,
        ..Options::new(config.data.clone(), config.listen, tls, token_keys.map_err(unusable)?)
    };
    // Before the broker can be found: a signal that comes early must not end it.
    let mut hangups = running::on(SignalKind::hangup())?;
    // Recovery blocks, and nothing else runs yet.
    supervisor::starting();
    let server = running::start(options, &CHOOSE)?;
    server.metrics().watch_certificate(presented.clone());
    let mut ends = Ends::watch(&server)?;
    let mut out = Out::new();
    out.line(format_args!("carillon listens on {} (UDP), journal head {}", server.address(), server.recovery().head))?;
    if let Some(address) = server.callbacks_address() {
        out.line(format_args!("gateways call back at http://{address}/v1/callbacks/<outlet>"))?;
    }
    out.flush()?;
    let renewal = Renewal::new(config.tls.clone(), config.tokens.clone(), presented, server.authenticator());
    let mut upkeep = Upkeep { path: args.config.path, checks: checks(&config), config, renewal };
    let mut watchdog = Watchdog::new(server.metrics());
    supervisor::ready();
    loop {
        tokio::select! {
            ended = ends.wait() => {
                ended?;
                break;
            }
            _ = hangups.recv() => upkeep.reload(),
            () = watchdog.feed() => {}
            () = tick(&mut upkeep.checks) => drop(upkeep.renewal.renew_if_changed()),
        }
    }
    supervisor::stopping();
    drop(watchdog);
    ends.stop(server).await
}

/// What is looked after while the broker serves.
struct Upkeep {
    path: PathBuf,
    config: Config,
    checks: Option<Interval>,
    renewal: Renewal,
}

impl Upkeep {
    /// Reads the names of certificate and token keys from the configuration again, and then the files.
    fn reload(&mut self) {
        supervisor::reloading();
        match Config::load(&self.path) {
            Ok(config) => {
                warn_of_what_needs_a_restart(&self.path, &self.config, &config);
                self.renewal.set_files(config.tls, config.tokens);
            }
            Err(error) => {
                tracing::error!(error = %Causes(&error), "the configuration is refused; the files it named before are read");
            }
        }
        self.renewal.renew();
        supervisor::ready();
    }
}

fn warn_of_what_needs_a_restart(path: &Path, old: &Config, new: &Config) {
    let fixed = |config: &Config| Config { tls: new.tls.clone(), tokens: new.tokens.clone(), ..config.clone() };
    if fixed(old) != fixed(new) {
        tracing::warn!(config = %path.display(), "of the changes only [tls] and [tokens] are used; the rest needs a restart");
    }
}

fn checks(config: &Config) -> Option<Interval> {
    let every_s = config.renewal.check_every_s;
    let mut checks = (every_s > 0).then(|| interval(Duration::from_secs(every_s)))?;
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(checks)
}

/// Cancel safe: a tick that was not taken comes the next time.
async fn tick(checks: &mut Option<Interval>) {
    match checks {
        Some(checks) => drop(checks.tick().await),
        None => std::future::pending().await,
    }
}
