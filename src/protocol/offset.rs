//! Offset tokens: `{position:016}_{incarnation:016}`, decimal, so that they sort as strings (§8).

use std::fmt;
use std::str::FromStr;

use super::Malformed;

/// One more than the largest position and the largest incarnation: what sixteen digits can hold.
pub const LIMIT: u64 = 10_000_000_000_000_000;

/// Tells the streams that have lived under one path apart: new for each creation. Zero means "any".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    pub const ANY: Incarnation = Incarnation(0);

    /// `None` for zero and for what does not fit sixteen digits.
    pub fn new(value: u64) -> Option<Incarnation> {
        (1..LIMIT).contains(&value).then_some(Incarnation(value))
    }

    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether an offset of `self` may be used on a stream of `stream`.
    pub fn admits(self, stream: Incarnation) -> bool {
        self == Incarnation::ANY || self == stream
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}", self.0)
    }
}

/// A position (bytes since the stream's start) in a stream of a given incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offset {
    pub position: u64,
    pub incarnation: Incarnation,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}_{}", self.position, self.incarnation)
    }
}

impl FromStr for Offset {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Offset, Malformed> {
        let malformed =
            || Malformed::new("offset is not a token of this server: expected -1, now, or a Stream-Next-Offset");
        let (position, incarnation) = text.split_once('_').ok_or_else(malformed)?;
        let number = |digits: &str| -> Result<u64, Malformed> {
            if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(malformed());
            }
            digits.parse().map_err(|_| malformed())
        };
        Ok(Offset { position: number(position)?, incarnation: Incarnation(number(incarnation)?) })
    }
}

/// Where a read starts: the `offset` query parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// `-1`, or no `offset` at all: the stream's start.
    Start,
    /// `now`: the tail at the time of the request.
    Now,
    At(Offset),
}

impl FromStr for ReadFrom {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<ReadFrom, Malformed> {
        match text {
            "" => Err(Malformed::new("offset is empty")),
            "-1" => Ok(ReadFrom::Start),
            "now" => Ok(ReadFrom::Now),
            token => token.parse().map(ReadFrom::At),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_a_token_is_refused() {
        for text in [
            "",
            "0",
            "1_2",
            "-2",
            "NOW",
            "0000000000000001_000000000000000x",
            "0000000000000001-0000000000000002",
            "+000000000000001_0000000000000002",
            "0000000000000001_0000000000000002_",
            "００00000000000001_0000000000000002",
        ] {
            assert!(text.parse::<ReadFrom>().is_err(), "{text} was accepted");
        }
    }

    proptest! {
        #[test]
        fn tokens_round_trip_and_sort_like_positions(a in 0..LIMIT, b in 0..LIMIT, i in 1..LIMIT) {
            let offset = |position| Offset { position, incarnation: Incarnation(i) };
            prop_assert_eq!(offset(a).to_string().parse::<Offset>(), Ok(offset(a)));
            prop_assert_eq!(offset(a).to_string().cmp(&offset(b).to_string()), a.cmp(&b));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = text.parse::<ReadFrom>();
        }
    }
}
