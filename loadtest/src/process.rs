//! What a process has cost so far, from `/proc`.

use std::fs;

use crate::failure::Failure;

/// Ticks of `/proc/PID/stat` a second: `USER_HZ`, which Linux keeps at 100 for every architecture that Carillon runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU time in user mode, in seconds, to a hundredth.
    pub user_s: f64,
    /// CPU time in system mode, likewise.
    pub system_s: f64,
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// What the kernel needs for its page tables, in KiB, if it tells.
    pub page_tables_kib: Option<u64>,
}

impl Usage {
    /// Of this process id, or of the asking process itself with `None`.
    ///
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn of(pid: Option<u32>) -> Result<Self, Failure> {
        let name = pid.map_or("self".to_owned(), |pid| pid.to_string());
        let read = |file: &str| {
            let path = format!("/proc/{name}/{file}");
            fs::read_to_string(&path).map_err(|source| Failure::Read { path: path.into(), source })
        };
        let odd = || Failure::Usage(format!("/proc/{name} does not look as Linux documents it"));
        let (user_s, system_s) = parse_cpu_s(&read("stat")?).ok_or_else(odd)?;
        let status = read("status")?;
        let resident_kib = parse_kib(&status, "VmRSS:").ok_or_else(odd)?;
        Ok(Self { user_s, system_s, resident_kib, page_tables_kib: parse_kib(&status, "VmPTE:") })
    }

    /// CPU time in both modes, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Fields 14 and 15 of `proc_pid_stat(5)`. Field 2, the command, is in parentheses and may hold anything.
fn parse_cpu_s(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) / TICKS_A_SECOND, f64::from(system) / TICKS_A_SECOND))
}

/// A field of `proc_pid_status(5)`.
fn parse_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_any_name_is_read() {
        let stat = "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(parse_cpu_s(stat), Some((1.5, 0.5)));
        assert_eq!(parse_cpu_s("4711 (cut"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = Usage::of(None).unwrap();
        assert!(usage.resident_kib > 100 && usage.page_tables_kib.is_some_and(|kib| kib > 0), "{usage:?}");
        let status = "VmRSS:\t  900 kB\nVmPTE:\t   52 kB\n";
        let field = |name| parse_kib(status, name);
        assert_eq!((field("VmRSS:"), field("VmPTE:"), field("VmSwap:")), (Some(900), Some(52), None));
    }
}
