//! S3 and servers that speak its protocol.

mod body;
mod class;
mod client;
mod failure;
mod list;
mod lock;
mod resolver;
mod retry;
#[cfg(test)]
mod tests;
mod upload;

use super::common::{Moved, ObjectMeta, ObjectStore, PendingUpload, PutMode, Upload};
use super::key::validate_key;
use super::{AllowedEndpoints, Credentials, Kept, Location, ObjectLock, Retrieval, Sse, StorageOptions};
use crate::chain::REMOVAL_PREFIX;
use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockMode, ServerSideEncryption, StorageClass};
use bytes::Bytes;
use failure::{Failure, Scrubber};
use retry::{Attempt, Retry};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use upload::S3Upload;

/// One bucket and prefix. Clones share the client.
#[derive(Clone)]
pub(super) struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    location: Location,
    bucket: String,
    /// Empty, or ends with a slash.
    prefix: String,
    retry: Retry,
    /// How long a body may go without a byte.
    idle: Duration,
    checksum: Option<ChecksumAlgorithm>,
    storage_class: Option<StorageClass>,
    sse: Option<ServerSideEncryption>,
    kms_key_id: Option<String>,
    object_lock: Option<ObjectLock>,
    scrubber: Scrubber,
}

/// The location only: the SDK's own output holds the access key.
impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("S3Store").field(&self.inner.location).finish()
    }
}

