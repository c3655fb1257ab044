//! What kind of run a seed makes: which troubles there are at all, and how the replicas are set up.

use std::time::Duration;

use headwater::clock::Ids;
use headwater::settings::EngineSettings;
use headwater::store::faulty::Faults;

/// Virtual time for which writers write and replicas suffer.
pub const STORM: Duration = Duration::from_secs(150);
/// Virtual time after it in which everything must have settled.
pub const CALM: Duration = Duration::from_secs(240);
/// How long entries stay in the log after the last one who may need them.
pub const GRACE: Duration = Duration::from_secs(60);

/// Catch-up responses end at the first message end at or after multiples of it.
pub const PAGE: u64 = 64;

/// Not every run has every trouble: what is rare while everything fails is common in a run where little else does.
#[derive(Debug, Clone)]
pub struct Plan {
    pub machines: usize,
    pub settings: EngineSettings,
    /// Of a thousand requests, how many go wrong.
    pub faults: u64,
    pub cuts: bool,
    pub kills: bool,
    pub sleeps: bool,
    /// How far wall clocks are off, in milliseconds, at most.
    pub skew: u64,
    /// All clients use one replica at a time: the others are idle, and fall behind.
    pub favourites: bool,
    /// Requests that an idempotent producer has in flight.
    pub depth: usize,
}

impl Plan {
    pub fn of(ids: &Ids) -> Plan {
        let chance = |percent: u64| ids.between(0, 100) < percent;
        let of = |choices: &[u64]| choices[ids.between(0, choices.len() as u64) as usize];
        Plan {
            machines: of(&[1, 2, 2, 3, 3]) as usize,
            faults: of(&[0, 0, 20, 100, 300]),
            cuts: chance(60),
            kills: chance(60),
            sleeps: chance(50),
            skew: of(&[0, 0, 2_000, 30_000]),
            favourites: chance(50),
            depth: of(&[1, 2, 4, 6]) as usize,
            settings: EngineSettings {
                shards: of(&[1, 2, 3]) as u32,
                pipeline: of(&[1, 3, 4]) as u32,
                direct_bytes: of(&[40, 40, 1_000]),
                commit_interval: Duration::from_millis(of(&[20, 20, 100])),
                ..small()
            },
        }
    }

    /// What happens to requests. Slow ones there always are.
    pub fn weather(&self) -> Faults {
        let millis = Duration::from_millis;
        let each = self.faults / 4;
        Faults {
            refused: each,
            lost: each,
            unheard: each,
            late: each,
            // Also long after what the entry follows has been deleted.
            landing: millis(10)..GRACE * 3 / 2,
            bursts: self.faults / 50,
            burst: millis(400),
            patience: millis(10)..millis(2_000),
            ..calm()
        }
    }
}

/// A bucket without faults.
pub fn calm() -> Faults {
    let millis = Duration::from_millis;
    Faults {
        latency: millis(1)..millis(30),
        slow: 15,
        slowness: millis(100)..millis(3_000),
        patience: millis(10)..millis(500),
        ..Faults::default()
    }
}

/// Everything is small, so that sealing, checkpoints and truncation happen all the time.
pub fn small() -> EngineSettings {
    EngineSettings {
        page_bytes: PAGE,
        inline_bytes: 48,
        merge_bytes: 300,
        seal_bytes: 600,
        seal_runs: 20,
        seal_idle: Duration::from_secs(4),
        seal_age: Duration::from_secs(12),
        checkpoint_entries: 6,
        grace: GRACE,
        append_timeout: Duration::from_secs(5),
        sync_interval: Duration::from_millis(500),
        collect_interval: Duration::from_secs(25),
        ..EngineSettings::default()
    }
}
