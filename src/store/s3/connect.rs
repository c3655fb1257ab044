//! From options to a client of the SDK that behaves as this program needs it.

use std::fmt;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// S3 closes connections that were idle for about 20 s; one that is used just then fails.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// Loading credentials goes to other services (STS, IMDS) and may take longer than a request.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long before they expire credentials are loaded again.
const IDENTITY_BUFFER: Duration = Duration::from_secs(120);

/// How to reach a bucket.
#[derive(Debug, Clone)]
pub struct S3Options {
    pub bucket: String,
    /// All keys lie below it; without slashes at its ends.
    pub prefix: String,
    /// Of a store that is not AWS: `https://…` or, for a trusted network, `http://…`.
    pub endpoint: Option<String>,
    /// If absent: the environment's or the profile's; with an endpoint, `us-east-1` in the end.
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// If absent: the default chain (environment, profile, web identity, ECS, IMDS).
    pub keys: Option<AccessKeys>,
    pub connect_timeout: Duration,
    /// For one request without its body's bytes; those have a second more for each MiB.
    pub attempt_timeout: Duration,
    /// For all attempts of one operation; a new attempt is not begun past it.
    pub operation_timeout: Duration,
    /// How often an operation is tried that certainly was not applied, or that can be repeated without harm.
    pub attempts: u32,
    pub checksums: Checksums,
}

/// Checksums of the SDK on top of those that every object of this program carries inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Only where an operation demands them. Right for all stores.
    WhenRequired,
    /// On every PUT and GET. Some stores that are not AWS refuse them.
    Always,
}

#[derive(Clone)]
pub struct AccessKeys {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKeys({}, …)", self.access_key)
    }
}

impl Default for S3Options {
    fn default() -> S3Options {
        S3Options {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: false,
            keys: None,
            connect_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(15),
            attempts: 4,
            checksums: Checksums::WhenRequired,
        }
    }
}

/// A client whose credentials have been loaded. The error says what to set.
pub(super) async fn connect(options: &S3Options) -> Result<Client, String> {
    check(options)?;
    let shared = shared_config(options).await;
    if shared.region().is_none() {
        return Err("no region: set one, or AWS_REGION".to_owned());
    }
    let provider = shared.credentials_provider().ok_or("no provider of credentials")?;
    load_credentials(&provider, IDENTITY_TIMEOUT).await?;
    let identities = IdentityCache::lazy().load_timeout(IDENTITY_TIMEOUT).buffer_time(IDENTITY_BUFFER).build();
    let config = aws_sdk_s3::config::Builder::from(&shared).identity_cache(identities);
    Ok(Client::from_conf(config.force_path_style(options.path_style).build()))
}

fn check(options: &S3Options) -> Result<(), String> {
    if options.bucket.is_empty() {
        return Err("no bucket is named".to_owned());
    }
    match options.endpoint.as_deref() {
        Some(endpoint) if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") => {
            Err(format!("endpoint {endpoint:?} must start with https:// or http://"))
        }
        _ => Ok(()),
    }
}

async fn shared_config(options: &S3Options) -> aws_config::SdkConfig {
    let (requests, responses) = match options.checksums {
        Checksums::WhenRequired => (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired),
        Checksums::Always => (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported),
    };
    // The SDK never retries: a conditional PUT that it sent twice could lose to itself. Attempts and operations are
    // bounded by this program's own loop, which, unlike the SDK's timeouts, covers a response's body.
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(requests)
        .response_checksum_validation(responses);
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    } else if options.endpoint.is_some() {
        // Only AWS has an address that could tell the machine's region; other stores rarely care.
        let fallback = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
        loader = loader.region(fallback.or_else(Region::from_static("us-east-1")));
    }
    if let Some(keys) = &options.keys {
        let AccessKeys { access_key, secret_key, session_token } = keys.clone();
        loader = loader.credentials_provider(Credentials::new(access_key, secret_key, session_token, None, "settings"));
    }
    loader.load().await
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .pool_idle_timeout(POOL_IDLE)
        .build_https()
}

/// Loads credentials once before the first request needs them, so that a lack of them is a clear message at the start.
async fn load_credentials(provider: &impl ProvideCredentials, within: Duration) -> Result<(), String> {
    let advice = "set access key and secret key, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role";
    match tokio::time::timeout(within, provider.provide_credentials()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("no credentials ({}): {advice}", super::answer::chain(&error))),
        Err(_) => Err(format!("no credentials within {} s: {advice}", within.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    #[derive(Debug)]
    struct Penniless {
        silent: bool,
    }

    impl ProvideCredentials for Penniless {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if self.silent {
                return future::ProvideCredentials::new(std::future::pending());
            }
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nothing is set")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_credentials_are_explained_before_the_first_request() {
        let error = load_credentials(&Penniless { silent: false }, IDENTITY_TIMEOUT).await;
        let error = error.expect_err("there are none");
        assert!(error.contains("nothing is set") && error.contains("AWS_ACCESS_KEY_ID"), "{error}");
        let error = load_credentials(&Penniless { silent: true }, IDENTITY_TIMEOUT).await;
        let error = error.expect_err("there are none");
        assert!(error.contains("within 30 s"), "{error}");
    }

    #[test]
    fn options_show_no_secrets() {
        let keys = AccessKeys {
            access_key: "AK".to_owned(),
            secret_key: "hush".to_owned(),
            session_token: Some("hush".to_owned()),
        };
        let shown = format!("{:?}", S3Options { keys: Some(keys), ..S3Options::default() });
        assert!(shown.contains("AK") && !shown.contains("hush"), "{shown}");
    }

    #[tokio::test]
    async fn an_endpoint_without_a_scheme_is_explained() {
        let endpoint = Some("localhost:9000".to_owned());
        let options = S3Options { bucket: "b".to_owned(), endpoint, ..S3Options::default() };
        let error = connect(&options).await.expect_err("no scheme");
        assert!(error.contains("must start with https://"), "{error}");
    }
}
