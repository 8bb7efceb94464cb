// What every store must do, whatever is behind it. Compiled into the unit tests (local, faulty, an in-process server)
// and, by path, into tests/s3_contract.rs (a real server); hence only `super::` names.

use super::{ErrorKind, ObjectStore, PendingUpload, PutMode, Result};
use bytes::Bytes;
use std::sync::Arc;

const MIB: usize = 1024 * 1024;

/// A pattern that no part boundary is a multiple of; different for each seed.
fn bytes(length: usize, seed: usize) -> Bytes {
    let pattern: Vec<u8> = (0..251).map(|i| ((i * 7 + seed) % 256) as u8).collect();
    let mut bytes = pattern.repeat(length / 251 + 1);
    bytes.truncate(length);
    bytes.into()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Runs everything under a prefix of its own; `many` objects are listed (more than 1000 shows that pages are joined).
pub async fn run(store: Arc<dyn ObjectStore>, many: usize) {
    let prefix = format!("contract-{}", uuid::Uuid::new_v4().simple());
    objects(&*store, &prefix).await;
    create_only(&*store, &prefix).await;
    racing_creators(&store, &prefix).await;
    ranges(&*store, &prefix).await;
    odd_keys(&*store, &prefix).await;
    invalid_keys(&*store).await;
    listing(&store, &prefix, many).await;
    uploads(&*store, &prefix).await;
    aborted_uploads(&*store, &prefix).await;
    abandoned_uploads(&*store, &prefix).await;
    for meta in store.list(&prefix).await.unwrap() {
        store.delete(&meta.key).await.unwrap();
    }
    assert_eq!(store.list(&prefix).await.unwrap(), []);
}

async fn objects(store: &dyn ObjectStore, prefix: &str) {
    let key = format!("{prefix}/a/b.parquet");
    assert_eq!(store.head(&key).await.unwrap(), None);
    assert_eq!(kind(store.get(&key).await), ErrorKind::NotFound);
    assert_eq!(kind(store.get_range(&key, 0..1).await), ErrorKind::NotFound);
    store.delete(&key).await.unwrap();
    for body in [bytes(1000, 1), Bytes::new(), bytes(70_000, 2)] {
        let meta = store.put(&key, body.clone(), PutMode::Overwrite).await.unwrap();
        assert_eq!((meta.key.as_str(), meta.bytes), (key.as_str(), body.len() as u64));
        assert_eq!(store.get(&key).await.unwrap(), body);
        let head = store.head(&key).await.unwrap().unwrap();
        assert_eq!((head.key.as_str(), head.bytes), (key.as_str(), body.len() as u64));
        assert!(head.last_modified_unix.unwrap() > 1_600_000_000);
    }
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), None);
}

async fn create_only(store: &dyn ObjectStore, prefix: &str) {
    let key = format!("{prefix}/once");
    store.put(&key, bytes(10, 1), PutMode::CreateOnly).await.unwrap();
    assert_eq!(kind(store.put(&key, bytes(10, 2), PutMode::CreateOnly).await), ErrorKind::AlreadyExists);
    assert_eq!(store.get(&key).await.unwrap(), bytes(10, 1));
    store.put(&key, bytes(10, 3), PutMode::Overwrite).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), bytes(10, 3));
}

/// Whatever the server makes of the condition: who reads back its own bytes has won, and there is one of them.
async fn racing_creators(store: &Arc<dyn ObjectStore>, prefix: &str) {
    let key = format!("{prefix}/race");
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..8 {
        let (store, key) = (Arc::clone(store), key.clone());
        tasks.spawn(async move { store.put(&key, bytes(100, seed), PutMode::CreateOnly).await });
    }
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done.unwrap() {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        }
    }
    let seen = store.get(&key).await.unwrap();
    assert_eq!((0..8).filter(|seed| bytes(100, *seed) == seen).count(), 1);
}

async fn ranges(store: &dyn ObjectStore, prefix: &str) {
    let (key, body) = (format!("{prefix}/ranges"), bytes(100_000, 5));
    store.put(&key, body.clone(), PutMode::Overwrite).await.unwrap();
    for range in [0..1, 0..100_000, 99_999..100_000, 500..70_000, 7..7] {
        let expected = body.slice(range.start as usize..range.end as usize);
        assert_eq!(store.get_range(&key, range).await.unwrap(), expected);
    }
    for range in [99_999..100_001, 100_000..100_001, 200_000..200_010, 0..100_001] {
        assert_eq!(kind(store.get_range(&key, range).await), ErrorKind::Corrupt);
    }
}

async fn odd_keys(store: &dyn ObjectStore, prefix: &str) {
    for name in ["x=1/y=2/z", "b c+d%20&e.parquet", "größe/日本", "~a!'()*", "_manifests/p.v1.json", ".hidden", "a?b#c"]
    {
        let key = format!("{prefix}/odd/{name}");
        store.put(&key, bytes(9, 4), PutMode::CreateOnly).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), bytes(9, 4), "{key}");
        assert_eq!(store.list(&key).await.unwrap().len(), 1, "{key}");
        store.delete(&key).await.unwrap();
        assert_eq!(store.head(&key).await.unwrap(), None, "{key}");
    }
}

