//! The directory store, the fault injector, owner and probe, and the façade over them.

use super::*;
use crate::codec::RangeReader;
use crate::error::{Error, ErrorKind};
use bytes::Bytes;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn no_poll() {}

struct Fixture {
    directory: tempfile::TempDir,
    faulty: FaultyStore,
    store: BlockingStore,
}

/// A directory store that does not exist yet below one that does, behind a fault injector.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let io = Arc::new(IoRuntime::new(|| ()).unwrap());
    let url = format!("file://{}/archive", directory.path().display());
    let options = StorageOptions::parse([("location", url.as_str())]).unwrap();
    let faulty = FaultyStore::new(open(&options, None, &io).unwrap());
    let store = BlockingStore::new(Arc::new(faulty.clone()), io, no_poll);
    Fixture { directory, faulty, store }
}

fn body(length: usize) -> Bytes {
    let mut bytes = (0..251).collect::<Vec<u8>>().repeat(length / 251 + 1);
    bytes.truncate(length);
    bytes.into()
}

#[test]
fn the_contract_holds_for_directory_and_injector() {
    let Fixture { store, directory: _keep, .. } = fixture();
    let inner = Arc::clone(store.store());
    let run = async move {
        contract::run(inner, 60).await;
        Ok(())
    };
    store.wait(run).unwrap();
}

#[test]
fn files_are_private_and_nothing_temporary_stays() {
    let Fixture { directory, store, .. } = fixture();
    store.put("a/b/c", body(10), PutMode::Overwrite).unwrap();
    store.put("a/b/c", body(10), PutMode::CreateOnly).unwrap_err();
    let base = directory.path().join("archive");
    let mode = |path: &str| std::fs::metadata(base.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("a"), mode("a/b"), mode("a/b/c")), (0o700, 0o700, 0o700, 0o600));
    assert_eq!(std::fs::read_dir(base.join("a/b")).unwrap().count(), 1);
}

#[test]
fn symbolic_links_lead_nowhere() {
    let Fixture { directory, store, .. } = fixture();
    let outside = directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), b"x").unwrap();
    store.put("real", body(1), PutMode::Overwrite).unwrap();
    let base = directory.path().join("archive");
    symlink(&outside, base.join("link")).unwrap();
    symlink(outside.join("secret"), base.join("file")).unwrap();
    for key in ["link/secret", "file"] {
        for error in [
            store.get(key).unwrap_err(),
            store.get_range(key, 0..1).unwrap_err(),
            store.head(key).unwrap_err(),
            store.put(key, body(1), PutMode::Overwrite).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        }
    }
    assert_eq!(store.delete("link/secret").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(store.upload("link/new").unwrap().finish().is_err());
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"x");
    assert_eq!(store.list("").unwrap().len(), 1);
}

#[test]
fn a_directory_whose_parent_is_missing_is_an_error_everywhere() {
    let io = Arc::new(IoRuntime::new(|| ()).unwrap());
    let options = StorageOptions::parse([("location", "file:///nonexistent/archive")]).unwrap();
    let store = BlockingStore::new(open(&options, None, &io).unwrap(), io, no_poll);
    for error in [
        store.list("").unwrap_err(),
        store.get("k").unwrap_err(),
        store.put("k", body(1), PutMode::Overwrite).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint_text().unwrap().contains("mounted"));
    }
}

#[test]
fn a_full_file_system_is_named() {
    // /dev/full is not a directory; what write says there is what a full file system says.
    let error = std::fs::OpenOptions::new().write(true).open("/dev/full").and_then(|mut f| {
        use std::io::Write;
        f.write_all(b"x")
    });
    let error = local::failed("write", std::path::Path::new("/x"), error.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::DiskFull);
}

/// An abort may go on in the background.
fn nothing_pending(store: &BlockingStore) {
    let begin = std::time::Instant::now();
    while !store.pending_uploads("").unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(5), "the upload dangles");
    }
}

#[test]
fn uploads_are_joined_dropped_and_aborted() {
    let Fixture { store, directory: _keep, .. } = fixture();
    let whole = body(20 * 1024 * 1024 + 5);
    let mut upload = store.upload("u").unwrap();
    let mut rest = whole.clone();
    while !rest.is_empty() {
        upload.write(rest.split_to(rest.len().min(3_000_000))).unwrap();
    }
    assert_eq!(upload.finish().unwrap().bytes, whole.len() as u64);
    assert!(store.get("u").unwrap() == whole);
    let mut dropped = store.upload("dropped").unwrap();
    dropped.write(body(9_000_000)).unwrap();
    drop(dropped);
    nothing_pending(&store);
    assert_eq!(store.list("").unwrap().len(), 1);
}

