//! `headwater list`: which streams a bucket has.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::Args;

use super::tools::{ToolSettings, exit, open_engine};
use crate::engine::{Engine, Streams};
use crate::http::listing::{Item, MAX_LIMIT};
use crate::protocol::{Stream, StreamName};

/// Exits with 0 if all are listed, with 2 if that could not be done. One line per stream: name, content type, bytes, open
/// or closed, separated by tabs.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only streams whose names start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// One JSON object per line, with all that `GET /v1/stream/__ds/streams` tells
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ToolSettings,
}

pub(super) fn run(list: &List) -> ExitCode {
    exit(list.settings.run(async |store| {
        let place = store.describe();
        let engine = open_engine(store).await.map_err(|error| format!("{place}: {error}"))?;
        print(list, &engine).await.map_err(|why| format!("{place}: {why}"))?;
        Ok(ExitCode::SUCCESS)
    }))
}

async fn print(list: &List, engine: &Engine) -> Result<(), String> {
    let mut out = BufWriter::new(std::io::stdout());
    let mut after = None;
    loop {
        let page = engine.list(&list.prefix, after, MAX_LIMIT).await;
        let Streams { found, next } = page.map_err(|error| error.to_string())?;
        for (name, stream) in &found {
            let line = if list.json { as_json(name, stream) } else { as_text(name, stream) };
            writeln!(out, "{line}").map_err(|error| format!("standard output: {error}"))?;
        }
        out.flush().map_err(|error| format!("standard output: {error}"))?;
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn as_json(name: &StreamName, stream: &Stream) -> String {
    serde_json::to_string(&Item::of(name, stream)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn as_text(name: &StreamName, stream: &Stream) -> String {
    let state = if stream.closed.is_some() { "closed" } else { "open" };
    format!("{name}\t{}\t{}\t{state}", stream.content_type.as_str(), stream.tail)
}
