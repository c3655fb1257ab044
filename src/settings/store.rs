//! Settings of the store.

use std::fmt;
use std::time::Duration;

use clap::Args;
use serde::{Serialize, Serializer};

use super::{defaults, duration, show_duration};

/// Where the data is, and how to reach it.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Store")]
pub struct StoreSettings {
    /// Where the data is: `s3://BUCKET/PREFIX`, `local:DIRECTORY`, or `memory:` (lost at exit)
    #[arg(long, env = "HEADWATER_STORE", default_value = "local:./data", value_name = "URL")]
    pub store: String,
    /// Address of an S3-compatible service other than AWS, such as http://127.0.0.1:9000
    #[arg(long, env = "HEADWATER_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region of the bucket; else as the AWS SDK finds it
    #[arg(long, env = "HEADWATER_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Put the bucket's name in the path instead of the host name; on by default with --endpoint
    #[arg(long, env = "HEADWATER_PATH_STYLE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub path_style: Option<bool>,
    /// Credentials; else as the AWS SDK finds them (AWS_* variables, profile, container, instance)
    #[arg(long, env = "HEADWATER_ACCESS_KEY_ID", value_name = "ID")]
    pub access_key_id: Option<String>,
    /// Better given by the variable or the file: other users of the machine can see flags
    #[arg(long, env = "HEADWATER_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "SECRET")]
    pub secret_access_key: Option<Secret>,
    /// Only with temporary credentials
    #[arg(long, env = "HEADWATER_SESSION_TOKEN", hide_env_values = true, value_name = "SECRET")]
    pub session_token: Option<Secret>,
    /// Longest wait for a connection to the store
    #[arg(long, env = "HEADWATER_STORE_CONNECT_TIMEOUT", default_value = "2s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub store_connect_timeout: Duration,
    /// Longest wait for one attempt of a request to the store
    #[arg(long, env = "HEADWATER_STORE_ATTEMPT_TIMEOUT", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub store_attempt_timeout: Duration,
    /// Longest wait for a request to the store, repetitions included
    #[arg(long, env = "HEADWATER_STORE_OPERATION_TIMEOUT", default_value = "15s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub store_operation_timeout: Duration,
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        defaults()
    }
}

/// A value that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself: for the store's client only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
