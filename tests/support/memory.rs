//! What a process holds in memory, as the kernel counts it.

use std::fmt;

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

impl Memory {
    pub fn of(process: u32) -> Memory {
        let path = format!("/proc/{process}/status");
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_else(|| panic!("{status}"));
            let kib = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_else(|error| panic!("{error}"));
            kib << 10
        };
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB resident, {} MiB at the most", self.resident >> 20, self.peak >> 20)
    }
}
