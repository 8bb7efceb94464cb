//! Object Lock: what new objects are written with, and what S3 says of an object that it does not delete.

use super::S3Store;
use super::client;
use super::failure::Failure;
use super::retry::Attempt;
use crate::error::{Error, ErrorKind, Result};
use crate::store::common::ObjectMeta;
use crate::store::{Kept, LockMode, ObjectStore};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode};

/// The mode as the SDK has it.
pub(super) fn lock_mode(mode: LockMode) -> ObjectLockMode {
    match mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

/// What keeps an object, as far as the caller may know.
pub(super) fn kept(head: &HeadObjectOutput) -> Kept {
    let mode = head.object_lock_mode.as_ref().and_then(|mode| LockMode::named(mode.as_str()));
    Kept {
        retention: mode.zip(head.object_lock_retain_until_date.map(|until| until.secs())),
        held: head.object_lock_legal_hold_status == Some(ObjectLockLegalHoldStatus::On),
    }
}

impl S3Store {
    /// What a failed deletion means: where a lock is why, that is said with its mode and end.
    pub(super) async fn not_deleted(&self, key: &str, version: Option<&str>, failure: &Failure) -> Attempt {
        let kept = match failure.has_status(403) || failure.has_status(400) {
            true => self.kept_version(key, version).await,
            false => None,
        };
        match kept.filter(|kept| kept.lasts(client::now())) {
            Some(kept) => Attempt::Final(self.is_kept(key, kept)),
            None => self.attempt("delete", key, failure),
        }
    }

    /// `None` where the store does not say: then its refusal has to do.
    async fn kept_version(&self, key: &str, version: Option<&str>) -> Option<Kept> {
        let full_key = self.full_key(key).ok()?;
        let request = self.client().head_object().bucket(self.bucket()).key(full_key);
        let head = request.set_version_id(version.map(str::to_owned)).send().await.ok()?;
        Some(kept(&head))
    }

    fn is_kept(&self, key: &str, kept: Kept) -> Error {
        let url = self.inner.location.url_of(key);
        let error = Error::new(ErrorKind::Locked, format!("could not delete \"{url}\": the storage locks it"));
        let lasting = kept.retention.filter(|(_, until)| *until > client::now());
        match (kept.held, lasting) {
            (true, _) => error
                .detail(format!("It is under a legal hold of S3's{}.", lasting.map_or_else(String::new, also)))
                .hint("legal_hold(partition, false) ends ours; one that others set ends at S3."),
            (false, Some((mode, until))) => error
                .detail(format!("It is retained until {}, mode {}.", utc(until), mode.as_str()))
                .hint(after(mode))
                .until(until),
            (false, None) => error,
        }
    }

    /// What was to be locked is, or the write has failed: a server may ignore what it does not know. Whoever may not ask S3 takes its
    /// word for it.
    pub(super) async fn prove_locked(&self, written: ObjectMeta) -> Result<ObjectMeta> {
        if self.attributes(&written.key).lock.is_none() {
            return Ok(written);
        }
        match self.head(&written.key).await? {
            Some(found) if found.kept.retention.is_none() && !self.is_retained(&written.key).await? => {
                let url = self.inner.location.url_of(&written.key);
                Err(Error::new(ErrorKind::Unsupported, format!("object \"{url}\" was written and is not locked"))
                    .detail("The storage took its retention and does not keep it.")
                    .hint("Use a bucket that has Object Lock, or take object_lock off the server or the policy."))
            }
            // What is not there the read-back misses.
            _ => Ok(written),
        }
    }

    /// Whether an object has a retention, or S3 does not say so to this caller: a HEAD tells those alone who may ask.
    async fn is_retained(&self, key: &str) -> Result<bool> {
        let full_key = self.full_key(key)?;
        let attempt = |_| async {
            let request = self.client().get_object_retention().bucket(self.bucket()).key(&full_key);
            match request.send().await {
                Ok(output) => Ok(output.retention.is_some_and(|retention| retention.mode.is_some())),
                Err(error) => match Failure::of(&error) {
                    failure if failure.has_status(403) => Ok(true),
                    failure if failure.is_transient() => Err(self.attempt("look at", key, &failure)),
                    _ => Ok(false),
                },
            }
        };
        self.retry().run(attempt).await
    }

    pub(super) async fn hold(&self, key: &str, on: bool) -> Result<()> {
        let full_key = self.full_key(key)?;
        let status = if on { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let attempt = |_| async {
            let request = self.client().put_object_legal_hold().bucket(self.bucket()).key(&full_key);
            let sent = request.legal_hold(hold.clone()).send().await;
            sent.map(drop).map_err(|e| self.attempt("hold", key, &Failure::of(&e)))
        };
        self.retry().run(attempt).await
    }
}

fn also((mode, until): (LockMode, i64)) -> String {
    format!(", and retained until {}, mode {}", utc(until), mode.as_str())
}

fn after(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Governance => "It can be deleted after that; whoever may bypass governance at S3 can do so before.",
        LockMode::Compliance => "It can be deleted after that, and by nobody before.",
    }
}

fn utc(seconds: i64) -> String {
    DateTime::from_secs(seconds).fmt(DateTimeFormat::DateTime).unwrap_or_else(|_| format!("@{seconds}"))
}
