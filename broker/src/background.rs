//! Work that nobody waits for gives way to serving.

use std::io;

/// How much nicer than the threads that serve: 110 of their 1,024 shares of a core that both want (`sched(7)`), all of one that is idle.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// Makes the calling thread give way to the others of the process. On Linux alone a thread has a nice value of its own
/// (`setpriority(2)`, "C library/kernel differences"); elsewhere nothing changes.
///
/// # Errors
/// The kernel refuses, which it does not unless something forbids the call.
pub(crate) fn give_way() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let thread = Some(rustix::thread::gettid());
        let nice = rustix::process::getpriority_process(thread)?;
        rustix::process::setpriority_process(thread, nice + NICER)?;
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;
    use rustix::thread::gettid;

    #[test]
    fn a_thread_gives_way_and_those_beside_it_do_not() {
        let before = getpriority_process(Some(gettid())).unwrap();
        let its = std::thread::spawn(|| {
            give_way().unwrap();
            getpriority_process(Some(gettid())).unwrap()
        });
        assert_eq!(its.join().unwrap(), (before + NICER).min(19));
        assert_eq!(getpriority_process(Some(gettid())).unwrap(), before);
    }

    /// `@resources` has `setpriority(2)`, and what is refused without more words kills the process.
    #[test]
    fn the_service_file_lets_it() {
        let unit = include_str!("../packaging/carillon.service");
        let at = |line: &str| unit.lines().position(|found| found == line).unwrap_or_else(|| panic!("{line}"));
        assert!(at("SystemCallFilter=~@privileged @resources") < at("SystemCallFilter=setpriority"));
        at("SystemCallErrorNumber=EPERM");
    }
}
