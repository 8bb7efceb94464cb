//! What went wrong with a request, without the SDK's types and without anything secret.

use super::resolver::Refused;
use crate::error::{Error, ErrorKind};
use crate::store::{Location, UserMappingOptions};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// The facts of one failed request.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure {
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
    region: Option<String>,
    transport: Option<String>,
    timeout: bool,
    /// The host is none that may be asked.
    refused: bool,
}

impl Failure {
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut failure = Self { timeout: matches!(error, SdkError::TimeoutError(_)), ..Self::default() };
        if let Some(response) = error.raw_response() {
            let header = |name: &str| response.headers().get(name).map(str::to_owned);
            failure.status = Some(response.status().as_u16());
            failure.request_id = header("x-amz-request-id");
            failure.region = header("x-amz-bucket-region");
        }
        match error.as_service_error() {
            Some(service) => {
                failure.code = service.code().map(str::to_owned);
                failure.message = service.message().map(str::to_owned);
            }
            None => {
                failure.transport = Some(causes(error));
                failure.refused = is_refused(error);
            }
        }
        if let SdkError::DispatchFailure(dispatch) = error {
            failure.timeout |= dispatch.is_timeout();
        }
        failure
    }

    pub(super) fn has_status(&self, status: u16) -> bool {
        self.status == Some(status)
    }

    pub(super) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        const CODES: &[&str] = &[
            "SlowDown",
            "InternalError",
            "RequestTimeout",
            "ServiceUnavailable",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "RequestLimitExceeded",
            "OperationAborted",
            "BadDigest",
            "XAmzContentChecksumMismatch",
            "XAmzContentSHA256Mismatch",
        ];
        let by_code = self.code.as_deref().is_some_and(|code| CODES.contains(&code));
        let by_status = matches!(self.status, Some(408 | 429 | 500 | 502 | 503 | 504));
        !self.refused && (by_code || by_status || self.transport.is_some() && !self.has_answer())
    }

    /// A complete answer that says no: the transport is not to blame.
    fn has_answer(&self) -> bool {
        matches!(self.status, Some(300..=499))
    }

    fn kind(&self) -> ErrorKind {
        if self.refused {
            return ErrorKind::NotAllowed;
        }
        if self.lacks_locks() {
            return ErrorKind::Unsupported;
        }
        match (self.code.as_deref().unwrap_or(""), self.status.unwrap_or(0)) {
            ("InvalidObjectState", _) => ErrorKind::NeedsRestore,
            ("NoSuchUpload", _) => ErrorKind::Storage,
            ("NoSuchBucket" | "NoSuchKey", _) => ErrorKind::NotFound,
            ("InvalidRange", _) | (_, 416) => ErrorKind::Corrupt,
            ("PreconditionFailed", _) | (_, 412) => ErrorKind::AlreadyExists,
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
            | (_, 301 | 307) => ErrorKind::InvalidParameter,
            ("InvalidStorageClass", _) => ErrorKind::InvalidParameter,
            ("XMinioStorageFull" | "QuotaExceeded" | "QuotaExceededException", _) | (_, 507) => ErrorKind::DiskFull,
            (code, _) if REFUSALS.contains(&code) => ErrorKind::PermissionDenied,
            (_, 401 | 403) => ErrorKind::PermissionDenied,
            (_, 404) => ErrorKind::NotFound,
            _ => ErrorKind::Storage,
        }
    }

    /// A bucket that cannot lock objects: there is no code of its own for it.
    fn lacks_locks(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default().replace(' ', "").to_ascii_lowercase();
        self.has_code("InvalidRequest") && message.contains("objectlock")
    }

    fn hint(&self, kind: ErrorKind, location: &Location) -> Option<String> {
        Some(match kind {
            ErrorKind::NotAllowed => "Correct the server's option endpoint, or what its name resolves to.".into(),
            ErrorKind::Unsupported => {
                "Use a bucket that has Object Lock, or take object_lock off the server or the policy.".into()
            }
            ErrorKind::PermissionDenied => {
                "Check the user mapping's keys and the bucket's policy; check_storage tells which operations work."
                    .into()
            }
            ErrorKind::NotFound if self.has_code("NoSuchBucket") => {
                format!("Create the bucket or correct the option location ({location}); the extension creates none.")
            }
            ErrorKind::InvalidParameter if self.has_code("InvalidStorageClass") => {
                "Correct the option storage_class of the server.".into()
            }
            ErrorKind::InvalidParameter => match &self.region {
                Some(region) => format!("Set the server's option region to '{region}'."),
                None => "Set the server's options region and endpoint to those of the bucket.".into(),
            },
            ErrorKind::NeedsRestore => "Restore the object from its archive class first.".into(),
            ErrorKind::DiskFull => "Free space in the storage.".into(),
            ErrorKind::Storage if self.timeout => {
                "Check the server's option endpoint and the network, or raise connect_timeout or request_timeout."
                    .into()
            }
            ErrorKind::Storage if self.transport.is_some() => {
                "Check the server's option endpoint, and that the storage is running and reachable.".into()
            }
            _ => return None,
        })
    }

    fn detail(&self) -> String {
        let mut text = match (self.status, &self.transport) {
            (_, Some(transport)) => format!("The request got no usable answer: {transport}"),
            (Some(status), None) => format!("The storage answered {status}"),
            (None, None) => "The request failed".to_owned(),
        };
        if let Some(code) = &self.code {
            text = format!("{text} {code}");
        }
        if let Some(message) = &self.message {
            text = format!("{text}: {}", message.trim_end_matches('.'));
        }
        if let Some(id) = &self.request_id {
            text = format!("{text} (request id {id})");
        }
        text + "."
    }

    /// `could not <verb> object "…"`, with the answer in the DETAIL and the remedy in the HINT.
    pub(super) fn to_error(&self, verb: &str, key: &str, location: &Location, scrubber: &Scrubber) -> Error {
        let kind = self.kind();
        let error = Error::new(kind, format!("could not {verb} \"{}\"", location.url_of(key)))
            .detail(scrubber.scrub(&self.detail()));
        match self.hint(kind, location) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

const REFUSALS: &[&str] = &[
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "InvalidSecurity",
    "NotSignedUp",
    "KMS.AccessDeniedException",
    "KMS.DisabledException",
    "KMS.NotFoundException",
];

fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| cause.is::<Refused>())
}

pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

/// Removes credentials from text that a server or a library wrote.
pub(super) struct Scrubber(Vec<String>);

impl Scrubber {
    pub(super) fn new(keys: &UserMappingOptions) -> Self {
        let secrets = [&keys.secret_access_key, &keys.access_key_id].into_iter().chain(&keys.session_token);
        Self(secrets.filter(|s| s.len() >= 4).cloned().collect())
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubber(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: &str) -> Failure {
        let code = Some(code.to_owned()).filter(|c| !c.is_empty());
        Failure { status: Some(status), code, ..Failure::default() }
    }

    #[test]
    fn kinds() {
        for (status, code, kind) in [
            (403, "InvalidAccessKeyId", ErrorKind::PermissionDenied),
            (403, "SignatureDoesNotMatch", ErrorKind::PermissionDenied),
            (400, "ExpiredToken", ErrorKind::PermissionDenied),
            (403, "", ErrorKind::PermissionDenied),
            (403, "InvalidObjectState", ErrorKind::NeedsRestore),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (404, "NoSuchBucket", ErrorKind::NotFound),
            (404, "", ErrorKind::NotFound),
            (301, "PermanentRedirect", ErrorKind::InvalidParameter),
            (416, "InvalidRange", ErrorKind::Corrupt),
            (507, "", ErrorKind::DiskFull),
            (503, "SlowDown", ErrorKind::Storage),
            (400, "WhoKnows", ErrorKind::Storage),
        ] {
            assert_eq!(failure(status, code).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn only_what_may_pass_is_retried() {
        for transient in [failure(500, ""), failure(503, "SlowDown"), failure(200, "InternalError"), failure(429, "")] {
            assert!(transient.is_transient(), "{transient:?}");
        }
        for last in
            [failure(403, "AccessDenied"), failure(404, "NoSuchKey"), failure(400, "InvalidRequest"), failure(501, "")]
        {
            assert!(!last.is_transient(), "{last:?}");
        }
        assert!(Failure { transport: Some("reset".into()), ..Failure::default() }.is_transient());
    }

    #[test]
    fn errors_tell_the_answer_and_no_secret() {
        let keys = UserMappingOptions {
            access_key_id: "AKIAEXAMPLE".into(),
            secret_access_key: "tOpSeCrEt".into(),
            session_token: None,
        };
        let failure = Failure {
            message: Some("key AKIAEXAMPLE with tOpSeCrEt is wrong.".into()),
            request_id: Some("ID1".into()),
            ..failure(403, "InvalidAccessKeyId")
        };
        let location = Location::parse("s3://bucket/prefix").unwrap();
        let error = failure.to_error("read", "k", &location, &Scrubber::new(&keys));
        assert_eq!(error.message(), "could not read \"s3://bucket/prefix/k\"");
        assert_eq!(
            error.detail_text().unwrap(),
            "The storage answered 403 InvalidAccessKeyId: key *** with *** is wrong (request id ID1)."
        );
    }
}
