//! What the kernel holds for all processes of the machine together, from `/proc`: it does not say for whom.

use std::fs;

/// One look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelMemory {
    /// The slab without what it gives back when somebody needs it, which is caches of files for the most part, in KiB.
    slab_kib: u64,
    /// What packets hold in the buffers of UDP sockets, in KiB.
    udp_kib: u64,
}

impl KernelMemory {
    /// At this moment; `None` if the kernel does not tell.
    pub(crate) fn now() -> Option<Self> {
        let slab_kib = parse_slab_kib(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let pages = parse_udp_pages(&fs::read_to_string("/proc/net/sockstat").ok()?)?;
        Some(Self { slab_kib, udp_kib: pages * rustix::param::page_size() as u64 / 1_024 })
    }

    /// All of it, in KiB.
    pub(crate) fn kib(self) -> u64 {
        self.slab_kib + self.udp_kib
    }
}

/// `SUnreclaim` of `proc_meminfo(5)`.
fn parse_slab_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("SUnreclaim:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// `mem` of the line of UDP, which counts the packets of IPv6 too, in pages.
fn parse_udp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("UDP:"))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "mem");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        let meminfo = "MemTotal: 9 kB\nSlab:             763568 kB\nSUnreclaim:        77460 kB\nKernelStack: 1 kB\n";
        assert_eq!((parse_slab_kib(meminfo), parse_slab_kib("Slab: 7 kB")), (Some(77_460), None));
        let sockstat = "sockets: used 27\nTCP: inuse 1 mem 3\nUDP: inuse 10 mem 112\nUDPLITE: inuse 0\n";
        assert_eq!((parse_udp_pages(sockstat), parse_udp_pages("UDP: inuse 3")), (Some(112), None));
        assert!(KernelMemory::now().is_some_and(|memory| memory.kib() > 0));
    }
}
