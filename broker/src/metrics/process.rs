//! What the kernel says of this process, under the names that every Prometheus client uses.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) cpu: Duration,
    pub(super) threads: u64,
    pub(super) open_files: u64,
    pub(super) open_files_max: u64,
}

impl Process {
    /// As of now; zero is what the kernel did not say.
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        // Without a limit there is none to come near to.
        let open_files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self { open_files, open_files_max, ..parse(&stat).unwrap_or_default() }
    }
}

/// `/proc/self/stat`, proc_pid_stat(5): the second field is the name in brackets, which may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    // `rest` begins with field 3, which was skipped.
    let field = |number: usize| fields.get(number - 4).copied();
    let ticks = field(14)? + field(15)?;
    Some(Process {
        cpu: Duration::from_millis(ticks * 1_000 / clock_ticks_per_second().max(1)),
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_size() as u64,
        ..Process::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 20 && process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.threads >= 1 && process.open_files >= 3, "{process:?}");
        assert!(process.open_files_max >= process.open_files, "{process:?}");
    }

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 9 18 19 5000 3 21\n";
        let process = parse(stat).unwrap();
        let cpu = Duration::from_millis(200 * 1_000 / clock_ticks_per_second());
        assert_eq!((process.threads, process.virtual_bytes, process.cpu), (9, 5_000, cpu));
        assert_eq!(process.resident_bytes, 3 * page_size() as u64);
        assert_eq!(parse(""), None);
        assert_eq!(parse("7 (a) S 1 2"), None);
    }
}
