//! The real broker as a process, which is killed and started again on its directory.

use std::fs::{self, DirEntry, OpenOptions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::shape::Shape;
use crate::harness::{PATIENCE, Site};

/// Of the broker's log, shown when it does not do what it should.
const LOG_TAIL_BYTES: usize = 2_000;

/// Why there is no broker to kill.
#[derive(Debug, Error)]
pub enum VictimError {
    /// The binary, or a file beside the data, cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// It ended by itself, or never served.
    #[error("the broker {what}; its log ends:\n{log}")]
    Ended {
        /// What it did.
        what: String,
        /// The end of its log.
        log: String,
    },
}

/// The broker and where it lives.
pub struct Victim {
    /// Its directory and keys.
    pub site: Site,
    /// Where it listens, in every life.
    pub address: SocketAddr,
    /// What is not the broker's, on another disk perhaps: its log, and what the checker notes.
    beside: TempDir,
    binary: PathBuf,
    child: Option<Child>,
}

/// What its log tells of all its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// Snapshots taken.
    pub snapshots: u64,
    /// Times that old segments were removed.
    pub removals: u64,
    /// Torn tails cut.
    pub cuts: u64,
    /// Indexes set aside.
    pub indexes: u64,
    /// Times that the disk had no room, of which the broker knew.
    pub no_room: u64,
}

impl Victim {
    /// One that does not run yet, with a configuration of this shape, and its data below `root`.
    ///
    /// # Errors
    /// [`VictimError::Io`].
    pub fn new(binary: PathBuf, shape: &Shape, root: &Path) -> Result<Self, VictimError> {
        let site = Site::within(root);
        let failed = |what: &str| {
            let what = what.to_owned();
            |source| VictimError::Io { what, source }
        };
        let beside = tempfile::tempdir().map_err(failed("no temporary directory"))?;
        let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = address.map_err(failed("no free port"))?;
        let path = site.data().join("carillon.toml");
        fs::write(path, shape.configuration(address)).map_err(failed("the configuration cannot be written"))?;
        Ok(Self { site, address, beside, binary, child: None })
    }

    /// Starts it, without waiting for anything.
    ///
    /// # Errors
    /// [`VictimError::Io`].
    ///
    /// # Panics
    /// If it runs.
    pub fn spawn(&mut self) -> Result<(), VictimError> {
        assert!(self.child.is_none(), "one broker a directory");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.map_err(|source| VictimError::Io { what: "its log cannot be written".into(), source })?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(self.site.data().join("carillon.toml"));
        command.env("CARILLON_LOG", "info").env("CARILLON_LOG_FORMAT", "json");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let what = || format!("{} cannot be started", self.binary.display());
        self.child = Some(command.spawn().map_err(|source| VictimError::Io { what: what(), source })?);
        Ok(())
    }

