//! Multipart uploads: parts go out concurrently; an object smaller than one part is a single put.

use super::failure::Failure;
use super::retry::Attempt;
use super::{S3Store, written};
use crate::error::{Error, ErrorKind, Result};
use crate::store::common::{ObjectMeta, ObjectStore, Upload};
use crate::store::upload::PIECE;
use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};

/// Parts in flight.
const CONCURRENCY: usize = 4;
/// S3 takes 10 000 parts; after this many they double, so that no object of up to 5 TB needs more.
const PARTS_PER_SIZE: usize = 1000;
/// S3 may have taken a part that was on its way when the upload was aborted; it is aborted once more after this.
const SECOND_ABORT: Duration = Duration::from_millis(150);

type Task<T> = JoinHandle<Result<T>>;

/// The id of a begun upload, and whether an attempt whose answer was lost may have begun another.
#[derive(Debug)]
struct Begun {
    id: String,
    attempts: u32,
}

pub(super) struct S3Upload {
    store: S3Store,
    key: String,
    full_key: String,
    buffer: BytesMut,
    total: u64,
    begun: Option<Begun>,
    /// Runs to its end even when the future that waits for it is dropped: an id that got lost could not be aborted.
    beginning: Option<Task<Begun>>,
    stray: bool,
    tasks: JoinSet<Result<CompletedPart>>,
    parts: Vec<CompletedPart>,
    started: usize,
}

impl S3Upload {
    pub(super) fn new(store: S3Store, key: String, full_key: String) -> Self {
        Self {
            store,
            key,
            full_key,
            buffer: BytesMut::new(),
            total: 0,
            begun: None,
            beginning: None,
            stray: false,
            tasks: JoinSet::new(),
            parts: Vec::new(),
            started: 0,
        }
    }

    fn part_size(&self) -> usize {
        PIECE << (self.started / PARTS_PER_SIZE).min(9)
    }

    /// The upload's id, asked for on first use.
    async fn id(&mut self) -> Result<String> {
        if let Some(begun) = &self.begun {
            return Ok(begun.id.clone());
        }
        let (store, key, full_key) = (self.store.clone(), self.key.clone(), self.full_key.clone());
        let task =
            self.beginning.get_or_insert_with(|| tokio::spawn(async move { store.begin(&key, &full_key).await }));
        let answer = joined(task.await);
        self.beginning = None;
        let begun = answer.inspect_err(|_| self.stray = true)?;
        self.stray |= begun.attempts > 1;
        let id = begun.id.clone();
        self.begun = Some(begun);
        Ok(id)
    }

    async fn start_part(&mut self, bytes: Bytes) -> Result<()> {
        let id = self.id().await?;
        while self.tasks.len() >= CONCURRENCY {
            self.join_part().await?;
        }
        self.started += 1;
        let number = i32::try_from(self.started).unwrap_or(i32::MAX);
        let (store, key, full_key) = (self.store.clone(), self.key.clone(), self.full_key.clone());
        self.tasks.spawn(async move { store.send_part(&key, &full_key, &id, number, bytes).await });
        Ok(())
    }

    /// Waits for any part; false when none is in flight.
    async fn join_part(&mut self) -> Result<bool> {
        match self.tasks.join_next().await {
            None => Ok(false),
            Some(part) => {
                self.parts.push(joined(part)?);
                Ok(true)
            }
        }
    }

    /// Reports the error of a part that failed in the meantime.
    fn look(&mut self) -> Result<()> {
        while let Some(part) = self.tasks.try_join_next() {
            self.parts.push(joined(part)?);
        }
        Ok(())
    }

    async fn complete_parts(&mut self) -> Result<ObjectMeta> {
        let rest = self.buffer.split().freeze();
        if !rest.is_empty() {
            self.start_part(rest).await?;
        }
        while self.join_part().await? {}
        let mut parts = std::mem::take(&mut self.parts);
        parts.sort_by_key(|part| part.part_number);
        let id = self.id().await?;
        let meta = self.store.complete(&self.key, &self.full_key, &id, parts, self.total).await?;
        self.begun = None;
        // The object is complete; failing to tidy up what a lost answer may have left must not say otherwise.
        let _ = self.abort_strays().await;
        Ok(meta)
    }

    /// Aborts uploads of this key that were begun by an attempt whose answer got lost.
    async fn abort_strays(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.stray) {
            return Ok(());
        }
        for upload in self.store.list_uploads(&self.key).await? {
            if upload.key == self.key {
                self.store.abort_upload(&self.key, &self.full_key, &upload.upload_id).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn part(&mut self, mut bytes: Bytes) -> Result<()> {
        self.look()?;
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = self.part_size();
            if self.buffer.is_empty() && bytes.len() >= size {
                self.start_part(bytes.split_to(size)).await?;
                continue;
            }
            let take = bytes.len().min(size - self.buffer.len());
            self.buffer.extend_from_slice(&bytes.split_to(take));
            if self.buffer.len() == size {
                let part = self.buffer.split().freeze();
                self.start_part(part).await?;
            }
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<ObjectMeta> {
        let written = match self.started > 0 {
            true => self.complete_parts().await?,
            false => self.store.overwrite(&self.key, self.buffer.split().freeze()).await?,
        };
        self.store.prove_locked(written).await
    }

    async fn abort(&mut self) -> Result<()> {
        let in_flight = !self.tasks.is_empty();
        self.tasks.shutdown().await;
        self.buffer.clear();
        if self.beginning.is_some() {
            // An upload that could not begin is nothing to abort.
            let _ = self.id().await;
        }
        if let Some(begun) = self.begun.take() {
            self.store.abort_upload(&self.key, &self.full_key, &begun.id).await?;
            if in_flight {
                tokio::time::sleep(SECOND_ABORT).await;
                self.store.abort_upload(&self.key, &self.full_key, &begun.id).await?;
            }
        }
        self.abort_strays().await
    }
}

fn joined<T>(task: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    task.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, "an upload task failed").source(error)))
}

