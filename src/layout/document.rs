//! JSON objects that are replaced: an envelope with format, version, write id and checksum around a body.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Damaged;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: &'a str,
    version: u32,
    /// Fresh for each write, in hexadecimal.
    write_id: &'a str,
    /// Of the body's text.
    crc32: u32,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// A kind of document: what its envelope says.
pub trait Document: Serialize + DeserializeOwned {
    const FORMAT: &'static str;
    const VERSION: u32;

    /// What its parts must be to each other, so that whoever uses it can rely on it.
    fn check(&self) -> Result<(), Damaged>;
}

pub fn encode<D: Document>(document: &D, write_id: u128) -> Bytes {
    let body = serde_json::value::to_raw_value(document).unwrap_or_else(|error| panic!("{}: {error}", D::FORMAT));
    let write_id = format!("{write_id:032x}");
    let crc32 = crc32fast::hash(body.get().as_bytes());
    let envelope = Envelope { format: D::FORMAT, version: D::VERSION, write_id: &write_id, crc32, body: &body };
    Bytes::from(serde_json::to_vec(&envelope).unwrap_or_else(|error| panic!("{}: {error}", D::FORMAT)))
}

pub fn decode<D: Document>(object: &[u8]) -> Result<D, Damaged> {
    let envelope = open(object)?;
    if envelope.format != D::FORMAT {
        return Err(Damaged::new(format!("it is a {}, not a {}", envelope.format, D::FORMAT)));
    }
    if envelope.version != D::VERSION {
        let (found, known) = (envelope.version, D::VERSION);
        return Err(Damaged::new(format!("its format version is {found}; this program knows {known}")));
    }
    if crc32fast::hash(envelope.body.get().as_bytes()) != envelope.crc32 {
        return Err(Damaged::new("its checksum does not match"));
    }
    let body = serde_json::from_str(envelope.body.get());
    let document: D = body.map_err(|error| Damaged::new(format!("its body makes no sense: {error}")))?;
    document.check()?;
    Ok(document)
}

/// Whether `object` is what [`encode`] made with `write_id`.
pub fn was_written_as(object: &[u8], write_id: u128) -> bool {
    open(object).is_ok_and(|envelope| envelope.write_id == format!("{write_id:032x}"))
}

fn open(object: &[u8]) -> Result<Envelope<'_>, Damaged> {
    serde_json::from_slice(object).map_err(|error| Damaged::new(format!("it is not a headwater document: {error}")))
}
