//! File descriptors: a connection is one, and what the store needs must be left.

/// For connections to the store, files, and the runtime's own.
const SPARE: u64 = 1024;

/// Asks the system for as many descriptors as `connections` need. How many connections can be had.
pub fn for_connections(connections: u32) -> u32 {
    let wanted = u64::from(connections) + SPARE;
    let limit = match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors is not known");
            return connections;
        }
    };
    let affordable = affordable(connections, limit);
    if affordable < connections {
        tracing::warn!(limit, wanted, affordable, "fewer connections than configured: raise ulimit -Hn");
    }
    affordable
}

fn affordable(connections: u32, limit: u64) -> u32 {
    let spare = SPARE.min(limit / 2);
    connections.min(u32::try_from(limit - spare).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::affordable;

    #[test]
    fn connections_leave_descriptors_for_the_store() {
        assert_eq!(affordable(16_384, 1 << 20), 16_384);
        assert_eq!(affordable(16_384, 16_384 + 1024), 16_384);
        assert_eq!(affordable(16_384, 4096), 3072);
        assert_eq!(affordable(16_384, 1024), 512);
        assert_eq!(affordable(16_384, 0), 1);
    }
}
