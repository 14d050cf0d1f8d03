//! What this machine has: processors and memory, for whoever places tasks.

use std::fs;

/// Processors that this process may use, and the machine's memory in bytes; 0 where the system does not tell.
pub(super) fn read() -> (u32, u64) {
    let cpus = std::thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_bytes(&text));
    (cpus, memory.unwrap_or(0))
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_linux_writes() {
        assert_eq!(memory_bytes("MemTotal:       24632412 kB\nMemFree: 1 kB\n"), Some(24_632_412 * 1_024));
        assert_eq!(memory_bytes("MemTotal: lots\n"), None);
        assert!(read().0 > 0);
    }
}
