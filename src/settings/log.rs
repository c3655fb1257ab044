//! Settings of the log.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::defaults;

/// What is written to standard error, and how.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Log and configuration")]
pub struct LogSettings {
    /// One line of text or one JSON object per event
    #[arg(long, env = "HEADWATER_LOG_FORMAT", default_value = "text", value_enum, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to log: a level, or levels per module such as `info,headwater::engine=debug`
    #[arg(long, env = "HEADWATER_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        defaults()
    }
}
