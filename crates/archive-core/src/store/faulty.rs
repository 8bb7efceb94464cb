//! A store that fails on command, around any other store.

use super::{Location, Moved, ObjectMeta, ObjectStore, PendingUpload, PutMode, Retrieval, Upload};
use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`ObjectStore::put`]
    Put,
    /// [`ObjectStore::begin_upload`]
    BeginUpload,
    /// [`Upload::part`]
    Part,
    /// [`Upload::complete`]
    Complete,
    /// [`Upload::abort`]
    Abort,
    /// [`ObjectStore::get`]
    Get,
    /// [`ObjectStore::get_range`]
    GetRange,
    /// [`ObjectStore::head`]
    Head,
    /// [`ObjectStore::list`]
    List,
    /// [`ObjectStore::delete`]
    Delete,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation is not done and fails with this kind.
    Error(ErrorKind),
    /// It is done, and fails all the same, as when the answer is lost.
    ErrorAfter(ErrorKind),
    /// The last byte written or read is missing.
    Truncate,
    /// One bit in the middle of what is written or read is flipped.
    FlipBit,
    /// It takes longer.
    Delay(Duration),
    /// It succeeds, and the object is gone afterwards (put and complete).
    Lose,
}

#[derive(Debug, Default)]
struct Plan {
    seen: HashMap<Op, u32>,
    rules: Vec<(Op, u32, Fault)>,
}

/// Wraps a store; without rules it behaves as that store does.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Mutex<Plan>>,
}

impl FaultyStore {
    /// A wrapper without faults. Clones share the plan.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Makes the `nth` operation of this kind from now (1 is the next one) go wrong.
    pub fn inject(&self, op: Op, nth: u32, fault: Fault) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let at = plan.seen.get(&op).copied().unwrap_or(0).saturating_add(nth);
        plan.rules.push((op, at, fault));
    }

    /// How many operations of this kind were asked for.
    pub fn count(&self, op: Op) -> u32 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).seen.get(&op).copied().unwrap_or(0)
    }

    /// Counts the operation; waits or fails when it is its turn, and returns a fault that acts on data.
    async fn enter(&self, op: Op) -> Result<Option<Fault>> {
        let fault = self.next(op);
        match fault {
            Some(Fault::Error(kind)) => Err(injected(kind)),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    fn next(&self, op: Op) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = plan.seen.entry(op).or_insert(0);
        *seen += 1;
        let seen = *seen;
        let index = plan.rules.iter().position(|(kind, at, _)| *kind == op && *at == seen)?;
        Some(plan.rules.swap_remove(index).2)
    }

    async fn after_write(&self, fault: Option<Fault>, meta: ObjectMeta) -> Result<ObjectMeta> {
        match fault {
            Some(Fault::Lose) => self.inner.delete(&meta.key).await.map(|()| meta),
            other => after(other, meta),
        }
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "injected fault")
}

fn after<T>(fault: Option<Fault>, value: T) -> Result<T> {
    match fault {
        Some(Fault::ErrorAfter(kind)) => Err(injected(kind)),
        _ => Ok(value),
    }
}

fn spoil(fault: Option<Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::Truncate) => bytes.slice(..bytes.len().saturating_sub(1)),
        Some(Fault::FlipBit) if !bytes.is_empty() => {
            let mut spoiled = bytes.to_vec();
            let middle = spoiled.len() / 2;
            spoiled[middle] ^= 1;
            Bytes::from(spoiled)
        }
        _ => bytes,
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    fn location(&self) -> &Location {
        self.inner.location()
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<ObjectMeta> {
        let fault = self.enter(Op::Put).await?;
        let meta = self.inner.put(key, spoil(fault, bytes), mode).await?;
        self.after_write(fault, meta).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let fault = self.enter(Op::BeginUpload).await?;
        let inner = self.inner.begin_upload(key).await?;
        after(fault, Box::new(FaultyUpload { store: self.clone(), inner }) as Box<dyn Upload>)
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let fault = self.enter(Op::Get).await?;
        after(fault, spoil(fault, self.inner.get(key).await?))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let fault = self.enter(Op::GetRange).await?;
        after(fault, spoil(fault, self.inner.get_range(key, range).await?))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let fault = self.enter(Op::Head).await?;
        after(fault, self.inner.head(key).await?)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let fault = self.enter(Op::List).await?;
        after(fault, self.inner.list(prefix).await?)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let fault = self.enter(Op::Delete).await?;
        after(fault, self.inner.delete(key).await?)
    }

    async fn delete_versions(&self, key: &str) -> Result<u64> {
        let fault = self.enter(Op::Delete).await?;
        after(fault, self.inner.delete_versions(key).await?)
    }

    async fn set_legal_hold(&self, key: &str, on: bool) -> Result<()> {
        self.inner.set_legal_hold(key, on).await
    }

    async fn set_storage_class(&self, key: &str, class: &str) -> Result<Moved> {
        self.inner.set_storage_class(key, class).await
    }

    async fn restore(&self, key: &str, days: i32, retrieval: Retrieval) -> Result<()> {
        self.inner.restore(key, days, retrieval).await
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.inner.pending_uploads(prefix).await
    }

    async fn abort_pending(&self, upload: &PendingUpload) -> Result<()> {
        self.inner.abort_pending(upload).await
    }
}

struct FaultyUpload {
    store: FaultyStore,
    inner: Box<dyn Upload>,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        let fault = self.store.enter(Op::Part).await?;
        after(fault, self.inner.part(spoil(fault, bytes)).await?)
    }

    async fn complete(&mut self) -> Result<ObjectMeta> {
        let fault = self.store.enter(Op::Complete).await?;
        let meta = self.inner.complete().await?;
        self.store.after_write(fault, meta).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.store.enter(Op::Abort).await?;
        after(fault, self.inner.abort().await?)
    }
}
