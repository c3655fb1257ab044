//! Wall-clock time and random identifiers: the only caller of `SystemTime::now` and of the system's randomness.
//!
//! Everything else is handed a [`Clock`] and an [`Ids`], so that a simulation can drive both from one seed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// A source of wall-clock time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the machine for the time")]
    pub fn system() -> Clock {
        Clock(Arc::new(|| millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())))
    }

    /// A clock that follows tokio's, so that tests with paused time move it.
    pub fn tokio(start: Millis) -> Clock {
        let origin = tokio::time::Instant::now();
        Clock(Arc::new(move || start + millis(origin.elapsed())))
    }

    /// Whatever `now` says.
    pub fn of(now: impl Fn() -> Millis + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> Millis {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A source of random identifiers.
#[derive(Clone)]
pub struct Ids(Arc<Mutex<StdRng>>);

impl Ids {
    /// Seeded by the operating system.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the machine for randomness")]
    pub fn random() -> Ids {
        Ids(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same identifiers for the same seed.
    pub fn seeded(seed: u64) -> Ids {
        Ids(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// 128 random bits.
    pub fn id(&self) -> u128 {
        self.with(|rng| rng.random())
    }

    /// A number in `low..high`, evenly distributed.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        self.with(|rng| rng.random_range(low..high.max(low + 1)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        let mut rng = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        draw(&mut rng)
    }
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids")
    }
}
