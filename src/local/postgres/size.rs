//! What the size of a compute means for its Postgres.

/// Most connections that the platform gives, however large the compute.
const MOST_CONNECTIONS: u32 = 4000;
/// Connections of a compute of unknown size.
pub(super) const USUAL_CONNECTIONS: u32 = 100;
/// Locks that all transactions together can hold: the table for them is as large in every compute, so
/// that many allowed connections cost little memory.
const LOCKS: u32 = 64 * USUAL_CONNECTIONS;

/// Size of a compute in CU, as the upper autoscaling limit says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size(pub(crate) f64);

impl Size {
    /// Returns how many connections it allows.
    ///
    /// Source: the table of the product documentation, "Compute sizes", read 2026-08: a connection for
    /// every 9,531,392 bytes of memory, of which a CU has 2 GB.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded just here"
    )]
    pub(super) fn connections(self) -> u32 {
        let most = f64::from(MOST_CONNECTIONS);
        (self.0 * 2e9 / 9_531_392.0).clamp(1.0, most) as u32
    }

    /// Returns the settings of a compute of this size. What is allowed grows with it; memory that is
    /// taken at once does not, because all computes share one machine.
    pub(super) fn settings(self) -> Vec<(&'static str, String)> {
        let grown = |each: f64, least: f64, most: f64| (self.0 * each).ceil().clamp(least, most);
        let connections = self.connections();
        vec![
            ("max_connections", connections.to_string()),
            ("max_locks_per_transaction", (LOCKS / connections).clamp(10, 64).to_string()),
            ("work_mem", format!("{}MB", grown(4.0, 4.0, 64.0))),
            ("maintenance_work_mem", format!("{}MB", grown(64.0, 64.0, 256.0))),
            ("effective_cache_size", format!("{}MB", grown(1536.0, 768.0, 172_032.0))),
            ("max_parallel_workers", grown(1.0, 1.0, 8.0).to_string()),
            ("max_parallel_workers_per_gather", grown(0.5, 1.0, 4.0).to_string()),
            ("max_parallel_maintenance_workers", grown(0.5, 1.0, 4.0).to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the table of the product documentation, "Compute sizes", read 2026-08.
    #[test]
    fn connections_are_those_of_the_documentation() {
        for (cu, connections) in
            [(0.5, 104), (1.0, 209), (4.0, 839), (8.0, 1678), (16.0, 3357), (32.0, 4000)]
        {
            assert_eq!(Size(cu).connections(), connections, "{cu} CU");
        }
    }

    #[test]
    fn settings_stay_within_what_a_laptop_bears() {
        let of = |cu: f64, name: &str| {
            let settings = Size(cu).settings();
            settings.into_iter().find(|(found, _)| *found == name).unwrap().1
        };
        assert_eq!((of(0.5, "work_mem"), of(112.0, "work_mem")), ("4MB".into(), "64MB".into()));
        assert_eq!(of(112.0, "max_parallel_workers"), "8");
        assert_eq!(of(0.5, "max_locks_per_transaction"), "61");
        assert_eq!(of(112.0, "max_locks_per_transaction"), "10");
    }
}
