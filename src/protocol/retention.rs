//! Retention, an extension: how much of a stream is kept (the protocol's 410 for offsets before the earliest position,
//! §5.6, leaves open how that comes about).

use super::{Malformed, plain_number};

/// What is older or further back than this may be removed. Nothing is, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Bytes that are kept at least.
    pub bytes: Option<u64>,
    /// Seconds for which bytes are kept at least.
    pub age_seconds: Option<u64>,
}

impl Retention {
    /// From `Stream-Retention-Bytes` and `Stream-Retention-Age`; `None` if neither is given. Given alone, one means that the
    /// other does not limit.
    pub fn from_headers(bytes: Option<&str>, age: Option<&str>) -> Result<Option<Retention>, Malformed> {
        if bytes.or(age).is_none() {
            return Ok(None);
        }
        let bytes = limit(bytes, "Stream-Retention-Bytes", "bytes")?;
        let age_seconds = limit(age, "Stream-Retention-Age", "seconds")?;
        Ok(Some(Retention { bytes, age_seconds }))
    }
}

fn limit(text: Option<&str>, header: &str, unit: &str) -> Result<Option<u64>, Malformed> {
    let Some(text) = text.filter(|text| *text != "unlimited") else { return Ok(None) };
    let number = plain_number(text).filter(|number| *number > 0);
    let malformed = || format!("{header} is neither a whole number of {unit} above zero nor 'unlimited'");
    number.map(Some).ok_or_else(|| Malformed::new(malformed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_plain_numbers_or_unlimited() {
        let of = |bytes, age| Retention::from_headers(bytes, age);
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(Some("10"), None), Ok(Some(Retention { bytes: Some(10), age_seconds: None })));
        assert_eq!(of(Some("unlimited"), Some("60")), Ok(Some(Retention { bytes: None, age_seconds: Some(60) })));
        for wrong in ["", "0", "-1", "+1", "1.5", "1MiB", "forever", "99999999999999999999999"] {
            assert!(of(Some(wrong), None).is_err() && of(None, Some(wrong)).is_err(), "{wrong}");
        }
    }
}
