//! What a broker warns of when it starts: the machine lets it serve, but not well, or not safely. Each warning says what to do.

use std::path::Path;

use carillon_protocol::ids::Timestamp;
use carillon_transport::{Endpoint, TransportConfig};
use rustix::process::{Resource, getrlimit};

/// Segments that readers have open, sockets, HTTP: a few hundred. With this many nobody comes near.
const OPEN_FILES_MIN: u64 = 1_024;

/// How far the journal may be ahead of the clock before somebody should look: what NTP corrects by stepping.
const CLOCK_BEHIND_MS_MAX: u64 = 1_000;

/// Types of file systems, statfs(2), on which a journal is not at home, with what happens there.
const POOR_FILE_SYSTEMS: &[(u32, &str, &str)] = &[
    (0x0102_1994, "tmpfs", "it is gone with the machine's memory"),
    (0x8584_58f6, "ramfs", "it is gone with the machine's memory"),
    (0x794c_7630, "overlayfs", "it is gone with the container"),
    (0x0000_6969, "NFS", "another machine decides what is durable, and every commit waits for the network"),
    (0xff53_4d42, "CIFS", "another machine decides what is durable, and every commit waits for the network"),
    (0xfe53_4d42, "SMB", "another machine decides what is durable, and every commit waits for the network"),
    (0x6573_5546, "FUSE", "a program decides what is durable"),
];

fn say(warnings: impl IntoIterator<Item = String>) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Looks at the directory of the journal.
pub(crate) fn warn_of_directory(data: &Path) {
    // What cannot be asked is no reason to warn: the journal itself says when it cannot be written.
    let kind = rustix::fs::statfs(data).ok().and_then(|found| u32::try_from(found.f_type).ok());
    say(kind.and_then(|kind| file_system(kind, data)));
}

/// Looks at limits, buffers and the clock; the journal's last record is of this time.
pub(crate) fn warn_of_machine(config: &TransportConfig, endpoints: &[Endpoint], last: Timestamp, now: Timestamp) {
    say(getrlimit(Resource::Nofile).current.and_then(open_files));
    say(clock(last, now));
    if let Some(granted) = endpoints.first().and_then(|endpoint| endpoint.socket_buffers().ok()) {
        say(buffer("receive", "rmem_max", config.socket_receive_buffer_bytes, granted.receive_bytes));
        say(buffer("send", "wmem_max", config.socket_send_buffer_bytes, granted.send_bytes));
    }
}

fn file_system(kind: u32, data: &Path) -> Option<String> {
    let (_, name, what) = POOR_FILE_SYSTEMS.iter().find(|(poor, ..)| *poor == kind)?;
    Some(format!("the data directory {} is on {name}: {what}; put it on a local disk", data.display()))
}

fn open_files(limit: u64) -> Option<String> {
    let text = || format!("{limit} files may be open: raise the limit to {OPEN_FILES_MIN} (LimitNOFILE=, ulimit -n)");
    (limit < OPEN_FILES_MIN).then(text)
}

fn clock(last: Timestamp, now: Timestamp) -> Option<String> {
    let behind_ms = last.0.saturating_sub(now.0);
    let text = || {
        format!(
            "the clock is {behind_ms} ms behind the journal's last record: new ones get that record's time until the clock \
             is there; see to the machine's time (chronyc tracking, timedatectl)"
        )
    };
    (behind_ms > CLOCK_BEHIND_MS_MAX).then(text)
}

/// The kernel counts its own overhead in what it grants: twice what was asked for, if that was allowed.
fn buffer(which: &str, sysctl: &str, asked: u32, granted_bytes: usize) -> Option<String> {
    let granted = granted_bytes / 2;
    let text = || {
        format!(
            "the UDP {which} buffer is {granted} bytes, not {asked}: bursts to many sessions lose packets; \
             sysctl -w net.core.{sysctl}={asked}"
        )
    };
    (granted < asked as usize).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(warning: Option<String>, says: &str) {
        let warning = warning.unwrap();
        assert!(warning.contains(says), "{warning:?} does not say {says:?}");
    }

    #[test]
    fn what_is_well_is_not_warned_of() {
        assert_eq!(file_system(0xef53, Path::new("/var/lib/carillon")), None);
        assert_eq!(open_files(65_536), None);
        assert_eq!(clock(Timestamp(1_000), Timestamp(0)), None);
        assert_eq!(clock(Timestamp(0), Timestamp(u64::MAX)), None);
        assert_eq!(buffer("send", "wmem_max", 4_194_304, 8_388_608), None);
    }

    #[test]
    fn each_warning_says_what_to_do() {
        check(file_system(0x0102_1994, Path::new("/tmp/d")), "/tmp/d is on tmpfs");
        check(file_system(0x794c_7630, Path::new("/d")), "put it on a local disk");
        check(open_files(256), "LimitNOFILE=");
        check(clock(Timestamp(5_000), Timestamp(1_000)), "4000 ms behind");
        check(buffer("receive", "rmem_max", 8_388_608, 425_984), "sysctl -w net.core.rmem_max=8388608");
    }
}
