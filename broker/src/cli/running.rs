//! A broker in this process: until somebody ends it, or it fails.

use std::io;
use std::sync::Arc;

use carillon::journal::StorageError;
use carillon::report::Causes;
use carillon::server::{Options, Server, StartError};
use carillon::store::ShowReplay;
use crossbeam::channel::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::failure::{Exit, Failure};
use super::out::note;
use super::progress::{Progress, Unit};

/// What ends a broker.
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    failed: oneshot::Receiver<carillon::server::Failure>,
}

impl Ends {
    /// Listens for signals and for the broker's failure.
    pub(crate) fn watch(server: &Server) -> Result<Self, Failure> {
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            failed: forward(server.failures()),
        })
    }

    /// Waits for a signal, or the broker's failure, which is final.
    ///
    /// # Cancel safety
    /// Cancel safe until a failure came.
    pub(crate) async fn wait(&mut self) -> Result<(), Failure> {
        tokio::select! {
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
            Ok(failure) = &mut self.failed => Err(broker_failed(failure)),
        }
    }

    /// Stops the broker in good order; a second signal gives up waiting.
    pub(crate) async fn stop(mut self, server: Server) -> Result<(), Failure> {
        let stopped = tokio::task::spawn_blocking(|| server.stop());
        tokio::select! {
            stopped = stopped => stopped.expect("stopping does not panic").map_err(broker_failed),
            signal = self.wait() => {
                note("not waiting any longer; what was acknowledged is in the journal");
                signal
            }
        }
    }
}

/// Listens for a signal, which then ends the process no longer by itself.
pub(super) fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::caused(Exit::Failed, format!("cannot listen for signals: {error}"), error))
}

/// A thread waits for the failure, because the broker knows no async. It ends with the broker, which drops the other end.
fn forward(failures: Receiver<carillon::server::Failure>) -> oneshot::Receiver<carillon::server::Failure> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        if let Ok(failure) = failures.recv() {
            tell.send(failure).ok();
        }
    });
    told
}

fn broker_failed(failure: carillon::server::Failure) -> Failure {
    let why = Causes(&failure).to_string();
    let text =
        format!("the broker failed: {why}. What was acknowledged is safe; see to the cause, then start it again");
    Failure::caused(Exit::Broker, text, failure)
}

/// Starts a broker. Blocks for as long as recovery takes, and shows how far it is to who looks on.
pub(super) fn start(options: Options, choose: &Choose) -> Result<Server, Failure> {
    // A file larger than `ulimit -f` lets is an error of that write then, told of as every other, and not the process's end.
    drop(on(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let progress = Progress::new("reading the journal", Some(0), Unit::Bytes);
    let progress = progress.is_shown().then(|| -> ShowReplay { Arc::new(move |done, all| progress.at_of(done, all)) });
    Server::start(Options { progress, ..options }).map_err(|error| not_started(error, choose))
}

/// Why a broker did not start, and what to do. `choose` says how another data directory or address is given.
fn not_started(error: StartError, choose: &Choose) -> Failure {
    let text = match &error {
        StartError::Storage(StorageError::Locked(path)) => format!(
            "the journal {} is in use by another broker: end that one first, or give another directory with {}",
            path.display(),
            choose.data
        ),
        StartError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => format!(
            "UDP {address} is taken, probably by another broker: end it, or listen elsewhere with {}",
            choose.listen
        ),
        StartError::Http { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            format!(
                "TCP {address} is taken: give another one with `http.listen` in the configuration, or \"\" for none"
            )
        }
        StartError::Callbacks { address, source } if source.kind() == io::ErrorKind::AddrInUse => format!(
            "TCP {address}, for callbacks of gateways, is taken: give another one with `callbacks.listen` in the configuration"
        ),
        StartError::Storage(_)
        | StartError::Journal(_)
        | StartError::Listen { .. }
        | StartError::Http { .. }
        | StartError::Callbacks { .. }
        | StartError::Thread(_) => Causes(&error).to_string(),
    };
    Failure::caused(Exit::Failed, text, error)
}

/// How a command is told to use something else.
pub(crate) struct Choose {
    /// Another data directory.
    pub(crate) data: &'static str,
    /// Another address.
    pub(crate) listen: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_what_to_do() {
        let address = ([127, 0, 0, 1], 4455).into();
        let error = StartError::Listen { address, source: io::ErrorKind::AddrInUse.into() };
        let choose = Choose { data: "--data", listen: "--listen" };
        let report = not_started(error, &choose).report(false).unwrap();
        assert!(report.contains("UDP 127.0.0.1:4455 is taken") && report.contains("--listen"), "{report}");
    }
}