impl S3Store {
    /// Builds the client; no request is sent.
    pub(super) fn open(
        options: &StorageOptions,
        credentials: Option<Credentials>,
        allowed: &AllowedEndpoints,
    ) -> Result<Self> {
        let Location::S3 { bucket, prefix } = &options.location else {
            return Err(Error::new(ErrorKind::Internal, "not an S3 location"));
        };
        let keys = credentials.as_ref().ok_or_else(|| client::no_credentials(options))?.resolve()?;
        let from_environment = matches!(credentials, Some(Credentials::Environment));
        let inner = Inner {
            client: client::build(options, &keys, from_environment, allowed),
            location: options.location.clone(),
            bucket: bucket.clone(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            retry: Retry { attempts: options.max_attempts, backoff: options.retry_backoff },
            idle: options.request_timeout,
            checksum: client::checksum(options.checksum),
            storage_class: options.storage_class.as_deref().map(StorageClass::from),
            sse: options.sse.map(encryption),
            kms_key_id: options.kms_key_id.clone(),
            object_lock: options.object_lock,
            scrubber: Scrubber::new(&keys),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn bucket(&self) -> &str {
        &self.inner.bucket
    }

    fn retry(&self) -> &Retry {
        &self.inner.retry
    }

    /// Settings of a request that sends `bytes`: a slow line may take longer than `request_timeout` to carry them.
    fn time_for(&self, bytes: usize) -> aws_sdk_s3::config::Builder {
        client::attempt_timeout(self.inner.idle + Duration::from_secs(bytes as u64 / client::SLOWEST_BYTES_PER_SECOND))
    }

    fn full_key(&self, key: &str) -> Result<String> {
        validate_key(key)?;
        Ok(format!("{}{key}", self.inner.prefix))
    }

    /// What a failed request means for this attempt.
    fn attempt(&self, verb: &str, key: &str, failure: &Failure) -> Attempt {
        let error = failure.to_error(verb, key, &self.inner.location, &self.inner.scrubber);
        if failure.is_transient() { Attempt::Again(error) } else { Attempt::Final(error) }
    }

    fn put_request(&self, key: &str, full_key: &str, bytes: Bytes) -> PutObjectFluentBuilder {
        let attributes = self.attributes(key);
        self.client()
            .put_object()
            .bucket(self.bucket())
            .key(full_key)
            .body(ByteStream::from(bytes))
            .set_checksum_algorithm(self.inner.checksum.clone())
            .set_storage_class(attributes.storage_class)
            .set_server_side_encryption(self.inner.sse.clone())
            .set_ssekms_key_id(self.inner.kms_key_id.clone())
            .set_object_lock_mode(attributes.lock.as_ref().map(|(mode, _)| mode.clone()))
            .set_object_lock_retain_until_date(attributes.lock.map(|(_, until)| until))
    }

    fn attributes(&self, key: &str) -> Attributes {
        let lock = self.inner.object_lock.filter(|_| !is_ours(key));
        Attributes {
            storage_class: self.inner.storage_class.clone().filter(|_| !is_metadata(key)),
            lock: lock.map(|lock| (lock::lock_mode(lock.mode), DateTime::from_secs(lock.retain_until(client::now())))),
        }
    }

    async fn head_output(&self, key: &str, full_key: &str) -> Result<Option<HeadObjectOutput>> {
        let attempt = |_| async {
            match self.client().head_object().bucket(self.bucket()).key(full_key).send().await {
                Ok(output) => Ok(Some(output)),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_status(404) => Ok(None),
                    failure => Err(self.attempt("look at", key, &failure)),
                },
            }
        };
        self.retry().run(attempt).await
    }

    async fn overwrite(&self, key: &str, bytes: Bytes) -> Result<ObjectMeta> {
        let full_key = self.full_key(key)?;
        let size = bytes.len();
        let attempt = |_| async {
            let request = self.put_request(key, &full_key, bytes.clone());
            let sent = request.customize().config_override(self.time_for(size)).send().await;
            sent.map_err(|e| self.attempt("write", key, &Failure::of(&e)))
        };
        let output = self.retry().run(attempt).await?;
        Ok(written(key, size as u64, output.e_tag, output.version_id))
    }

    /// With the condition where the server knows it; never relied upon alone.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectMeta> {
        let full_key = self.full_key(key)?;
        if self.head(key).await?.is_some() {
            return Err(self.exists(key));
        }
        let size = bytes.len();
        let attempt = |number| {
            let (bytes, full_key) = (bytes.clone(), &full_key);
            async move {
                let request = self.put_request(key, full_key, bytes.clone()).if_none_match("*");
                match request.customize().config_override(self.time_for(size)).send().await {
                    Ok(output) => Ok(written(key, size as u64, output.e_tag, output.version_id)),
                    Err(error) => self.not_created(key, bytes, number, &Failure::of(&error)).await,
                }
            }
        };
        self.retry().run(attempt).await
    }

    /// The condition failed, or is unknown to the server, or something else went wrong.
    async fn not_created(
        &self,
        key: &str,
        bytes: Bytes,
        attempt: u32,
        failure: &Failure,
    ) -> Result<ObjectMeta, Attempt> {
        if failure.has_status(501) || failure.has_code("NotImplemented") {
            return self.overwrite(key, bytes).await.map_err(Attempt::Final);
        }
        if failure.has_code("ConditionalRequestConflict") {
            return Err(Attempt::Again(self.exists(key)));
        }
        if !failure.has_status(412) {
            return Err(self.attempt("write", key, failure));
        }
        // An earlier attempt may have done it and lost the answer.
        let ours = attempt > 1 && self.get(key).await.map_err(Attempt::Final)? == bytes;
        match self.head(key).await.map_err(Attempt::Final)? {
            Some(meta) if ours => Ok(meta),
            _ => Err(Attempt::Final(self.exists(key))),
        }
    }

    fn exists(&self, key: &str) -> Error {
        Error::new(ErrorKind::AlreadyExists, format!("object \"{}\" exists already", self.inner.location.url_of(key)))
            .hint("An archived object is never overwritten.")
    }
}

/// What differs between data, manifests and our own few objects.
struct Attributes {
    storage_class: Option<StorageClass>,
    lock: Option<(ObjectLockMode, DateTime)>,
}

/// The owner marker and probe objects must be replaceable and removable: never locked.
fn is_ours(key: &str) -> bool {
    key.starts_with("_archive_ext/") && !key.starts_with(REMOVAL_PREFIX)
}

/// Small objects that are read often: in an infrequent-access class they would only cost more.
fn is_metadata(key: &str) -> bool {
    key == super::OWNER_KEY || key.starts_with(REMOVAL_PREFIX) || key.contains("/_manifests/")
}

fn encryption(sse: Sse) -> ServerSideEncryption {
    match sse {
        Sse::Aes256 => ServerSideEncryption::Aes256,
        Sse::Kms => ServerSideEncryption::AwsKms,
        Sse::KmsDsse => ServerSideEncryption::AwsKmsDsse,
    }
}

fn written(key: &str, bytes: u64, etag: Option<String>, version_id: Option<String>) -> ObjectMeta {
    ObjectMeta {
        key: key.to_owned(),
        bytes,
        etag: unquoted(etag),
        version_id,
        last_modified_unix: None,
        storage_class: None,
        restore: None,
        kept: Kept::default(),
    }
}

fn object_meta(key: &str, head: HeadObjectOutput) -> ObjectMeta {
    ObjectMeta {
        kept: lock::kept(&head),
        key: key.to_owned(),
        bytes: size(head.content_length),
        etag: unquoted(head.e_tag),
        version_id: head.version_id,
        last_modified_unix: head.last_modified.map(|at| at.secs()),
        storage_class: head.storage_class.map(|class| class.as_str().to_owned()),
        restore: head.restore.as_deref().and_then(class::restore_of),
    }
}

/// Whether the class that the store names is this one; it does not name STANDARD.
fn is_class(named: Option<&StorageClass>, class: &str) -> bool {
    named.map_or("STANDARD", StorageClass::as_str) == class
}

fn unquoted(etag: Option<String>) -> Option<String> {
    etag.map(|tag| tag.trim_matches('"').to_owned())
}

fn size(bytes: Option<i64>) -> u64 {
    bytes.and_then(|b| u64::try_from(b).ok()).unwrap_or(0)
}

#[async_trait]
impl ObjectStore for S3Store {
    fn location(&self) -> &Location {
        &self.inner.location
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<ObjectMeta> {
        let written = match mode {
            PutMode::Overwrite => self.overwrite(key, bytes).await?,
            PutMode::CreateOnly => self.create(key, bytes).await?,
        };
        self.prove_locked(written).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::new(self.clone(), key.to_owned(), self.full_key(key)?)))
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.read(key, None).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        self.read(key, Some(range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let found = self.head_output(key, &self.full_key(key)?).await?;
        Ok(found.map(|output| object_meta(key, output)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.list_objects(prefix).await
    }

    async fn list_page(&self, prefix: &str, page: Option<String>) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        self.list_objects_page(prefix, page).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let full_key = self.full_key(key)?;
        let attempt = |_| async {
            match self.client().delete_object().bucket(self.bucket()).key(&full_key).send().await {
                Ok(_) => Ok(()),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_code("NoSuchKey") => Ok(()),
                    failure => Err(self.not_deleted(key, None, &failure).await),
                },
            }
        };
        self.retry().run(attempt).await
    }

    async fn delete_versions(&self, key: &str) -> Result<u64> {
        let Some(versions) = self.versions(key).await? else {
            // The server keeps none.
            let there = self.head(key).await?.is_some();
            return self.delete(key).await.map(|()| there.into());
        };
        let mut deleted = 0;
        for (version, is_marker) in versions {
            self.delete_version(key, &version).await?;
            deleted += u64::from(!is_marker);
        }
        // A server that lists no versions, or not all.
        if self.head(key).await?.is_some() {
            self.delete(key).await?;
            deleted += 1;
            if self.head(key).await?.is_some() {
                let url = self.inner.location.url_of(key);
                return Err(Error::new(
                    ErrorKind::Storage,
                    format!("object \"{url}\" is still there after its deletion"),
                ));
            }
        }
        Ok(deleted)
    }

    async fn set_legal_hold(&self, key: &str, on: bool) -> Result<()> {
        self.hold(key, on).await
    }

    async fn set_storage_class(&self, key: &str, class: &str) -> Result<Moved> {
        self.move_to_class(key, class).await
    }

    async fn restore(&self, key: &str, days: i32, retrieval: Retrieval) -> Result<()> {
        self.ask_for_restore(key, days, retrieval).await
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.list_uploads(prefix).await
    }

    async fn abort_pending(&self, upload: &PendingUpload) -> Result<()> {
        let full_key = self.full_key(&upload.key)?;
        self.abort_upload(&upload.key, &full_key, &upload.upload_id).await
    }
}
