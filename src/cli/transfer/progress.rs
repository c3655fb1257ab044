//! How far long work has got: on a terminal all the time, else now and then in the log.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::tools::{count, size};

const ON_TERMINAL: Duration = Duration::from_millis(500);
const IN_LOG: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Progress {
    /// `exported`, …
    done: &'static str,
    pub streams: u64,
    pub bytes: u64,
    /// If it is known.
    total: Option<u64>,
    is_terminal: bool,
    has_shown: bool,
    shown_at: Instant,
}

impl Progress {
    pub fn new(done: &'static str, total: Option<u64>) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        let shown_at = Instant::now();
        Progress { done, streams: 0, bytes: 0, total, is_terminal, has_shown: false, shown_at }
    }

    pub fn bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.shown_at.elapsed() >= if self.is_terminal { ON_TERMINAL } else { IN_LOG } {
            self.show();
            self.shown_at = Instant::now();
        }
    }

    fn show(&mut self) {
        let of = self.total.map_or_else(String::new, |total| format!(" of {}", size(total)));
        let line = format!("{} {}, {}{of}", self.done, count(self.streams, "stream"), size(self.bytes));
        if self.is_terminal {
            // What can't be shown is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            self.has_shown = true;
        } else {
            tracing::info!("{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.has_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
