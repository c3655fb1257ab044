//! The command line. `serve` is what a command line without a subcommand means.

mod check;
mod descriptors;
mod gc;
mod list;
mod serve;
mod status;
mod tools;
mod transfer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::settings::{Settings, file};

/// A Durable Streams server whose only state is an S3-compatible bucket.
///
/// Without a subcommand it serves. Each setting is a flag, an environment variable (HEADWATER_…) and a line of the
/// file that --config names; a flag wins over the variable, the variable over the file.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve streams over HTTP
    Serve(Box<Serve>),
    /// Verify a whole bucket: checksums, the logs, what is named and what is not. Only reads; servers may run
    Check(check::Check),
    /// Remove garbage from a bucket: chunks that nothing names, expired streams, old log objects. Servers may run
    Gc(gc::Gc),
    /// List the streams of a bucket. Servers may run
    List(list::List),
    /// Show the replicas of a cluster and its shards, as one of the replicas knows them
    Status(status::StatusOf),
    /// Write streams of a bucket to a file. Servers may run
    Export(transfer::Export),
    /// Create the streams of a file in a bucket. Servers may run
    Import(transfer::Import),
}

/// What a command line asks for.
#[derive(Debug)]
enum Task {
    Serve(Box<Settings>),
    Check(check::Check),
    Gc(gc::Gc),
    List(list::List),
    Status(status::StatusOf),
    Export(transfer::Export),
    Import(transfer::Import),
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// Runs the program. What goes wrong is one line on standard error.
pub fn run() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let done = parse(&args).and_then(|parsed| match parsed {
        Ok(Task::Serve(settings)) => serve::run(*settings).map(|()| ExitCode::SUCCESS),
        Ok(Task::Check(check)) => Ok(check::run(&check)),
        Ok(Task::Gc(gc)) => Ok(gc::run(&gc)),
        Ok(Task::List(list)) => Ok(list::run(&list)),
        Ok(Task::Status(status)) => Ok(status::run(&status)),
        Ok(Task::Export(export)) => Ok(transfer::run_export(&export)),
        Ok(Task::Import(import)) => Ok(transfer::run_import(&import)),
        // Help, the version, or a command line that clap explains better than one line could.
        Err(shown) => shown.exit(),
    });
    done.unwrap_or_else(|why| {
        eprintln!("headwater: {why}");
        ExitCode::FAILURE
    })
}

/// What a command line, the environment and the file ask for.
fn parse(args: &[OsString]) -> Result<Result<Task, clap::Error>, String> {
    let mut command = Cli::command();
    if let Some(path) = file::path(args, std::env::var_os("HEADWATER_CONFIG")) {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
        command = file::apply(command, &text, &name)?;
    }
    let matched = command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match matched {
        Ok(cli) => cli,
        Err(error) => return Ok(Err(error)),
    };
    let settings = match cli.command {
        Some(Subcommands::Serve(serve)) => serve.settings,
        Some(Subcommands::Check(check)) => return Ok(Ok(Task::Check(check))),
        Some(Subcommands::Gc(gc)) => return Ok(Ok(Task::Gc(gc))),
        Some(Subcommands::List(list)) => return Ok(Ok(Task::List(list))),
        Some(Subcommands::Status(status)) => return Ok(Ok(Task::Status(status))),
        Some(Subcommands::Export(export)) => return Ok(Ok(Task::Export(export))),
        Some(Subcommands::Import(import)) => return Ok(Ok(Task::Import(import))),
        None => cli.settings,
    };
    settings.validate()?;
    Ok(Ok(Task::Serve(Box::new(settings))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let args: Vec<OsString> = std::iter::once(&"headwater").chain(args).map(OsString::from).collect();
        match parse(&args)?.map_err(|error| error.to_string())? {
            Task::Serve(settings) => Ok(*settings),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_may_be_left_out() {
        for args in [vec!["--store", "memory:"], vec!["serve", "--store", "memory:"]] {
            assert_eq!(settings(&args).map(|s| s.store.store), Ok("memory:".to_owned()), "{args:?}");
        }
    }

    #[test]
    fn the_file_counts_with_and_without_serve() {
        let directory = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let path = directory.path().join("headwater.toml");
        std::fs::write(&path, "store = 'memory:'\npipeline = 2").unwrap_or_else(|e| panic!("{e}"));
        let path = path.to_string_lossy().into_owned();
        let check = settings(&["check", "--config", &path]).err().unwrap_or_default();
        assert!(check.contains("quick: false") && check.contains("store: \"memory:\""), "{check}");
        for args in [vec!["--config", &path], vec!["serve", "--config", &path, "--pipeline", "2"]] {
            let settings = settings(&args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
            assert_eq!((&*settings.store.store, settings.engine.pipeline), ("memory:", 2));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_one_line() {
        let error = settings(&["--grace", "15m"]).err().unwrap_or_default();
        assert!(error.starts_with("grace must be more than twice seal-age") && !error.contains('\n'), "{error}");
        assert!(settings(&["--max-append-bytes", "512MiB"]).is_err());
        assert!(settings(&["--share-max-age", "9000h"]).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = settings(&["--secret-access-key", "hunter2"]).unwrap_or_else(|e| panic!("{e}"));
        let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap_or_default());
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    }
}
