//! What the tools for a bucket have in common.

use std::process::ExitCode;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;

use super::serve::{s3_options, start_log};
use crate::clock::{Clock, Ids};
use crate::engine::{Engine, EngineError};
use crate::settings::{EngineSettings, LogSettings, StoreSettings};
use crate::store::{self, Store, StoreUrl};

/// Settings of a tool.
#[derive(Debug, Args)]
pub(super) struct ToolSettings {
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub log: LogSettings,
    /// A TOML file of settings, as `serve` takes it; those of other commands are passed over
    #[arg(long, env = "HEADWATER_CONFIG", value_name = "FILE", help_heading = "Log and configuration")]
    pub config: Option<std::path::PathBuf>,
}

impl ToolSettings {
    /// Runs `work` on the store.
    pub fn run<T>(&self, work: impl AsyncFnOnce(Arc<dyn Store>) -> Result<T, String>) -> Result<T, String> {
        start_log(&self.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map_err(|error| format!("threads: {error}"))?.block_on(async {
            let url: StoreUrl = self.store.store.parse().map_err(|why| format!("store: {why}"))?;
            let opened = store::open(&url, s3_options(&self.store)?, Clock::system(), Ids::random()).await;
            work(opened.map_err(|why| format!("store: {why}"))?).await
        })
    }
}

/// An engine on a bucket that is in use. It collects no garbage.
pub(super) async fn open_engine(store: Arc<dyn Store>) -> Result<Engine, EngineError> {
    let settings = EngineSettings { collect_interval: std::time::Duration::ZERO, ..EngineSettings::default() };
    Engine::open_existing(store, settings, Clock::system(), Ids::random()).await
}

/// The exit status of a tool: 2 if it could not do its work, with why on standard error.
pub(super) fn exit(done: Result<ExitCode, String>) -> ExitCode {
    done.unwrap_or_else(|why| {
        eprintln!("headwater: {why}");
        ExitCode::from(2)
    })
}

/// `1 chunk`, `2 chunks`.
pub(super) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}
