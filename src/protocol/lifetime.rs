//! When a stream ends by itself: `Stream-TTL` and `Stream-Expires-At` (§5.1).

use jiff::Timestamp;

use super::Malformed;
use crate::clock::Millis;

/// The longest TTL: a hundred years, in seconds.
const MAX_TTL_SECONDS: u64 = 3_155_760_000;

/// How long a stream lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    #[default]
    Forever,
    /// Seconds since the last read or write.
    Ttl(u64),
    /// A fixed moment.
    Until(Millis),
}

impl Lifetime {
    /// From the request's `Stream-TTL` and `Stream-Expires-At`.
    pub fn from_headers(ttl: Option<&str>, expires_at: Option<&str>) -> Result<Lifetime, Malformed> {
        match (ttl, expires_at) {
            (Some(_), Some(_)) => Err(Malformed::new("give Stream-TTL or Stream-Expires-At, not both")),
            (Some(text), None) => parse_ttl(text).map(Lifetime::Ttl),
            (None, Some(text)) => parse_moment(text).map(Lifetime::Until),
            (None, None) => Ok(Lifetime::Forever),
        }
    }

    /// The moment from which the stream is gone, if it was last used at `touched`. A TTL stream lives one
    /// [`slack`](Lifetime::renewal_slack) longer than its TTL, because uses within the slack are not recorded.
    pub fn ends_at(self, touched: Millis) -> Option<Millis> {
        match self {
            Lifetime::Forever => None,
            Lifetime::Ttl(seconds) => {
                Some(touched.saturating_add(seconds.saturating_mul(1000)).saturating_add(self.renewal_slack()))
            }
            Lifetime::Until(moment) => Some(moment),
        }
    }

    /// A use this soon after the last recorded one is not recorded: else every read would be a write. An eighth of
    /// the TTL, at most a minute.
    pub fn renewal_slack(self) -> Millis {
        match self {
            Lifetime::Ttl(seconds) => (seconds.saturating_mul(1000) / 8).min(60_000),
            Lifetime::Forever | Lifetime::Until(_) => 0,
        }
    }

    /// Whether a use at `now` must be recorded to keep the stream alive for a whole TTL from `now`.
    pub fn needs_renewal(self, touched: Millis, now: Millis) -> bool {
        matches!(self, Lifetime::Ttl(_)) && now.saturating_sub(touched) > self.renewal_slack()
    }
}

fn parse_ttl(text: &str) -> Result<u64, Malformed> {
    let canonical =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(Malformed::new("Stream-TTL is not a whole number of seconds in plain decimal notation"));
    }
    match text.parse() {
        Ok(seconds) if seconds <= MAX_TTL_SECONDS => Ok(seconds),
        _ => Err(Malformed::new(format!("Stream-TTL is larger than {MAX_TTL_SECONDS} seconds"))),
    }
}

fn parse_moment(text: &str) -> Result<Millis, Malformed> {
    let malformed = || Malformed::new("Stream-Expires-At is not an RFC 3339 timestamp such as 2030-01-01T00:00:00Z");
    let moment: Timestamp = text.trim().parse().map_err(|_| malformed())?;
    u64::try_from(moment.as_millisecond()).map_err(|_| malformed())
}

/// RFC 3339, in UTC.
pub fn format_moment(moment: Millis) -> String {
    i64::try_from(moment).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_ttls_are_accepted() {
        assert_eq!(Lifetime::from_headers(Some("3600"), None), Ok(Lifetime::Ttl(3600)));
        assert_eq!(Lifetime::from_headers(Some("0"), None), Ok(Lifetime::Ttl(0)));
        for text in ["", "+1", "-1", "01", "1.0", "1e3", " 1", "9999999999999999999999", "abc"] {
            assert!(Lifetime::from_headers(Some(text), None).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn moments_are_compared_as_instants() {
        let utc = Lifetime::from_headers(None, Some("2030-01-01T00:00:00Z"));
        assert_eq!(utc, Lifetime::from_headers(None, Some("2030-01-01T02:00:00.000+02:00")));
        assert_eq!(utc, Ok(Lifetime::Until(1_893_456_000_000)));
        for text in ["tomorrow", "2030-01-01", "2030-01-01T00:00:00", "1960-01-01T00:00:00Z"] {
            assert!(Lifetime::from_headers(None, Some(text)).is_err(), "{text:?} was accepted");
        }
        assert!(Lifetime::from_headers(Some("1"), Some("2030-01-01T00:00:00Z")).is_err());
        assert_eq!(format_moment(1_893_456_000_000), "2030-01-01T00:00:00Z");
    }

    #[test]
    fn a_stream_in_use_never_ends_early() {
        // A use inside the slack is not recorded; the stream must still live a whole TTL from it.
        for seconds in [0, 1, 2, 60, 3600, 100_000] {
            let lifetime = Lifetime::Ttl(seconds);
            for used in (0..seconds * 1000).step_by(usize::try_from(seconds * 100 + 1).unwrap_or(1)) {
                let recorded = if lifetime.needs_renewal(0, used) { used } else { 0 };
                assert!(lifetime.ends_at(recorded) >= Some(used + seconds * 1000));
            }
        }
    }
}
