//! Reading objects: every body is complete and, where the server gives a checksum, right; else it is asked for again.

use super::S3Store;
use super::failure::Failure;
use super::retry::Attempt;
use crate::error::{Error, ErrorKind, Result};
use crate::store::common::too_short;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Memory set aside before a byte has arrived.
const LARGEST_RESERVE: u64 = 16 * 1024 * 1024;

impl S3Store {
    /// Reads the whole object or a range that is not empty.
    pub(super) async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let full_key = self.full_key(key)?;
        let attempt = |_| async {
            let request = self.client().get_object().bucket(self.bucket()).key(&full_key);
            let request = request.set_range(range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end - 1)));
            let validated = self.inner.checksum.as_ref().map(|_| ChecksumMode::Enabled);
            let sent = request.set_checksum_mode(validated).send().await;
            let output = sent.map_err(|e| self.attempt("read", key, &Failure::of(&e)))?;
            self.body(key, range.as_ref(), output).await
        };
        self.retry().run(attempt).await
    }

    async fn body(&self, key: &str, range: Option<&Range<u64>>, output: GetObjectOutput) -> Result<Bytes, Attempt> {
        let total = output.content_range.as_deref().and_then(total_size);
        if let (Some(range), Some(total)) = (range, total)
            && total < range.end
        {
            return Err(Attempt::Final(too_short(key, range, total)));
        }
        let announced = output.content_length.and_then(|n| u64::try_from(n).ok());
        let expected = range.map(|r| r.end - r.start).or(announced);
        let bytes = self.collect(key, output, expected).await?;
        match expected {
            Some(expected) if expected != bytes.len() as u64 => {
                Err(Attempt::Again(self.broken(key, &format!("{} bytes arrived instead of {expected}", bytes.len()))))
            }
            _ => Ok(bytes),
        }
    }

    async fn collect(&self, key: &str, mut output: GetObjectOutput, expected: Option<u64>) -> Result<Bytes, Attempt> {
        let mut bytes = BytesMut::with_capacity(expected.unwrap_or(0).min(LARGEST_RESERVE) as usize);
        loop {
            let next = tokio::time::timeout(self.inner.idle, output.body.next()).await;
            let chunk = match next {
                Err(_) => return Err(Attempt::Again(self.broken(key, "no byte arrived within request_timeout"))),
                Ok(None) => return Ok(bytes.freeze()),
                Ok(Some(Err(error))) => return Err(self.broken_off(key, &error)),
                Ok(Some(Ok(chunk))) => chunk,
            };
            bytes.extend_from_slice(&chunk);
            if expected.is_some_and(|expected| bytes.len() as u64 > expected) {
                return Err(Attempt::Again(self.broken(key, "more bytes arrived than were asked for")));
            }
        }
    }

    fn broken(&self, key: &str, what: &str) -> Error {
        Error::new(ErrorKind::Storage, format!("could not read \"{}\"", self.inner.location.url_of(key)))
            .detail(format!("The answer broke off: {what}."))
            .hint("Check the network and the storage server.")
    }

    /// The connection ended, or the checksum at the end of the body is not that of the bytes.
    fn broken_off(&self, key: &str, error: &(dyn std::error::Error + 'static)) -> Attempt {
        let causes = self.inner.scrubber.scrub(&super::failure::causes(error));
        if !causes.contains("checksum mismatch") {
            return Attempt::Again(self.broken(key, &causes));
        }
        let corrupt =
            Error::new(ErrorKind::Corrupt, format!("object \"{}\" is damaged", self.inner.location.url_of(key)));
        Attempt::Again(corrupt.detail(format!("The bytes read do not have the checksum the storage keeps: {causes}.")))
    }
}

/// The size of the whole object in `bytes 0-9/100`.
fn total_size(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}
