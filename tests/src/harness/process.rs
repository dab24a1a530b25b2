//! The real binary as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{EDGES, Site};

/// The real binary as a process: killed, it had no chance to do anything in good order.
pub struct Process {
    /// Where it lives.
    pub site: Site,
    /// Where it listens.
    pub address: SocketAddr,
    child: Option<Child>,
    /// Whether what it says is kept for [`Process::ended`], or goes where the test's does.
    is_heard: bool,
}

impl Default for Process {
    fn default() -> Self {
        Self::start()
    }
}

impl Process {
    /// A fresh one, serving.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// As [`Process::start`], with more tables at the end of its configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(tables: &str) -> Self {
        Self::begin(tables, false)
    }

    /// As [`Process::start`], with what it says kept for [`Process::ended`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_heard() -> Self {
        Self::begin("", true)
    }

    fn begin(tables: &str, is_heard: bool) -> Self {
        let http = if tables.contains("[http]") { "" } else { "[http]\nlisten = \"\"\n" };
        let site = Site::new();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        drop(socket);
        let config = format!(
            "data = \".\"\nlisten = \"{address}\"\nedges = {EDGES}\n\
             [tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n[tokens]\nkeys = [\"token.pub\"]\n{http}{tables}"
        );
        std::fs::write(site.data().join("carillon.toml"), config).expect("a configuration");
        let mut process = Self { site, address, child: None, is_heard };
        process.start_again();
        process
    }

    /// Starts it again where it was; clients may connect at once, and retry until it serves.
    ///
    /// # Panics
    /// If it runs, or cannot be started.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "end it first");
        let child = Command::new(binary())
            .arg("serve")
            .arg("--config")
            .arg(self.site.data().join("carillon.toml"))
            .stdout(Stdio::null())
            .stderr(if self.is_heard { Stdio::piped() } else { Stdio::inherit() })
            .spawn();
        self.child = Some(child.expect("the broker's binary starts"));
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Waits until it has ended by itself: its exit code, `None` for a signal, and what it said if that is kept.
    ///
    /// # Panics
    /// If it does not run.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let output = self.child.take().expect("it runs").wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Resident memory, in kilobytes.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resident_kb(&self) -> u64 {
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// If it has ended by itself.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        assert_eq!(child.try_wait().expect("it is ours"), None, "it ended by itself");
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
    }

    /// Sends a signal, by its short name.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// SIGTERM; waits for the exit code.
    ///
    /// # Panics
    /// If it is not 0.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        self.wait();
    }

    /// Waits for the exit code, after a signal that ends it.
    ///
    /// # Panics
    /// If it is not 0.
    pub fn wait(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let status = child.wait().expect("it ends");
        assert!(status.success(), "SIGTERM ended it with {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which the test has told already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The `carillon` binary of this profile, built if it is not.
///
/// # Panics
/// If it cannot be built.
pub fn binary() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT
        .get_or_init(|| {
            let test = std::env::current_exe().expect("this test has a path");
            let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/test");
            let release = profile.ends_with("release");
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            build
                .args(["build", "--quiet", "-p", "carillon", "--bin", "carillon"])
                .args(release.then_some("--release"));
            let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
            assert!(built.success(), "the broker's binary is built");
            profile.join("carillon")
        })
        .clone()
}