    /// Waits until it says that it serves.
    ///
    /// # Errors
    /// It ended instead, or said nothing for a minute.
    ///
    /// # Panics
    /// If it was not spawned.
    pub async fn served(&mut self) -> Result<(), VictimError> {
        let child = self.child.as_mut().expect("it was spawned");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let serves = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("listens on") {
                    return true;
                }
            }
            false
        };
        let serves = tokio::time::timeout(PATIENCE, serves).await;
        // The other end stays open: a broker whose standard output is gone may notice.
        child.stdout = Some(lines.into_inner().into_inner());
        match serves {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.ended("ended before it served")),
            Err(_) => Err(self.ended("did not serve within a minute")),
        }
    }

    /// SIGKILL, whatever it is doing; waits until it is gone. Nothing, if it is gone already and that was said.
    ///
    /// # Errors
    /// It had ended by itself.
    pub async fn kill(&mut self) -> Result<(), VictimError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let failed = |source| VictimError::Io { what: "it cannot be killed".into(), source };
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Err(self.ended(&format!("ended by itself with {status}")));
        }
        child.kill().await.map_err(failed)
    }

    /// Asks the binary whether every checksum is good, and every snapshot what the records lead to, the broker being away.
    ///
    /// # Errors
    /// Something is not.
    pub async fn verify(&self) -> Result<(), VictimError> {
        let mut command = Command::new(&self.binary);
        command.args(["journal", "verify", "--replay", "--data"]).arg(self.site.data()).stdin(Stdio::null());
        let output = command.output().await;
        let output =
            output.map_err(|source| VictimError::Io { what: "`journal verify` does not run".into(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let told = [output.stdout, output.stderr].concat();
        Err(VictimError::Ended {
            what: format!("has a journal that `verify` refuses: {}", String::from_utf8_lossy(&told)),
            log: self.log_tail(),
        })
    }

    /// Bytes of all segments. The broker may be removing some meanwhile: a segment that goes counts or not.
    ///
    /// # Errors
    /// [`VictimError::Io`].
    pub fn journal_bytes(&self) -> Result<u64, VictimError> {
        let journal = self.site.data().join("journal");
        let entries = fs::read_dir(journal).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let bytes = entries.and_then(|entries| segment_bytes(entries.iter().map(DirEntry::path)));
        bytes.map_err(|source| VictimError::Io { what: "the journal cannot be listed".into(), source })
    }

    /// What its log tells.
    pub fn logged(&self) -> Logged {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let count = |text: &str| log.matches(text).count() as u64;
        Logged {
            snapshots: count("snapshot taken"),
            removals: count("old segments removed"),
            cuts: count("cut a torn tail"),
            indexes: count("index was set aside"),
            no_room: count("the disk of the journal has no room"),
        }
    }

    /// Where the checker notes what was acknowledged.
    pub fn notes_path(&self) -> PathBuf {
        self.beside.path().join("acknowledged")
    }

    /// Leaves the directories where they are, for whoever looks for the cause: the data, and log and notes.
    pub fn keep(self) -> [PathBuf; 2] {
        [self.site.keep(), self.beside.keep()]
    }

    fn ended(&self, what: &str) -> VictimError {
        VictimError::Ended { what: what.to_owned(), log: self.log_tail() }
    }

    fn log_path(&self) -> PathBuf {
        self.beside.path().join("broker.log")
    }

    fn log_tail(&self) -> String {
        tail(&self.log_path())
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}

/// Bytes of those of `files` that are segments and still there.
fn segment_bytes(files: impl Iterator<Item = PathBuf>) -> io::Result<u64> {
    let mut bytes = 0;
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "journal")) {
        bytes += match fs::metadata(file) {
            Ok(known) => known.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::Rng;

    #[tokio::test]
    async fn a_broker_that_ends_by_itself_is_told_once_with_the_end_of_its_log() {
        let shape = Shape::draw(&mut Rng::new(1), 0);
        // It knows no command `serve`, says so and ends.
        let mut victim = Victim::new("ls".into(), &shape, &std::env::temp_dir()).unwrap();
        victim.spawn().unwrap();
        let told = victim.served().await.unwrap_err().to_string();
        assert!(told.contains("ended before it served") && told.contains("serve"), "{told}");
        victim.child.as_mut().unwrap().wait().await.unwrap();
        let told = victim.kill().await.unwrap_err().to_string();
        assert!(told.contains("ended by itself"), "{told}");
        victim.kill().await.unwrap();
    }

    #[test]
    fn a_segment_that_was_removed_since_the_listing_is_no_failure() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("1.journal"), [0; 7]).unwrap();
        fs::write(path("head"), [0; 100]).unwrap();
        let files = ["1.journal", "2.journal", "head"].map(path);
        assert_eq!(segment_bytes(files.into_iter()).unwrap(), 7);
        // No other failure is taken for a removal.
        assert!(segment_bytes([path("head/1.journal")].into_iter()).is_err());
    }
}