async fn invalid_keys(store: &dyn ObjectStore) {
    for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a\0b", ".tmp-x", "a/.tmp-x"] {
        assert_eq!(kind(store.put(key, Bytes::new(), PutMode::Overwrite).await), ErrorKind::InvalidParameter, "{key}");
        assert_eq!(kind(store.get(key).await), ErrorKind::InvalidParameter, "{key}");
        assert_eq!(kind(store.get_range(key, 0..1).await), ErrorKind::InvalidParameter, "{key}");
        assert_eq!(kind(store.head(key).await), ErrorKind::InvalidParameter, "{key}");
        assert_eq!(kind(store.delete(key).await), ErrorKind::InvalidParameter, "{key}");
        let begun = store.begin_upload(key).await;
        assert_eq!(begun.err().unwrap().kind(), ErrorKind::InvalidParameter, "{key}");
    }
    assert_eq!(kind(store.list("../").await), ErrorKind::InvalidParameter);
}

async fn listing(store: &Arc<dyn ObjectStore>, prefix: &str, many: usize) {
    let keys: Vec<String> = (0..many).map(|i| format!("{prefix}/list/d{}/k{i:05}", i % 3)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for chunk in keys.chunks(many.div_ceil(8)) {
        let (store, chunk) = (Arc::clone(store), chunk.to_vec());
        tasks.spawn(async move {
            for key in chunk {
                store.put(&key, bytes(3, 0), PutMode::Overwrite).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let listed = store.list(&format!("{prefix}/list/")).await.unwrap();
    let mut expected = keys.clone();
    expected.sort();
    assert_eq!(listed.iter().map(|m| m.key.clone()).collect::<Vec<_>>(), expected);
    assert!(listed.iter().all(|m| m.bytes == 3 && m.last_modified_unix.is_some()));
    // Page by page it is the same, in whatever order.
    let (mut paged, mut page) = (Vec::new(), None);
    loop {
        let (found, next) = store.list_page(&format!("{prefix}/list/"), page).await.unwrap();
        paged.extend(found);
        page = next;
        if page.is_none() {
            break;
        }
    }
    paged.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(paged, listed);
    // A prefix may cut a segment.
    assert_eq!(store.list(&format!("{prefix}/list/d0/k0000")).await.unwrap().len(), 4.min(many.div_ceil(3)));
    assert_eq!(store.list(&format!("{prefix}/list/none")).await.unwrap(), []);
    assert_eq!(store.list(&format!("{prefix}/lis")).await.unwrap().len(), many);
}

async fn uploads(store: &dyn ObjectStore, prefix: &str) {
    // Nothing, less than a part, exactly two parts, odd pieces over several parts.
    for (index, pieces) in
        [vec![], vec![1000], vec![8 * MIB, 8 * MIB], vec![3 * MIB, 11 * MIB, 7, 6 * MIB]].iter().enumerate()
    {
        let key = format!("{prefix}/upload/{index}");
        let whole = bytes(pieces.iter().sum(), index);
        let mut upload = store.begin_upload(&key).await.unwrap();
        let mut rest = whole.clone();
        for piece in pieces {
            upload.part(rest.split_to(*piece)).await.unwrap();
        }
        assert_eq!(store.head(&key).await.unwrap(), None, "visible before it is complete");
        let meta = upload.complete().await.unwrap();
        assert_eq!((meta.key.as_str(), meta.bytes), (key.as_str(), whole.len() as u64));
        assert!(store.get(&key).await.unwrap() == whole, "upload {index} reads back differently");
        let end = whole.len() as u64;
        let tail = store.get_range(&key, end.saturating_sub(10)..end).await.unwrap();
        assert_eq!(tail, whole.slice(whole.len().saturating_sub(10)..));
    }
    assert_eq!(pending(store, prefix).await, []);
}

async fn aborted_uploads(store: &dyn ObjectStore, prefix: &str) {
    for size in [0, 10, 20 * MIB] {
        let key = format!("{prefix}/aborted/{size}");
        let mut upload = store.begin_upload(&key).await.unwrap();
        upload.part(bytes(size, 0)).await.unwrap();
        upload.abort().await.unwrap();
        upload.abort().await.unwrap();
        assert_eq!(store.head(&key).await.unwrap(), None);
    }
    assert_eq!(pending(store, prefix).await, []);
}

/// As after `kill -9`.
async fn abandoned_uploads(store: &dyn ObjectStore, prefix: &str) {
    let key = format!("{prefix}/abandoned/x");
    let mut upload = store.begin_upload(&key).await.unwrap();
    upload.part(bytes(17 * MIB, 0)).await.unwrap();
    std::mem::forget(upload);
    let left = pending(store, prefix).await;
    assert_eq!(left.len(), 1);
    assert!(store.list(&format!("{prefix}/abandoned/")).await.unwrap().is_empty());
    // A part may still be on its way.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for _ in 0..2 {
        store.abort_pending(&left[0]).await.unwrap();
    }
    assert_eq!(pending(store, prefix).await, []);
}

async fn pending(store: &dyn ObjectStore, prefix: &str) -> Vec<PendingUpload> {
    store.pending_uploads(prefix).await.unwrap()
}