impl S3Store {
    async fn begin(&self, key: &str, full_key: &str) -> Result<Begun> {
        let attributes = self.attributes(key);
        let attempt = |number| {
            let attributes = &attributes;
            async move {
                let request = self
                    .client()
                    .create_multipart_upload()
                    .bucket(self.bucket())
                    .key(full_key)
                    .set_checksum_algorithm(self.inner.checksum.clone())
                    .set_storage_class(attributes.storage_class.clone())
                    .set_server_side_encryption(self.inner.sse.clone())
                    .set_ssekms_key_id(self.inner.kms_key_id.clone())
                    .set_object_lock_mode(attributes.lock.as_ref().map(|(mode, _)| mode.clone()))
                    .set_object_lock_retain_until_date(attributes.lock.as_ref().map(|(_, until)| *until));
                let sent = request.send().await;
                let output = sent.map_err(|e| self.attempt("begin an upload of", key, &Failure::of(&e)))?;
                let id = output.upload_id.filter(|id| !id.is_empty());
                let id = id.ok_or_else(|| Attempt::Final(self.upload_error(key, "it returned no upload id")))?;
                Ok(Begun { id, attempts: number })
            }
        };
        self.retry().run(attempt).await
    }

    async fn send_part(&self, key: &str, full_key: &str, id: &str, number: i32, bytes: Bytes) -> Result<CompletedPart> {
        let attempt = |_| async {
            let request = self
                .client()
                .upload_part()
                .bucket(self.bucket())
                .key(full_key)
                .upload_id(id)
                .part_number(number)
                .body(ByteStream::from(bytes.clone()))
                .set_checksum_algorithm(self.inner.checksum.clone());
            let sent = request.customize().config_override(self.time_for(bytes.len())).send().await;
            sent.map_err(|e| self.attempt("write", key, &Failure::of(&e)))
        };
        let output = self.retry().run(attempt).await?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(output.e_tag)
            .set_checksum_crc32_c(output.checksum_crc32_c)
            .set_checksum_crc64_nvme(output.checksum_crc64_nvme)
            .set_checksum_sha256(output.checksum_sha256)
            .build())
    }

    async fn complete(
        &self,
        key: &str,
        full_key: &str,
        id: &str,
        parts: Vec<CompletedPart>,
        total: u64,
    ) -> Result<ObjectMeta> {
        let count = parts.len();
        let body = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let attempt = |number| {
            let body = body.clone();
            async move {
                let request = self.client().complete_multipart_upload().bucket(self.bucket()).key(full_key);
                let request = request.upload_id(id).multipart_upload(body).customize();
                // Joining many parts takes a store longer than other requests.
                let time = super::client::attempt_timeout(self.inner.idle.saturating_mul(4));
                match request.config_override(time).send().await {
                    Ok(output) => Ok(written(key, total, output.e_tag, output.version_id)),
                    Err(error) => self.not_completed(key, count, total, number, &Failure::of(&error)).await,
                }
            }
        };
        self.retry().run(attempt).await
    }

    /// An earlier attempt whose answer was lost may have completed the upload, which then exists no more.
    async fn not_completed(
        &self,
        key: &str,
        parts: usize,
        total: u64,
        attempt: u32,
        failure: &Failure,
    ) -> Result<ObjectMeta, Attempt> {
        if attempt > 1 && failure.has_code("NoSuchUpload") {
            let found = self.head(key).await.map_err(Attempt::Final)?;
            if let Some(meta) = found.filter(|meta| is_joined(meta, parts, total)) {
                return Ok(meta);
            }
        }
        Err(self.attempt("complete the upload of", key, failure))
    }

    /// Succeeds when the upload is gone.
    pub(super) async fn abort_upload(&self, key: &str, full_key: &str, id: &str) -> Result<()> {
        let attempt = |_| async {
            let request = self.client().abort_multipart_upload().bucket(self.bucket()).key(full_key).upload_id(id);
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_code("NoSuchUpload") || failure.has_status(404) => Ok(()),
                    failure => Err(self.attempt("abort the upload of", key, &failure)),
                },
            }
        };
        self.retry().run(attempt).await
    }

    fn upload_error(&self, key: &str, what: &str) -> Error {
        Error::new(ErrorKind::Storage, format!("could not upload \"{}\"", self.inner.location.url_of(key)))
            .detail(format!("The storage's answer is not usable: {what}."))
    }
}

/// An object of this size whose entity tag says that it was joined from as many parts.
fn is_joined(meta: &ObjectMeta, parts: usize, total: u64) -> bool {
    let suffix = format!("-{parts}");
    meta.bytes == total && meta.etag.as_deref().is_some_and(|etag| etag.ends_with(&suffix))
}