#[test]
fn errors_of_the_background_task_surface() {
    for op in [Op::BeginUpload, Op::Part, Op::Complete] {
        let Fixture { faulty, store, directory: _keep } = fixture();
        faulty.inject(op, 1, Fault::Error(ErrorKind::DiskFull));
        let mut upload = store.upload("u").unwrap();
        let error = upload.write(body(40_000_000)).and_then(|()| upload.finish().map(drop)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{op:?}");
        nothing_pending(&store);
        assert!(store.list("").unwrap().is_empty());
    }
}

#[test]
fn faults_do_what_they_say() {
    let Fixture { faulty, store, directory: _keep } = fixture();
    let put = |key: &str| store.put(key, body(100), PutMode::Overwrite);
    faulty.inject(Op::Put, 2, Fault::Truncate);
    put("a").unwrap();
    put("b").unwrap();
    assert_eq!((store.get("a").unwrap().len(), store.get("b").unwrap().len()), (100, 99));
    faulty.inject(Op::Get, 1, Fault::FlipBit);
    assert_ne!(store.get("a").unwrap(), body(100));
    assert_eq!(store.get("a").unwrap(), body(100));
    faulty.inject(Op::Put, 1, Fault::Lose);
    put("c").unwrap();
    assert_eq!(store.head("c").unwrap(), None);
    faulty.inject(Op::Put, 1, Fault::ErrorAfter(ErrorKind::Storage));
    put("d").unwrap_err();
    assert!(store.head("d").unwrap().is_some());
    faulty.inject(Op::Head, 1, Fault::Delay(Duration::from_millis(50)));
    let begin = std::time::Instant::now();
    store.head("d").unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(faulty.count(Op::Put), 4);
}

#[test]
fn ranges_are_joined_and_counted() {
    let Fixture { faulty, store, directory: _keep } = fixture();
    let whole = body(1_000_000);
    store.put("r", whole.clone(), PutMode::Overwrite).unwrap();
    let store = store.fork_metrics();
    let ranges = [900_000..900_010, 0..10, 1_000..1_010, 5..5];
    let read = store.reader("r", 1_000_000).read_ranges(&ranges).unwrap();
    for (range, bytes) in ranges.iter().zip(&read) {
        assert_eq!(*bytes, whole.slice(range.start as usize..range.end as usize));
    }
    assert_eq!(faulty.count(Op::GetRange), 2);
    let metrics = store.metrics();
    assert_eq!((metrics.requests, metrics.bytes_read, metrics.bytes_written), (2, 1_020, 0));
    let error = store.reader("r", 1_000_000).read_ranges(&[0..1, 0..1_000_001]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_paced_store_tells_every_byte_before_it_is_written_and_after_it_is_read() {
    static PACED: AtomicU64 = AtomicU64::new(0);
    let Fixture { store, directory: _keep, .. } = fixture();
    let store = store.paced(|bytes| {
        PACED.fetch_add(bytes, Ordering::SeqCst);
    });
    let mut expected = 0;
    let mut told = |bytes: u64| {
        expected += bytes;
        assert_eq!(PACED.load(Ordering::SeqCst), expected);
    };
    store.put("p", body(1_000), PutMode::Overwrite).unwrap();
    told(1_000);
    let mut upload = store.upload("u").unwrap();
    upload.write(body(20_000_000)).unwrap();
    upload.finish().unwrap();
    told(20_000_000);
    store.get("p").unwrap();
    told(1_000);
    store.get_range("p", 0..10).unwrap();
    told(10);
    store.reader("p", 1_000).read_ranges(&[0..5, 10..15]).unwrap();
    told(10);
}

fn identity(timeline: u32, incarnation: &str) -> OwnerIdentity {
    OwnerIdentity { system_identifier: "7".into(), timeline, incarnation: incarnation.into() }
}

fn at(text: &str) -> ClaimTime<'_> {
    ClaimTime { text, unix: 1_800_000_000 }
}

#[test]
fn a_claim_tells_whether_objects_were_there() {
    let me = identity(1, "aa");
    for (key, before) in [(None, None), (Some("_archive_ext/probe-1"), None), (Some("s.t/x"), Some(1_800_000_000))] {
        let Fixture { store, directory: _keep, .. } = fixture();
        if let Some(key) = key {
            store.put(key, Bytes::from_static(b"x"), PutMode::CreateOnly).unwrap();
        }
        assert_eq!(OwnerMarker::claim(&store, &me, at("x")).unwrap().objects_before, before, "{key:?}");
        // What comes later changes nothing, though the claim's transaction may have rolled back.
        store.put("s.t/y", Bytes::from_static(b"y"), PutMode::CreateOnly).unwrap();
        assert_eq!(OwnerMarker::claim(&store, &me, at("y")).unwrap().objects_before, before);
        assert!(OwnerMarker::adopt(&store, &me, at("z")).unwrap().objects_before.is_some());
    }
}

#[test]
fn one_owner_per_prefix() {
    let Fixture { store, directory: _keep, .. } = fixture();
    let (me, promoted, copy) = (identity(1, "aa"), identity(2, "aa"), identity(1, "bb"));
    assert_eq!(OwnerMarker::check(&store, &me).unwrap(), None);
    let marker = OwnerMarker::claim(&store, &me, at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(OwnerMarker::claim(&store, &me, at("2027-01-01T00:00:00Z")).unwrap(), marker);
    for other in [&promoted, &copy] {
        for error in
            [OwnerMarker::claim(&store, other, at("x")).unwrap_err(), OwnerMarker::check(&store, other).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::NotOwner);
            assert!(error.hint_text().unwrap().contains("adopt_storage"));
        }
    }
    OwnerMarker::adopt(&store, &promoted, at("2026-02-01T00:00:00Z")).unwrap();
    assert_eq!(OwnerMarker::claim(&store, &me, at("x")).unwrap_err().kind(), ErrorKind::NotOwner);
}

#[test]
fn a_lost_race_for_the_prefix_is_noticed() {
    let Fixture { faulty, store, directory: _keep } = fixture();
    OwnerMarker::claim(&store, &identity(1, "other"), at("x")).unwrap();
    // As on a server that ignores the condition: the first look saw nothing, the put seemed to succeed.
    faulty.inject(Op::Get, 1, Fault::Error(ErrorKind::NotFound));
    faulty.inject(Op::Put, 1, Fault::Error(ErrorKind::AlreadyExists));
    assert_eq!(OwnerMarker::claim(&store, &identity(1, "me"), at("x")).unwrap_err().kind(), ErrorKind::NotOwner);
}

#[test]
fn a_damaged_marker_is_neither_mine_nor_nobodys() {
    let Fixture { store, directory: _keep, .. } = fixture();
    for text in [
        "",
        "{}",
        "{\"format\":99,\"system_identifier\":\"7\",\"timeline\":1,\"incarnation\":\"aa\",\"claimed_at\":\"x\"}",
    ] {
        store.put(OWNER_KEY, Bytes::from(text.to_owned()), PutMode::Overwrite).unwrap();
        assert_eq!(OwnerMarker::claim(&store, &identity(1, "aa"), at("x")).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn the_probe_reports_every_check_and_leaves_nothing() {
    let Fixture { faulty, store, directory: _keep } = fixture();
    let names = |results: &[ProbeResult]| results.iter().map(|r| r.check).collect::<Vec<_>>();
    let results = probe(&store);
    assert_eq!(names(&results), ["put", "head", "range_get", "get", "list", "multipart", "delete", "owner"]);
    assert!(results.iter().all(|r| r.error.is_none() && !r.detail.is_empty()), "{results:?}");
    assert!(store.list("").unwrap().is_empty());
    faulty.inject(Op::Put, 1, Fault::Error(ErrorKind::PermissionDenied));
    faulty.inject(Op::Complete, 1, Fault::Lose);
    let failed: Vec<_> = probe(&store).into_iter().filter(|r| r.error.is_some()).map(|r| r.check).collect();
    assert_eq!(failed, ["put", "head", "range_get", "get", "list", "multipart"]);
    assert!(store.list("").unwrap().is_empty());
}

#[test]
fn errors_are_send() {
    fn send<T: Send + Sync>() {}
    send::<Error>();
    send::<BlockingStore>();
    send::<BlockingRangeReader>();
}
