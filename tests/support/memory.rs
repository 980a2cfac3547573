//! The memory of a process, as Linux counts it.

#![allow(dead_code, reason = "each test binary uses its part")]

/// Bytes of a process' memory that are resident, and the most that ever were. `process` is its ID, or `self`.
pub fn resident(process: &str) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let of = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux says so");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    (of("VmRSS"), of("VmHWM"))
}

/// The most bytes of this process' memory that were ever resident.
pub fn peak() -> u64 {
    resident("self").1
}
