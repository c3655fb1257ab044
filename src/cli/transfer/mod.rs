//! `headwater export` and `headwater import`: streams into a file and back.
//!
//! | module | what it does |
//! |---|---|
//! | [`line`] | the file's format |
//! | [`export`] | from a bucket to a file |
//! | [`reader`] | verifies a file as it is read |
//! | [`import`] | from a file to a bucket |
//! | [`progress`] | how far it has got |

mod export;
mod import;
mod line;
mod progress;
mod reader;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use self::export::Selection;
use self::import::Listed;
use self::progress::Progress;
use super::tools::{ToolSettings, count, exit, open_engine, size};
use crate::clock::Clock;
use crate::protocol::StreamName;
use crate::store::Store;

/// Exits with 0 if all is in the file, with 2 if not.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Where to write to; must not be there yet
    file: PathBuf,
    /// The stream to export
    #[arg(long, required_unless_present = "prefix", conflicts_with = "prefix", value_parser = stream_name)]
    stream: Option<StreamName>,
    /// All streams whose names start with this; `--prefix ''` is all there are
    #[arg(long)]
    prefix: Option<String>,
    #[command(flatten)]
    settings: ToolSettings,
}

/// Exits with 0 if all of the file is in the bucket, verified, with 2 if not.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What `export` wrote
    file: PathBuf,
    /// Only verify the file, and tell whether its streams could be created
    #[arg(long)]
    dry_run: bool,
    /// Pass over streams that are there exactly as in the file: after an import that was interrupted
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    settings: ToolSettings,
}

const LOST: &str = "not taken along: offsets (those of the old streams are refused), the state of producers, Stream-Seq, where \
    appends to streams that are not JSON ended within a page, and times of creation";

fn stream_name(text: &str) -> Result<StreamName, String> {
    StreamName::new(text).map_err(|error| error.what)
}

pub(super) fn run_export(export: &Export) -> ExitCode {
    let selection = match (&export.stream, &export.prefix) {
        (Some(name), _) => Selection::Stream(name.clone()),
        (None, prefix) => Selection::Prefix(prefix.clone().unwrap_or_default()),
    };
    exit(export.settings.run(async |store| {
        let shown = export.file.display();
        let file = File::create_new(&export.file).map_err(|error| format!("{shown}: {error}"))?;
        let (mut out, mut progress) = (BufWriter::new(file), Progress::new("exported", None));
        let engine = open_engine(store).await.map_err(|error| error.to_string())?;
        export::export(&engine, &selection, &mut out, &mut progress).await?;
        engine.drain().await;
        let written = out
            .into_inner()
            .map_err(|error| error.to_string())
            .and_then(|mut file| file.flush().and_then(|()| file.sync_all()).map_err(|error| error.to_string()));
        written.map_err(|why| format!("{shown}: {why}"))?;
        let (streams, bytes) = (progress.streams, progress.bytes);
        drop(progress);
        println!("exported {}, {} to {shown}", count(streams, "stream"), size(bytes));
        Ok(ExitCode::SUCCESS)
    }))
}

pub(super) fn run_import(import: &Import) -> ExitCode {
    exit(import.settings.run(async |store| {
        let shown = import.file.display();
        let open = || File::open(&import.file).map(|file| BufReader::with_capacity(1 << 20, file));
        let in_file = |why: String| format!("{shown}: {why}");
        let streams = import::verify(open().map_err(|error| in_file(error.to_string()))?).map_err(in_file)?;
        let over = import::over(&streams, Clock::system().now())?;
        over.iter().for_each(|name| println!("{name} is left out: its Stream-Expires-At is over"));
        let streams = streams.into_iter().filter(|listed| !over.contains(&listed.head.name)).collect::<Vec<_>>();
        let there = already_there(&store, &streams, import.resume).await?;
        let new = streams.into_iter().filter(|listed| !there.contains(&listed.head.name)).collect::<Vec<_>>();
        let total = new.iter().map(|listed| listed.end.bytes).sum();
        if import.dry_run {
            println!("would import {}, {}", count(new.len() as u64, "stream"), size(total));
            return Ok(ExitCode::SUCCESS);
        }
        let engine = open_engine(Arc::clone(&store)).await.map_err(|error| error.to_string())?;
        let mut progress = Progress::new("imported", Some(total));
        let file = open().map_err(|error| in_file(error.to_string()))?;
        let skipped = over.union(&there).cloned().collect();
        let imported = import::import(&engine, file, &skipped, &mut progress).await;
        engine.drain().await;
        imported?;
        drop(progress);
        read_back(store, &new, total).await?;
        tell(&new, there.len() as u64, total);
        Ok(ExitCode::SUCCESS)
    }))
}

/// Refuses to touch what is there. With `resume`, names those that are there as they should be.
async fn already_there(store: &Arc<dyn Store>, streams: &[Listed], resume: bool) -> Result<BTreeSet<String>, String> {
    let engine = open_engine(Arc::clone(store)).await.map_err(|error| error.to_string())?;
    let mut there = BTreeSet::new();
    let mut progress = Progress::new("compared", None);
    for listed in import::present(&engine, streams).await? {
        let name = listed.head.name.clone();
        if !resume {
            return Err(format!("{name}: it exists, or its name is not free; nothing was imported"));
        }
        if let Some(what) = import::difference(&engine, &listed, &mut progress).await? {
            return Err(format!("{name}: it exists, but {what}; nothing was imported"));
        }
        progress.streams += 1;
        there.insert(name);
    }
    Ok(there)
}

/// By an engine that has nothing of it in memory.
async fn read_back(store: Arc<dyn Store>, streams: &[Listed], total: u64) -> Result<(), String> {
    let engine = open_engine(store).await.map_err(|error| error.to_string())?;
    let mut progress = Progress::new("verified", Some(total));
    for listed in streams {
        if let Some(what) = import::difference(&engine, listed, &mut progress).await? {
            return Err(format!("{}: it was imported, but {what}", listed.head.name));
        }
        progress.streams += 1;
    }
    Ok(())
}

fn tell(new: &[Listed], there: u64, total: u64) {
    println!("imported {}, {}; read back and verified", count(new.len() as u64, "stream"), size(total));
    if there > 0 {
        println!("{} there already as in the file", count(there, "stream"));
    }
    for Listed { head, .. } in new {
        if let Some(source) = &head.forked_from {
            println!("{} was a fork of {source}, and is a stream of its own now", head.name);
        }
    }
    println!("{LOST}");
}

#[cfg(test)]
mod tests;
