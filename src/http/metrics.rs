//! Counts of requests, for `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{Method, StatusCode};

const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "DELETE", "other"];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Finished requests by method and class of status.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; CLASSES.len()]; METHODS.len()],
}

impl Counters {
    pub fn answered(&self, method: &Method, status: StatusCode) {
        let row = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).saturating_sub(2).min(CLASSES.len() - 1);
        self.requests[row][class].fetch_add(1, Ordering::Relaxed);
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# HELP headwater_http_requests_total Requests answered.\n# TYPE headwater_http_requests_total counter\n",
        );
        for (method, row) in METHODS.iter().zip(&self.requests) {
            for (class, count) in CLASSES.iter().zip(row) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("method=\"{method}\",status=\"{class}\"");
                    let _ = writeln!(text, "headwater_http_requests_total{{{labels}}} {count}");
                }
            }
        }
        text
    }
}

/// What there is at the moment, in the same format.
pub fn gauges(live_readers: usize) -> String {
    format!(
        "# HELP headwater_live_readers Long-polls and SSE responses under way.\n\
         # TYPE headwater_live_readers gauge\nheadwater_live_readers {live_readers}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_method_and_class() {
        let counters = Counters::default();
        counters.answered(&Method::GET, StatusCode::OK);
        counters.answered(&Method::GET, StatusCode::NO_CONTENT);
        counters.answered(&Method::PATCH, StatusCode::METHOD_NOT_ALLOWED);
        let text = counters.render();
        assert!(text.contains("headwater_http_requests_total{method=\"GET\",status=\"2xx\"} 2\n"), "{text}");
        assert!(text.contains("headwater_http_requests_total{method=\"other\",status=\"4xx\"} 1\n"), "{text}");
    }
}
