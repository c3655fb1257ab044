//! What the documents say about the code is true of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The row of each setting as the documents have it: flag and default.
fn documented() -> BTreeSet<(String, String)> {
    let text = read("docs/operations.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `--")?.split_once("` | "));
    let default = |rest: &str| rest.split('|').next().unwrap_or_default().trim().trim_matches('`').to_owned();
    rows.map(|(flag, rest)| (flag.to_owned(), default(rest))).collect()
}

/// The settings as the command line has them.
fn settings() -> BTreeSet<(String, String)> {
    use clap::Args;
    let command = headwater::settings::Settings::augment_args(clap::Command::new("headwater"));
    let flags = command.get_arguments().filter_map(|argument| {
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        Some((argument.get_long()?.to_owned(), default.unwrap_or_default()))
    });
    flags.collect()
}

#[test]
fn every_setting_is_documented_with_its_default() {
    assert_eq!(documented(), settings());
}

#[test]
fn every_dependency_has_its_reason() {
    let (manifest, text) = (read("Cargo.toml"), read("docs/architecture.md"));
    let section = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());
    let names = section.unwrap_or_default().lines().filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    let is_named = |name: &&str| text.contains(*name) || name.starts_with("aws-smithy-");
    let silent = names.filter(|name| !is_named(name)).collect::<Vec<_>>();
    assert!(silent.is_empty(), "no reason given for {silent:?}");
}
