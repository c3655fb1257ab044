//! Reads the source and fails on an import that a layer must not have. Imports only point down.

use std::fs;
use std::path::{Path, PathBuf};

/// What a layer may use of this crate, and which crates it must not know.
struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
    must_not_know: &'static [&'static str],
}

const LAYERS: [Layer; 8] = [
    Layer {
        name: "cli",
        may_use: &["cli", "http", "cluster", "engine", "store", "layout", "protocol", "settings", "clock", "metrics"],
        must_not_know: &["axum", "hyper", "aws_sdk_s3"],
    },
    Layer {
        name: "http",
        may_use: &["http", "cluster", "engine", "protocol", "settings", "clock", "metrics"],
        must_not_know: &["aws_sdk_s3", "aws_config"],
    },
    Layer {
        name: "cluster",
        may_use: &["cluster", "engine", "store", "layout", "settings", "clock", "metrics"],
        must_not_know: &["axum", "aws_sdk_s3", "aws_config"],
    },
    Layer {
        name: "engine",
        may_use: &["engine", "store", "layout", "protocol", "settings", "clock", "metrics"],
        must_not_know: &["axum", "http", "hyper", "hyper_util", "aws_sdk_s3", "aws_config"],
    },
    Layer { name: "store", may_use: &["store", "clock", "metrics"], must_not_know: &["axum", "hyper"] },
    Layer {
        name: "layout",
        may_use: &["layout", "protocol", "clock"],
        must_not_know: &["axum", "http", "hyper", "tokio", "futures", "async_trait", "aws_sdk_s3", "moka", "tracing"],
    },
    Layer {
        name: "protocol",
        may_use: &["protocol", "clock"],
        must_not_know: &["axum", "http", "hyper", "tokio", "futures", "async_trait", "aws_sdk_s3", "moka", "tracing"],
    },
    Layer {
        name: "settings",
        may_use: &["settings"],
        must_not_know: &["axum", "hyper", "tokio", "aws_sdk_s3", "moka"],
    },
];

#[test]
fn every_layer_knows_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for file in sources(&root()) {
        let Some(layer) = LAYERS.iter().find(|layer| belongs(&file, layer.name)) else { continue };
        for (number, line) in code(&file) {
            wrong.extend(complaints(layer, &line).into_iter().map(|what| place(&file, number, &what)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_s3_store_knows_the_sdk() {
    let mut wrong = Vec::new();
    for file in sources(&root()).into_iter().filter(|file| !belongs(file, "store/s3")) {
        let lines = code(&file).into_iter().filter(|(_, line)| names(line, "aws_sdk_s3"));
        wrong.extend(lines.map(|(number, _)| place(&file, number, "aws_sdk_s3")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_rules_and_the_formats_do_not_wait() {
    let mut wrong = Vec::new();
    let pure = |file: &PathBuf| belongs(file, "protocol") || belongs(file, "layout");
    for file in sources(&root()).into_iter().filter(pure) {
        let lines = code(&file).into_iter().filter(|(_, line)| line.contains("async ") || line.contains(".await"));
        wrong.extend(lines.map(|(number, _)| place(&file, number, "async")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_forbidden_import_is_found_in_each_form() {
    let layer = &LAYERS[5];
    for line in ["use axum::Router;", "use crate::engine::Engine;", "let x = tokio::spawn(y);", "crate::http::serve()"]
    {
        assert_eq!(complaints(layer, line).len(), 1, "{line}");
    }
    for line in ["use crate::protocol::Offset;", "use crate::clock::Millis;", "let http = my_axum::x();"] {
        assert_eq!(complaints(layer, line), Vec::<String>::new(), "{line}");
    }
}

fn complaints(layer: &Layer, line: &str) -> Vec<String> {
    let used = line.match_indices("crate::").map(|(at, path)| {
        let rest = &line[at + path.len()..];
        rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
    });
    let own = used.filter(|used| used.starts_with(char::is_lowercase) && !layer.may_use.contains(used));
    let own = own.map(|used| format!("{} must not use crate::{used}", layer.name));
    let foreign = layer.must_not_know.iter().filter(|foreign| names(line, foreign));
    own.chain(foreign.map(|foreign| format!("{} must not know {foreign}", layer.name))).collect()
}

/// Whether the line starts a path with this crate: `use axum::…`, `axum::…`, not `crate::axum::…` or `my_axum::…`.
fn names(line: &str, krate: &str) -> bool {
    let path = format!("{krate}::");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
    })
}

/// The lines of a file with their numbers, without comments and without the tests at its end.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().enumerate().map(|(number, line)| (number + 1, code(line))).collect()
}

fn belongs(file: &Path, layer: &str) -> bool {
    let inside = file.strip_prefix(root()).unwrap_or(file);
    inside.starts_with(layer) || inside.with_extension("") == Path::new(layer)
}

fn place(file: &Path, number: usize, what: &str) -> String {
    format!("{}:{number}: {what}", file.display())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, those of tests left out.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files = Vec::new();
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    files
}
