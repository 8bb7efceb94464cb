//! Listings, all pages of them.

use super::failure::Failure;
use super::{S3Store, size, unquoted};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Kept;
use crate::store::common::{ObjectMeta, PendingUpload};
use crate::store::key::validate_prefix;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{MultipartUpload, Object};

/// The id of what was written while the bucket kept no versions.
const UNVERSIONED: &str = "null";

impl S3Store {
    fn full_prefix(&self, prefix: &str) -> Result<String> {
        validate_prefix(prefix)?;
        Ok(format!("{}{prefix}", self.inner.prefix))
    }

    /// The key below our prefix; a listing by that prefix returns no others.
    fn relative(&self, full_key: Option<String>) -> Option<String> {
        full_key.and_then(|key| key.strip_prefix(&self.inner.prefix).map(str::to_owned)).filter(|key| !key.is_empty())
    }

    pub(super) async fn list_objects(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let (page, next) = self.list_objects_page(prefix, token).await?;
            found.extend(page);
            if next.is_none() {
                break;
            }
            token = next;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// One page, and the token of the next.
    pub(super) async fn list_objects_page(
        &self,
        prefix: &str,
        token: Option<String>,
    ) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        let full_prefix = self.full_prefix(prefix)?;
        let page = self.objects_page(prefix, &full_prefix, token.clone()).await?;
        let next = page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
        if next.is_some() && next == token {
            return Err(endless(prefix));
        }
        let found = page.contents.unwrap_or_default().into_iter().filter_map(|object| self.object_meta(object));
        Ok((found.collect(), next))
    }

    /// The ids of all versions of an object, and whether each is a marker of a deletion; `None` where the server keeps no versions.
    pub(super) async fn versions(&self, key: &str) -> Result<Option<Vec<(String, bool)>>> {
        let full_key = self.full_key(key)?;
        let mut found = Vec::new();
        let mut marker = (None, None);
        loop {
            let Some(page) = self.versions_page(key, &full_key, marker.clone()).await? else { return Ok(None) };
            let is_it = |of: &Option<String>| of.as_deref() == Some(full_key.as_str());
            let versions = page.versions.unwrap_or_default().into_iter().filter(|one| is_it(&one.key));
            found.extend(versions.map(|one| (one.version_id.unwrap_or_else(|| UNVERSIONED.to_owned()), false)));
            let markers = page.delete_markers.unwrap_or_default().into_iter().filter(|one| is_it(&one.key));
            found.extend(markers.map(|one| (one.version_id.unwrap_or_else(|| UNVERSIONED.to_owned()), true)));
            if page.is_truncated != Some(true) {
                return Ok(Some(found));
            }
            let next = (page.next_key_marker, page.next_version_id_marker);
            if next == marker {
                return Err(endless(key));
            }
            marker = next;
        }
    }

    async fn versions_page(
        &self,
        key: &str,
        full_key: &str,
        (key_marker, version_marker): (Option<String>, Option<String>),
    ) -> Result<Option<ListObjectVersionsOutput>> {
        let attempt = |_| async {
            let request = self.client().list_object_versions().bucket(self.bucket()).prefix(full_key);
            let request = request.set_key_marker(key_marker.clone()).set_version_id_marker(version_marker.clone());
            match request.send().await {
                Ok(page) => Ok(Some(page)),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_status(501) || failure.has_code("NotImplemented") => Ok(None),
                    failure => Err(self.attempt("list the versions of", key, &failure)),
                },
            }
        };
        self.retry().run(attempt).await
    }

    pub(super) async fn delete_version(&self, key: &str, version: &str) -> Result<()> {
        let full_key = self.full_key(key)?;
        let attempt = |_| async {
            let request = self.client().delete_object().bucket(self.bucket()).key(&full_key).version_id(version);
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_code("NoSuchKey") || failure.has_code("NoSuchVersion") => Ok(()),
                    failure => Err(self.not_deleted(key, Some(version), &failure).await),
                },
            }
        };
        self.retry().run(attempt).await
    }

    async fn objects_page(&self, prefix: &str, full: &str, token: Option<String>) -> Result<ListObjectsV2Output> {
        let attempt = |_| async {
            let request = self.client().list_objects_v2().bucket(self.bucket()).prefix(full);
            let sent = request.set_continuation_token(token.clone()).send().await;
            sent.map_err(|e| self.attempt("list", prefix, &Failure::of(&e)))
        };
        self.retry().run(attempt).await
    }

    fn object_meta(&self, object: Object) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            key: self.relative(object.key)?,
            bytes: size(object.size),
            etag: unquoted(object.e_tag),
            version_id: None,
            last_modified_unix: object.last_modified.map(|at| at.secs()),
            storage_class: object.storage_class.map(|class| class.as_str().to_owned()),
            restore: None,
            kept: Kept::default(),
        })
    }

    pub(super) async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let full_prefix = self.full_prefix(prefix)?;
        let mut found = Vec::new();
        let mut marker = (None, None);
        loop {
            let page = self.uploads_page(prefix, &full_prefix, marker.clone()).await?;
            found.extend(page.uploads.unwrap_or_default().into_iter().filter_map(|upload| self.pending(upload)));
            if page.is_truncated != Some(true) {
                return Ok(found);
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if next == marker {
                return Err(endless(prefix));
            }
            marker = next;
        }
    }

    async fn uploads_page(
        &self,
        prefix: &str,
        full: &str,
        marker: (Option<String>, Option<String>),
    ) -> Result<ListMultipartUploadsOutput> {
        let attempt = |_| async {
            let request = self.client().list_multipart_uploads().bucket(self.bucket()).prefix(full);
            let (key, upload_id) = marker.clone();
            let sent = request.set_key_marker(key).set_upload_id_marker(upload_id).send().await;
            sent.map_err(|e| self.attempt("list uploads under", prefix, &Failure::of(&e)))
        };
        self.retry().run(attempt).await
    }

    fn pending(&self, upload: MultipartUpload) -> Option<PendingUpload> {
        Some(PendingUpload {
            key: self.relative(upload.key)?,
            upload_id: upload.upload_id?,
            initiated_unix: upload.initiated.map(|at| at.secs()),
        })
    }
}

fn endless(prefix: &str) -> Error {
    Error::new(ErrorKind::Storage, format!("the storage lists \"{prefix}\" without an end"))
        .detail("It returned the same page marker twice.")
}
