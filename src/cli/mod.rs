//! The command line. `serve` is what a command line without a subcommand means.

mod descriptors;
mod serve;

use std::ffi::OsString;

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
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// Runs the program; an error is one line for standard error.
pub fn run() -> Result<(), String> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let settings = match parse(&args)? {
        Ok(settings) => settings,
        // Help, the version, or a command line that clap explains better than one line could.
        Err(shown) => shown.exit(),
    };
    serve::run(settings)
}

/// The settings that a command line, the environment and the file give.
fn parse(args: &[OsString]) -> Result<Result<Settings, clap::Error>, String> {
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
        None => cli.settings,
    };
    settings.validate()?;
    Ok(Ok(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let args: Vec<OsString> = std::iter::once(&"headwater").chain(args).map(OsString::from).collect();
        parse(&args)?.map_err(|error| error.to_string())
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
