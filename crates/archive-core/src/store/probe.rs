//! `check_storage`: tries everything a storage must be able to do, and tells what it saw.

use super::{BlockingStore, OWNER_KEY, OwnerMarker, PutMode};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Two S3 parts: one of the least size and a short last one.
const MULTIPART_BYTES: usize = super::upload::PIECE + 1024;

/// One check.
#[derive(Debug)]
pub struct ProbeResult {
    /// Its name: put, head, range_get, get, list, multipart, delete, owner.
    pub check: &'static str,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed.
    pub error: Option<Error>,
    /// What it saw, for people.
    pub detail: String,
}

/// Runs every check, later ones also when earlier ones failed, on keys of its own that it removes again.
pub fn probe(store: &BlockingStore) -> Vec<ProbeResult> {
    let key = format!("_archive_ext/probe-{}", super::key::random_suffix());
    let body = Bytes::from((0..4096u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let large = format!("{key}-multipart");
    let results = vec![
        timed("put", || put(store, &key, &body)),
        timed("head", || head(store, &key, &body)),
        timed("range_get", || range_get(store, &key, &body)),
        timed("get", || get(store, &key, &body)),
        timed("list", || list(store, &key)),
        timed("multipart", || multipart(store, &large)),
        timed("delete", || delete(store, &[&key, &large])),
        timed("owner", || owner(store)),
    ];
    results
}

fn timed(check: &'static str, run: impl FnOnce() -> Result<String>) -> ProbeResult {
    let begin = Instant::now();
    let result = run();
    let elapsed = begin.elapsed();
    match result {
        Ok(detail) => ProbeResult { check, elapsed, error: None, detail },
        Err(error) => ProbeResult { check, elapsed, detail: error.to_string(), error: Some(error) },
    }
}

fn put(store: &BlockingStore, key: &str, body: &Bytes) -> Result<String> {
    let meta = store.put(key, body.clone(), PutMode::Overwrite)?;
    Ok(format!("{} bytes written to {}", meta.bytes, store.location().url_of(key)))
}

fn head(store: &BlockingStore, key: &str, body: &Bytes) -> Result<String> {
    match store.head(key)? {
        Some(meta) if meta.bytes == body.len() as u64 => Ok(format!("{} bytes", meta.bytes)),
        Some(meta) => Err(wrong(format!("the store reports {} bytes instead of {}", meta.bytes, body.len()))),
        None => Err(wrong("the object just written is not there".to_owned())),
    }
}

fn range_get(store: &BlockingStore, key: &str, body: &Bytes) -> Result<String> {
    same(&store.get_range(key, 1000..1100)?, &body[1000..1100])
}

fn get(store: &BlockingStore, key: &str, body: &Bytes) -> Result<String> {
    same(&store.get(key)?, body)
}

fn list(store: &BlockingStore, key: &str) -> Result<String> {
    match store.list(key)?.iter().any(|meta| meta.key == key) {
        true => Ok("the object just written is listed".to_owned()),
        false => Err(wrong("the object just written is not listed".to_owned())),
    }
}

fn multipart(store: &BlockingStore, key: &str) -> Result<String> {
    let mut body = (0..253).collect::<Vec<u8>>().repeat(MULTIPART_BYTES / 253 + 1);
    body.truncate(MULTIPART_BYTES);
    let mut upload = store.upload(key)?;
    upload.write(Bytes::from(body.clone()))?;
    let meta = upload.finish()?;
    let end = MULTIPART_BYTES as u64;
    same(&store.get_range(key, end - 2048..end)?, &body[MULTIPART_BYTES - 2048..])?;
    Ok(format!("{} bytes written in parts and read back", meta.bytes))
}

fn delete(store: &BlockingStore, keys: &[&str]) -> Result<String> {
    for key in keys {
        store.delete(key)?;
    }
    for key in keys {
        if store.head(key)?.is_some() {
            return Err(wrong(format!("object {key} is still there after its delete")));
        }
    }
    Ok("the objects of this probe are gone".to_owned())
}

fn owner(store: &BlockingStore) -> Result<String> {
    Ok(match OwnerMarker::load(store)? {
        None => format!("nobody's: {OWNER_KEY} appears with the first archived object"),
        Some(owner) => {
            format!("system {} on timeline {}, since {}", owner.system_identifier, owner.timeline, owner.claimed_at)
        }
    })
}

fn same(seen: &[u8], expected: &[u8]) -> Result<String> {
    match seen == expected {
        true => Ok(format!("{} bytes equal what was written", seen.len())),
        false => Err(Error::new(ErrorKind::Corrupt, "the bytes read are not the bytes written")),
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Storage, message)
}
