//! The optional TOML file: its values become the defaults of the flags they name, so that a flag or an environment
//! variable wins over the file.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Command;

/// The file that `--config FILE` or the environment names. Looked for before the command line is parsed, because the
/// file changes what parsing it gives.
pub fn path(args: &[OsString], env: Option<OsString>) -> Option<PathBuf> {
    for (at, arg) in args.iter().enumerate() {
        let text = arg.to_string_lossy();
        if text == "--config" {
            return args.get(at + 1).map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    env.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `command` with the file's values as defaults. `name` is the file's, for messages: one line that names the setting.
pub fn apply(command: Command, text: &str, name: &str) -> Result<Command, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("{name}: line {line}: {}", error.message().lines().next().unwrap_or("not TOML"))
    })?;
    let mut values = Vec::new();
    for (key, value) in &table {
        let flag = key.replace('_', "-");
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(flag.as_str()) && flag != "config");
        let shown = key.escape_debug();
        let id =
            known.map(|arg| arg.get_id().clone()).ok_or_else(|| format!("{name}: there is no setting '{shown}'"))?;
        let value = plain(value).ok_or_else(|| format!("{name}: {key}: expected a string, number or boolean"))?;
        check(&command, &flag, &value).map_err(|why| format!("{name}: {key}: {why}"))?;
        values.push((id, value));
    }
    Ok(with_defaults(command, &values))
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Lets the flag's own parser judge the value, so that the message can name the file instead of the flag.
fn check(command: &Command, flag: &str, value: &str) -> Result<(), String> {
    let bare = command.clone().mut_args(|arg| arg.env(None::<&str>));
    let arg = format!("--{flag}={value}");
    match bare.try_get_matches_from(["headwater".to_owned(), arg]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            // What the flag's parser said; without that, what there is to say of the flag.
            let why = error.source().map_or_else(|| line.to_owned(), ToString::to_string);
            Err(format!("'{}': {}", value.escape_debug(), why.lines().next().unwrap_or_default()))
        }
    }
}

/// The flags are known at the top (where `serve` is implied) and below `serve` itself.
fn with_defaults(command: Command, values: &[(clap::Id, String)]) -> Command {
    let set = |mut command: Command| {
        for (id, value) in values {
            if command.get_arguments().any(|arg| arg.get_id() == id) {
                command = command.mut_arg(id, |arg| arg.default_value(value.clone()));
            }
        }
        command
    };
    set(command).mut_subcommands(set)
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::settings::Settings;

    fn command() -> Command {
        Settings::augment_args(Command::new("headwater")).mut_args(|arg| arg.env(None::<&str>))
    }

    fn parse(file: &str, args: &[&str]) -> Result<Settings, String> {
        let command = apply(command(), file, "test.toml")?;
        let args = ["headwater"].iter().chain(args);
        let matches = command.try_get_matches_from(args).map_err(|error| error.to_string())?;
        Settings::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "commit-interval = '250ms'\npipeline = 2\nsse_life = \"2m\"\npath-style = true";
        let settings = parse(file, &["--pipeline", "8"]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(settings.engine.commit_interval.as_millis(), 250);
        assert_eq!(settings.engine.pipeline, 8);
        assert_eq!(settings.http.sse_life.as_secs(), 120);
        assert_eq!(settings.store.path_style, Some(true));
        assert_eq!(settings.store.store, "local:./data");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_one_line_that_names_it() {
        let cases = [
            ("commit_intervall = '1s'", "test.toml: there is no setting 'commit_intervall'"),
            ("config = 'other.toml'", "test.toml: there is no setting 'config'"),
            ("commit-interval = 'fast'", "test.toml: commit-interval: 'fast': not a duration such as 20ms, 25s or 1h"),
            ("pipeline = 0", "test.toml: pipeline: '0': 0 is not in 1..=64"),
            ("pipeline = \"2\\n3\"", "test.toml: pipeline: '2\\n3': invalid digit found in string"),
            ("\"a\\nb\" = 1", "test.toml: there is no setting 'a\\nb'"),
            ("pipeline = [1]", "test.toml: pipeline: expected a string, number or boolean"),
            ("a = 1\nb = = 2", "test.toml: line 2: "),
        ];
        for (file, message) in cases {
            let error = parse(file, &[]).err().unwrap_or_default();
            assert!(error.starts_with(message) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_file_is_found_before_parsing() {
        let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(path(&args(&["h", "--config", "a"]), None), Some(PathBuf::from("a")));
        assert_eq!(path(&args(&["h", "serve", "--config=b"]), Some("c".into())), Some(PathBuf::from("b")));
        assert_eq!(path(&args(&["h"]), Some("c".into())), Some(PathBuf::from("c")));
        assert_eq!(path(&args(&["h"]), None), None);
    }
}
