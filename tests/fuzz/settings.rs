//! The settings file, and the sizes and durations of the command line.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Command, FromArgMatches};
use headwater::settings::{self, Settings, file};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::corpus::replay;
use crate::harness::{Target, fuzz};
use crate::mutate::{mutated, noise};

fn command() -> Command {
    Settings::augment_args(Command::new("headwater")).mut_args(|arg| arg.env(None::<&str>))
}

struct Files;

impl Target for Files {
    const NAME: &'static str = "settings";
    /// The command line's parser is built anew for each value.
    const FIXED: u64 = 4 << 20;
    const EACH: u64 = 200;
    /// What is wrong with it.
    type Value = Result<(), String>;

    fn parse(input: &Bytes) -> Option<Result<(), String>> {
        let text = std::str::from_utf8(input).ok()?;
        Some(file::apply(command(), text, "test.toml").and_then(|command| {
            let matches = command.try_get_matches_from(["headwater"]).map_err(|e| format!("accepted, but: {e}"))?;
            let settings = Settings::from_arg_matches(&matches).map_err(|e| format!("accepted, but: {e}"))?;
            let _ = settings.validate();
            Ok(())
        }))
    }

    fn check(_: &Bytes, outcome: &Result<(), String>) -> Result<(), String> {
        match outcome {
            Ok(()) => Ok(()),
            Err(why) if why.starts_with("test.toml: ") && !why.contains(['\n', '\r']) => Ok(()),
            Err(why) => Err(format!("the message is not one line that names the file: {why}")),
        }
    }
}

#[test]
fn settings_files() {
    assert!(replay::<Files>() > 0);
    let key =
        select(&["pipeline", "commit-interval", "sse_life", "store", "path-style", "page-bytes", "listen", "log"][..]);
    let value = prop_oneof![
        select(
            &["'1s'", "\"64KiB\"", "3", "true", "'memory:'", "'127.0.0.1:0'", "'info'", "[1]", "1.5", "1979-05-27"][..]
        )
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        "[ -~é]{0,8}".prop_map(|text| format!("'{text}'")),
        Just("'''\na\nb'''".to_owned()),
    ];
    let line = (key, value).prop_map(|(key, value)| format!("{key} = {value}\n"));
    let valid = vec(prop_oneof![5 => line, 1 => Just("# é\n[table]\n".to_owned())], 0..4)
        .prop_map(|lines| Bytes::from(lines.concat()));
    let all = prop_oneof![1 => noise(), 2 => valid.clone(), 4 => mutated(valid)];
    // Building the parser takes a millisecond.
    crate::harness::run(Files::NAME, 200, all, |input| crate::harness::read::<Files>(input).map(|_| ()));
}

struct Durations;

impl Target for Durations {
    const NAME: &'static str = "duration";
    const FIXED: u64 = 512;
    const EACH: u64 = 2;
    type Value = Duration;

    fn parse(input: &Bytes) -> Option<Duration> {
        settings::duration(std::str::from_utf8(input).ok()?).ok()
    }

    /// Durations are added to moments, and doubled.
    fn check(_: &Bytes, duration: &Duration) -> Result<(), String> {
        let moment = tokio::time::Instant::now();
        let is_usable = moment.checked_add(*duration * 3).is_some() && u64::try_from(duration.as_millis()).is_ok();
        if is_usable { Ok(()) } else { Err(format!("{duration:?} from now there is no time")) }
    }
}

struct Sizes;

impl Target for Sizes {
    const NAME: &'static str = "size";
    const FIXED: u64 = 512;
    const EACH: u64 = 2;
    type Value = u64;

    fn parse(input: &Bytes) -> Option<u64> {
        settings::bytes(std::str::from_utf8(input).ok()?).ok()
    }

    fn check(_: &Bytes, bytes: &u64) -> Result<(), String> {
        let again = settings::bytes(&bytes.to_string());
        if again == Ok(*bytes) { Ok(()) } else { Err(format!("{bytes} is read as {again:?}")) }
    }
}

#[test]
fn durations_and_sizes() {
    assert!(replay::<Durations>() > 0 && replay::<Sizes>() > 0);
    let number = prop_oneof!["[0-9]{1,6}", "[0-9]{1,25}", "[0-9]{1,4}\\.[0-9]{1,4}"];
    let duration = (number.clone(), "(ms|s|m|h|d|us|ns| sec| minutes)( [0-9]{1,19}(h|m|s))?");
    let duration = duration.prop_map(|(number, unit)| Bytes::from(format!("{number}{unit}")));
    let text = "\\PC{0,20}".prop_map(Bytes::from);
    fuzz::<Durations>(prop_oneof![1 => text.clone(), 3 => duration.clone(), 3 => mutated(duration)]);
    let size = (number, "( ?(B|[KMGTPE]i?B?|k|ki))?").prop_map(|(number, unit)| Bytes::from(format!("{number}{unit}")));
    fuzz::<Sizes>(prop_oneof![1 => text, 3 => size.clone(), 3 => mutated(size)]);
}
