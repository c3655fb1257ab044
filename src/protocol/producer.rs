//! Idempotent producers (§5.2.1): what `Producer-Id`, `Producer-Epoch` and `Producer-Seq` mean to a stream.

use super::{Malformed, Rejection, plain_number};

/// The largest epoch and sequence number: what JavaScript can hold exactly.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;
/// The longest producer id, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// What a request says of its producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    pub id: String,
    pub epoch: u64,
    pub seq: u64,
}

impl Producer {
    /// From the three headers, which come together or not at all.
    pub fn from_headers(
        id: Option<&str>,
        epoch: Option<&str>,
        seq: Option<&str>,
    ) -> Result<Option<Producer>, Malformed> {
        match (id, epoch, seq) {
            (None, None, None) => Ok(None),
            (Some(id), Some(epoch), Some(seq)) => {
                if id.is_empty() {
                    return Err(Malformed::new("Producer-Id is empty"));
                }
                if id.len() > MAX_ID_BYTES {
                    return Err(Malformed::new(format!("Producer-Id is longer than {MAX_ID_BYTES} bytes")));
                }
                let (epoch, seq) = (number("Producer-Epoch", epoch)?, number("Producer-Seq", seq)?);
                Ok(Some(Producer { id: id.to_owned(), epoch, seq }))
            }
            _ => Err(Malformed::new("Producer-Id, Producer-Epoch and Producer-Seq must be given together")),
        }
    }
}

fn number(header: &str, text: &str) -> Result<u64, Malformed> {
    let number = plain_number(text).filter(|value| *value <= MAX_NUMBER);
    number.ok_or_else(|| Malformed::new(format!("{header} is not an integer from 0 to 2^53-1")))
}

/// What a stream remembers of a producer: the highest accepted sequence number of its latest epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub epoch: u64,
    pub seq: u64,
}

/// What to do with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// It was accepted before.
    Duplicate(Accepted),
}

/// The protocol's validation logic. A producer that the stream does not know starts at sequence number 0, in any epoch.
pub fn judge(known: Option<Accepted>, request: &Producer) -> Result<Verdict, Rejection> {
    let gap = |expected| Rejection::ProducerGap { expected, received: request.seq };
    let Some(known) = known else {
        return if request.seq == 0 { Ok(Verdict::Accept) } else { Err(gap(0)) };
    };
    if request.epoch < known.epoch {
        return Err(Rejection::StaleEpoch { current: known.epoch });
    }
    if request.epoch > known.epoch {
        return if request.seq == 0 { Ok(Verdict::Accept) } else { Err(Rejection::EpochStartsAtZero) };
    }
    match request.seq {
        seq if seq <= known.seq => Ok(Verdict::Duplicate(known)),
        seq if seq == known.seq + 1 => Ok(Verdict::Accept),
        _ => Err(gap(known.seq + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(epoch: u64, seq: u64) -> Producer {
        Producer { id: "p".to_owned(), epoch, seq }
    }

    #[test]
    fn headers_come_together_and_are_plain_integers() {
        assert_eq!(Producer::from_headers(None, None, None), Ok(None));
        assert_eq!(Producer::from_headers(Some("p"), Some("1"), Some("0")), Ok(Some(request(1, 0))));
        assert!(Producer::from_headers(Some(""), Some("1"), Some("0")).is_err());
        assert!(Producer::from_headers(Some("p"), None, Some("0")).is_err());
        for bad in ["", "-1", "+1", "1.0", "1e2", " 1", "9007199254740992", "x"] {
            assert!(Producer::from_headers(Some("p"), Some(bad), Some("0")).is_err(), "{bad:?}");
            assert!(Producer::from_headers(Some("p"), Some("0"), Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_protocols_table_of_verdicts() {
        let known = Some(Accepted { epoch: 3, seq: 5 });
        let duplicate = Ok(Verdict::Duplicate(Accepted { epoch: 3, seq: 5 }));
        let cases = [
            (None, request(0, 0), Ok(Verdict::Accept)),
            (None, request(7, 0), Ok(Verdict::Accept)),
            (None, request(0, 1), Err(Rejection::ProducerGap { expected: 0, received: 1 })),
            (known, request(2, 9), Err(Rejection::StaleEpoch { current: 3 })),
            (known, request(4, 0), Ok(Verdict::Accept)),
            (known, request(4, 1), Err(Rejection::EpochStartsAtZero)),
            (known, request(3, 0), duplicate.clone()),
            (known, request(3, 5), duplicate),
            (known, request(3, 6), Ok(Verdict::Accept)),
            (known, request(3, 7), Err(Rejection::ProducerGap { expected: 6, received: 7 })),
        ];
        for (known, request, verdict) in cases {
            assert_eq!(judge(known, &request), verdict, "{known:?} {request:?}");
        }
    }
}
