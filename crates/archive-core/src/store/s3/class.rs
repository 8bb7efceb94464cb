//! Storage classes: objects copied onto themselves into another class, and readable copies of those in frozen classes.

use super::failure::Failure;
use super::{S3Store, is_class, object_meta};
use crate::error::{Error, ErrorKind, Result};
use crate::store::common::Moved;
use crate::store::{Restore, Retrieval};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, GlacierJobParameters, MetadataDirective, ObjectLockLegalHoldStatus,
    ObjectLockMode, RestoreRequest, StorageClass, Tier,
};
use std::fmt::Write;

/// What a copy must be told so that it is as its source.
struct Source {
    copy_source: String,
    full_key: String,
    bytes: u64,
    etag: Option<String>,
    lock: Option<(ObjectLockMode, DateTime)>,
    hold: Option<ObjectLockLegalHoldStatus>,
}

impl S3Store {
    pub(super) async fn move_to_class(&self, key: &str, class: &str) -> Result<Moved> {
        let full_key = self.full_key(key)?;
        let Some(head) = self.head_output(key, &full_key).await? else {
            let url = self.inner.location.url_of(key);
            return Err(Error::new(ErrorKind::NotFound, format!("object \"{url}\" does not exist")));
        };
        if is_class(head.storage_class.as_ref(), class) {
            let sha256 = self.stored_sha256(key, &full_key).await?;
            return Ok(Moved { meta: object_meta(key, head), sha256 });
        }
        let source = self.source(full_key, &head);
        let sha256 = self.copy(key, &source, class).await?;
        let after = self.head_output(key, &source.full_key).await?;
        let moved = after.filter(|head| is_class(head.storage_class.as_ref(), class));
        let Some(moved) = moved.map(|head| object_meta(key, head)).filter(|meta| meta.bytes == source.bytes) else {
            let url = self.inner.location.url_of(key);
            let message = format!("object \"{url}\" is not in storage class {class} after it was copied there");
            return Err(Error::new(ErrorKind::Storage, message));
        };
        Ok(Moved { meta: moved, sha256 })
    }

    /// The SHA-256 that the store has of the whole object, if it has one.
    async fn stored_sha256(&self, key: &str, full_key: &str) -> Result<Option<String>> {
        let attempt = |_| async {
            let request =
                self.client().head_object().bucket(self.bucket()).key(full_key).checksum_mode(ChecksumMode::Enabled);
            request.send().await.map_err(|e| self.attempt("look at", key, &Failure::of(&e)))
        };
        let head = self.retry().run(attempt).await?;
        Ok(head.checksum_sha256.as_deref().and_then(hexadecimal))
    }

    fn source(&self, full_key: String, head: &HeadObjectOutput) -> Source {
        Source {
            copy_source: url_encoded(&format!("{}/{full_key}", self.bucket())),
            full_key,
            bytes: head.content_length.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            etag: head.e_tag.clone(),
            lock: head
                .object_lock_mode
                .clone()
                .zip(head.object_lock_retain_until_date)
                .filter(|(_, until)| until.secs() > super::client::now()),
            hold: head.object_lock_legal_hold_status.clone().filter(|status| *status == ObjectLockLegalHoldStatus::On),
        }
    }

    /// The SHA-256 that the store computed of the copy. One request copies up to 5 GB, and `archive_ext.object_size` allows no more.
    async fn copy(&self, key: &str, source: &Source, class: &str) -> Result<Option<String>> {
        let attempt = |_| async {
            let request = self
                .client()
                .copy_object()
                .bucket(self.bucket())
                .key(&source.full_key)
                .copy_source(&source.copy_source)
                .set_copy_source_if_match(source.etag.clone())
                .metadata_directive(MetadataDirective::Copy)
                .storage_class(StorageClass::from(class))
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .set_server_side_encryption(self.inner.sse.clone())
                .set_ssekms_key_id(self.inner.kms_key_id.clone())
                .set_object_lock_mode(source.lock.as_ref().map(|(mode, _)| mode.clone()))
                .set_object_lock_retain_until_date(source.lock.as_ref().map(|(_, until)| *until))
                .set_object_lock_legal_hold_status(source.hold.clone());
            let request = request.customize().config_override(self.time_for(copied(source.bytes)));
            // Some servers want to be told of a checksum with whatever makes a locked object, as S3 wants it with a PUT.
            let request = match &source.lock {
                Some(_) => request.mutate_request(|request| {
                    request.headers_mut().insert("x-amz-sdk-checksum-algorithm", "SHA256");
                }),
                None => request,
            };
            let sent = request.send().await;
            sent.map_err(|e| self.attempt("move", key, &Failure::of(&e)))
        };
        let copied = self.retry().run(attempt).await?;
        let sha256 = copied.copy_object_result.and_then(|result| result.checksum_sha256);
        Ok(sha256.as_deref().and_then(hexadecimal))
    }

    pub(super) async fn ask_for_restore(&self, key: &str, days: i32, retrieval: Retrieval) -> Result<()> {
        let full_key = self.full_key(key)?;
        let tier = match retrieval {
            Retrieval::Expedited => Tier::Expedited,
            Retrieval::Standard => Tier::Standard,
            Retrieval::Bulk => Tier::Bulk,
        };
        let parameters = GlacierJobParameters::builder().tier(tier).build();
        let parameters = parameters.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        let wanted = RestoreRequest::builder().days(days).glacier_job_parameters(parameters).build();
        let attempt = |_| async {
            let request = self.client().restore_object().bucket(self.bucket()).key(&full_key);
            match request.restore_request(wanted.clone()).send().await {
                Ok(_) => Ok(()),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_code("RestoreAlreadyInProgress") => Ok(()),
                    failure => Err(self.attempt("restore", key, &failure)),
                },
            }
        };
        self.retry().run(attempt).await
    }
}

/// How many bytes a request is given time for: the store copies faster than a line carries them.
fn copied(bytes: u64) -> usize {
    usize::try_from(bytes / 16).unwrap_or(usize::MAX)
}

/// `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`, the header `x-amz-restore`.
pub(super) fn restore_of(header: &str) -> Option<Restore> {
    let value = |name: &str| header.split_once(&format!("{name}=\""))?.1.split('"').next();
    match value("ongoing-request")? {
        "true" => Some(Restore::Ongoing),
        _ => {
            let until = value("expiry-date").and_then(|at| DateTime::from_str(at, DateTimeFormat::HttpDate).ok());
            Some(Restore::Ready(until.map(|at| at.secs())))
        }
    }
}

/// The SHA-256 of a whole object; that of the parts of one ends with their number.
fn hexadecimal(base64: &str) -> Option<String> {
    let bytes = aws_smithy_types::base64::decode(base64).ok().filter(|bytes| bytes.len() == 32)?;
    Some(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// `x-amz-copy-source` must be URL-encoded; slashes may stay.
fn url_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_restore() {
        assert_eq!(restore_of("ongoing-request=\"true\""), Some(Restore::Ongoing));
        let ready = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        assert_eq!(restore_of(ready), Some(Restore::Ready(Some(1_356_048_000))));
        assert_eq!(restore_of("ongoing-request=\"false\""), Some(Restore::Ready(None)));
        assert_eq!(restore_of(""), None);
    }

    #[test]
    fn checksums_of_whole_objects() {
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hexadecimal(empty).as_deref(), Some(hex));
        assert_eq!(hexadecimal(&format!("{empty}-3")), None);
    }

    #[test]
    fn keys_are_encoded() {
        assert_eq!(url_encoded("b/a year=2022/x+y.z"), "b/a%20year%3D2022/x%2By.z");
    }
}
