//! The SDK's client: credentials only as given, no retries of its own (see `retry`), timeouts, checksums.

use super::resolver::Resolver;
use crate::error::{Error, ErrorKind};
use crate::store::{AllowedEndpoints, Checksum, CredentialSource, StorageOptions, UserMappingOptions};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_smithy_http_client::tls;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A line slower than this counts as broken.
pub(super) const SLOWEST_BYTES_PER_SECOND: u64 = 128 * 1024;

/// Keys are static and there is no chain of providers: nothing asks a metadata service for credentials, whatever the
/// environment says. Redirects are answers, not followed, and proxies of the environment are not used.
pub(super) fn build(
    options: &StorageOptions,
    keys: &UserMappingOptions,
    from_environment: bool,
    allowed: &AllowedEndpoints,
) -> Client {
    let credentials = Credentials::new(
        keys.access_key_id.clone(),
        keys.secret_access_key.clone(),
        keys.session_token.clone(),
        None,
        "archive_ext",
    );
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .operation_attempt_timeout(options.request_timeout)
        .build();
    let stalled = StalledStreamProtectionConfig::enabled().grace_period(options.request_timeout).build();
    let builder = Builder::new()
        .behavior_version_latest()
        .credentials_provider(credentials)
        .http_client(http_client(allowed))
        .region(Region::new(options.region_used(from_environment)))
        .force_path_style(options.path_style)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(stalled);
    let mut builder = checksums(builder, options.checksum);
    builder.set_endpoint_url(options.endpoint.clone());
    Client::from_conf(builder.build())
}

/// Replaces the time limit of one request.
pub(super) fn attempt_timeout(limit: Duration) -> Builder {
    Builder::new().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(limit).build())
}

fn checksums(builder: Builder, checksum: Checksum) -> Builder {
    if checksum == Checksum::None {
        builder
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
    } else {
        builder
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
    }
}

pub(super) fn checksum(checksum: Checksum) -> Option<ChecksumAlgorithm> {
    match checksum {
        Checksum::Crc32c => Some(ChecksumAlgorithm::Crc32C),
        Checksum::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
        Checksum::Sha256 => Some(ChecksumAlgorithm::Sha256),
        Checksum::None => None,
    }
}

/// The SDK's own client, but for the names that it connects to.
fn http_client(allowed: &AllowedEndpoints) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .build_with_resolver(Resolver::new(allowed.clone()))
}

pub(super) fn no_credentials(options: &StorageOptions) -> Error {
    let error = Error::new(ErrorKind::PermissionDenied, format!("no credentials for storage {}", options.location));
    match options.credentials {
        CredentialSource::UserMapping => error.hint(
            "Use CREATE USER MAPPING FOR the table's owner SERVER … OPTIONS (access_key_id '…', secret_access_key '…').",
        ),
        _ => error.hint("Check the option credentials of the server."),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
