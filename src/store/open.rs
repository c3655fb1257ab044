//! Which store: by its URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::Store;
use super::local::LocalStore;
use super::memory::MemoryStore;
use super::s3::{S3Options, S3Store};
use crate::clock::{Clock, Ids};

/// `local:DIRECTORY`, `s3://BUCKET/PREFIX` or `memory:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// Gone when the process ends.
    Memory,
    Local(PathBuf),
    S3 {
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreUrl, String> {
        if text == "memory:" {
            return Ok(StoreUrl::Memory);
        }
        if let Some(directory) = text.strip_prefix("local:") {
            if directory.is_empty() {
                return Err("local: needs a directory, as in local:./data".to_owned());
            }
            return Ok(StoreUrl::Local(PathBuf::from(directory)));
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err(format!("{text:?} is not a store; use local:DIRECTORY, s3://BUCKET/PREFIX or memory:"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("s3:// needs a bucket, as in s3://my-bucket/headwater".to_owned());
        }
        if !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            return Err(format!("{bucket:?} is not the name of a bucket; give the endpoint by its own setting"));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|segment| segment == "." || segment == "..") || prefix.contains(['?', '#']) {
            return Err(format!("{prefix:?} is not a usable prefix of keys"));
        }
        Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Memory => f.write_str("memory:"),
            StoreUrl::Local(directory) => write!(f, "local:{}", directory.display()),
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Opens the store that `url` names. `s3` is used by `s3://` only, and its bucket and prefix are those of `url`.
/// The error says what to do about it.
pub async fn open(url: &StoreUrl, s3: S3Options, clock: Clock, ids: Ids) -> Result<Arc<dyn Store>, String> {
    match url {
        StoreUrl::Memory => Ok(Arc::new(MemoryStore::new(clock))),
        StoreUrl::Local(directory) => Ok(Arc::new(LocalStore::open(directory, clock, ids).await?)),
        StoreUrl::S3 { bucket, prefix } => {
            let options = S3Options { bucket: bucket.clone(), prefix: prefix.clone(), ..s3 };
            Ok(Arc::new(S3Store::open(options, ids).await?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls_are_read_and_shown() {
        for (text, shown) in [
            ("memory:", "memory:"),
            ("local:./data", "local:./data"),
            ("local:/var/lib/headwater", "local:/var/lib/headwater"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my-bucket/a/b/", "s3://my-bucket/a/b"),
        ] {
            let url: StoreUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn wrong_store_urls_are_explained() {
        for (text, expected) in [
            ("", "use local:DIRECTORY"),
            ("./data", "use local:DIRECTORY"),
            ("http://localhost:9000/bucket", "use local:DIRECTORY"),
            ("memory:x", "use local:DIRECTORY"),
            ("local:", "needs a directory"),
            ("s3://", "needs a bucket"),
            ("s3:///prefix", "needs a bucket"),
            ("s3://localhost:9000/bucket", "by its own setting"),
            ("s3://bucket/a/../b", "prefix"),
        ] {
            let error = text.parse::<StoreUrl>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
