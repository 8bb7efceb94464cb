//! The trait every store implements, and the values it speaks in.

use super::{Kept, Location, Restore, Retrieval};
use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;

/// What a store knows about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The key, relative to the location's prefix.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// The entity tag, without quotes; none for a directory.
    pub etag: Option<String>,
    /// The version, when the bucket keeps versions.
    pub version_id: Option<String>,
    /// Seconds since 1970 at which it was last written, as far as the store told.
    pub last_modified_unix: Option<i64>,
    /// Its storage class, as far as the store told: S3 does not name STANDARD.
    pub storage_class: Option<String>,
    /// How far its restore is, where one was asked for; a listing does not tell.
    pub restore: Option<Restore>,
    /// What keeps it from being deleted, as far as the store told; a listing does not.
    pub kept: Kept,
}

/// An object that was moved to another storage class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The object as it is now.
    pub meta: ObjectMeta,
    /// The SHA-256 that the store computed of it while it copied, in hexadecimal, if it says so.
    pub sha256: Option<String>,
}

impl ObjectMeta {
    /// What changes when it is written again: the entity tag, or for a directory when that was.
    pub fn tag(&self) -> Option<String> {
        self.etag.clone().or_else(|| self.last_modified_unix.map(|at| format!("written {at}")))
    }
}

/// An upload somebody began and neither completed nor aborted, as after `kill -9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingUpload {
    /// The key it was going to (for a directory: the temporary file itself).
    pub key: String,
    /// The store's name for it; empty for a directory.
    pub upload_id: String,
    /// Seconds since 1970 at which it began, as far as the store told.
    pub initiated_unix: Option<i64>,
}

/// Whether a put may replace an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Replaces an existing object.
    Overwrite,
    /// Fails with `AlreadyExists` when the object exists. Some servers ignore the condition, so whoever depends on
    /// winning reads the object back and compares.
    CreateOnly,
}

/// Objects under one location. Keys are relative to its prefix and use `/`.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Where the objects are.
    fn location(&self) -> &Location;

    /// How many answers came from a second store, where there is one.
    fn fallbacks(&self) -> u64 {
        0
    }

    /// Writes one whole object.
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<ObjectMeta>;

    /// Begins an object that is written in parts; nothing is visible under the key before it completes.
    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>>;

    /// Reads one whole object through a fresh request, checked against the store's checksum when it returns one.
    async fn get(&self, key: &str) -> Result<Bytes>;

    /// Reads exactly `range`; `Corrupt` when the object ends before it does.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes>;

    /// What is known about the object, or `None` when there is none.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>>;

    /// Every object whose key begins with `prefix` (any prefix, not only whole segments), in order of keys.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>>;

    /// A page of [`list`](Self::list), in the store's order, and what asks for the next one.
    async fn list_page(&self, prefix: &str, page: Option<String>) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        let _ = page;
        Ok((self.list(prefix).await?, None))
    }

    /// Removes the object; succeeds when there is none.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Removes the object and every earlier version of it that the store keeps; how many versions went, markers of deletions not
    /// counted. Succeeds when there is none.
    async fn delete_versions(&self, key: &str) -> Result<u64> {
        let there = self.head(key).await?.is_some();
        self.delete(key).await?;
        Ok(there.into())
    }

    /// Puts a legal hold on the object, or lifts it: as long as it has one the store deletes this version of it for nobody.
    /// `Unsupported` where the store knows no such thing.
    async fn set_legal_hold(&self, key: &str, on: bool) -> Result<()> {
        let _ = on;
        Err(Error::new(ErrorKind::Unsupported, format!("{} knows no legal hold", self.location().url_of(key))))
    }

    /// Moves an object to another storage class, in place: it is copied onto itself with what the store knows about it, encryption,
    /// retention and legal hold included. One that is in the class already is left as it is. Where the bucket keeps versions the
    /// former object stays as an earlier one. `Unsupported` where the store knows no classes.
    async fn set_storage_class(&self, key: &str, class: &str) -> Result<Moved> {
        let _ = class;
        Err(Error::new(ErrorKind::Unsupported, format!("{} knows no storage classes", self.location().url_of(key)))
            .hint("Storage classes are those of an S3 storage."))
    }

    /// Asks for a readable copy of an object of a frozen class, for so many days from when it is ready. Asked again it changes
    /// nothing while the copy is made, and the days once it is there. Succeeds when the object can be read anyway.
    async fn restore(&self, key: &str, days: i32, retrieval: Retrieval) -> Result<()> {
        let _ = (key, days, retrieval);
        Ok(())
    }

    /// Uploads under `prefix` that were begun and not finished, by anyone, at any time.
    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>>;

    /// Aborts one of them; succeeds when it is gone.
    async fn abort_pending(&self, upload: &PendingUpload) -> Result<()>;
}

/// One object being written. Parts may have any size; the store joins or splits them as it must.
#[async_trait]
pub trait Upload: Send {
    /// Appends bytes. May return before they have arrived; an error then shows on a later call.
    async fn part(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes the object visible.
    async fn complete(&mut self) -> Result<ObjectMeta>;

    /// Throws away what was uploaded. Safe to call at any moment, also after a call of the others was cancelled.
    async fn abort(&mut self) -> Result<()>;
}

/// The object ends before the range does: it is not the object its manifest describes.
pub(super) fn too_short(key: &str, range: &Range<u64>, size: u64) -> Error {
    Error::new(ErrorKind::Corrupt, format!("object \"{key}\" is shorter than expected"))
        .detail(format!("Bytes {} to {} are wanted and it has {size}.", range.start, range.end))
}
