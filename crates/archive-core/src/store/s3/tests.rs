//! S3 against an in-process server that misbehaves: retries, bounds, lost answers, nothing dangling, no secrets.

use crate::error::{Error, ErrorKind, Result};
use crate::store::test_server::{TestServer, Wire};
use crate::store::{
    BlockingStore, Credentials, IoRuntime, LockMode, OWNER_KEY, ObjectStore, PutMode, StorageOptions,
    UserMappingOptions, contract, open,
};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECRET: &str = "tOpSeCrEtKeY";
const MIB: usize = 1024 * 1024;

struct Fixture {
    server: TestServer,
    io: Arc<IoRuntime>,
    store: BlockingStore,
}

fn no_poll() {}

fn fixture(more: &[(&str, &str)]) -> Fixture {
    fixture_polling(more, no_poll)
}

fn fixture_polling(more: &[(&str, &str)], poll: fn()) -> Fixture {
    let server = TestServer::start();
    let io = Arc::new(IoRuntime::new(|| ()).unwrap());
    let store = BlockingStore::new(store_at(&server.endpoint(), more, &io), Arc::clone(&io), poll);
    Fixture { server, io, store }
}

fn store_at(endpoint: &str, more: &[(&str, &str)], io: &IoRuntime) -> Arc<dyn ObjectStore> {
    let mut options = vec![
        ("location", "s3://bucket/pre/fix"),
        ("endpoint", endpoint),
        ("max_attempts", "3"),
        ("retry_backoff", "1ms"),
    ];
    options.extend_from_slice(more);
    let options = StorageOptions::parse(options).unwrap();
    let keys = UserMappingOptions::parse([("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", SECRET)]).unwrap();
    open(&options, Some(Credentials::Static(keys)), io).unwrap()
}

fn body(length: usize) -> Bytes {
    let mut bytes = (0..251).collect::<Vec<u8>>().repeat(length / 251 + 1);
    bytes.truncate(length);
    bytes.into()
}

/// One call of each kind; each is one operation of that name at the server.
fn call(store: &BlockingStore, op: &str) -> Result<()> {
    match op {
        "Put" => store.put("k", body(100), PutMode::Overwrite).map(drop),
        "Get" => store.get("k").map(|bytes| assert_eq!(bytes, body(100))),
        "Head" => store.head("k").map(|meta| assert_eq!(meta.unwrap().bytes, 100)),
        "List" => store.list("").map(|listed| assert_eq!(listed.len(), 1)),
        "Delete" => store.delete("other"),
        _ => {
            let mut upload = store.upload("big")?;
            upload.write(body(9 * MIB))?;
            upload.finish().map(drop)
        }
    }
}

const OPERATIONS: [&str; 8] = ["Put", "Get", "Head", "List", "Delete", "CreateUpload", "Part", "Complete"];

fn prepared(more: &[(&str, &str)]) -> Fixture {
    let fixture = fixture(more);
    call(&fixture.store, "Put").unwrap();
    fixture
}

#[test]
fn the_contract_holds() {
    let Fixture { io, store, .. } = fixture(&[]);
    let store = Arc::clone(store.store());
    io.wait(
        async move {
            contract::run(store, 250).await;
            Ok(())
        },
        no_poll,
    )
    .unwrap();
}

#[test]
fn transient_faults_are_retried_in_every_operation() {
    for wire in [Wire::Status(500, "InternalError"), Wire::Status(503, "SlowDown"), Wire::Reset] {
        for op in OPERATIONS {
            let Fixture { server, store, .. } = prepared(&[]);
            let before = server.count(op);
            server.fail(op, 2, wire);
            call(&store, op).unwrap_or_else(|error| panic!("{op} with {wire:?}: {error}"));
            assert!(server.count(op) - before >= 3, "{op}");
        }
    }
}

#[test]
fn attempts_are_bounded_and_the_error_says_what_happened() {
    for op in ["Put", "Get", "Head", "List", "Delete", "CreateUpload", "Complete"] {
        let Fixture { server, store, .. } = prepared(&[]);
        let before = server.count(op);
        server.fail(op, 99, Wire::Status(503, "SlowDown"));
        let error = call(&store, op).unwrap_err();
        assert_eq!(server.count(op) - before, 3, "{op}");
        assert_eq!(error.kind(), ErrorKind::Storage);
        let detail = error.detail_text().unwrap();
        assert!(detail.contains("503") && detail.contains("Attempts made: 3"), "{detail}");
        if op != "Head" {
            assert!(detail.contains("SlowDown") && detail.contains("REQ1"), "{detail}");
        }
    }
}

#[test]
fn refusals_are_not_retried() {
    for (status, code, kind) in [
        (403, "AccessDenied", ErrorKind::PermissionDenied),
        (403, "InvalidObjectState", ErrorKind::NeedsRestore),
        (404, "NoSuchBucket", ErrorKind::NotFound),
        (400, "InvalidRequest", ErrorKind::Storage),
    ] {
        let Fixture { server, store, .. } = prepared(&[]);
        server.fail("Get", 99, Wire::Status(status, code));
        assert_eq!(store.get("k").unwrap_err().kind(), kind);
        assert_eq!(server.count("Get"), 1);
    }
}

#[test]
fn bodies_that_end_early_are_read_again() {
    for wire in [Wire::Truncate, Wire::Short] {
        let Fixture { server, store, .. } = prepared(&[]);
        server.fail("Get", 2, wire);
        assert_eq!(store.get_range("k", 10..90).unwrap(), body(100).slice(10..90));
        server.fail("Get", 99, wire);
        let error = store.get_range("k", 10..90).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
        assert_eq!(server.count("Get"), 6);
    }
    let Fixture { server, store, .. } = prepared(&[]);
    server.fail("Get", 2, Wire::Truncate);
    assert_eq!(store.get("k").unwrap(), body(100));
}

#[test]
fn wrong_bytes_are_caught_by_the_stored_checksum() {
    let Fixture { server, store, .. } = prepared(&[]);
    server.fail("Get", 1, Wire::FlipBit);
    assert_eq!(store.get("k").unwrap(), body(100));
    server.fail("Get", 99, Wire::FlipBit);
    let error = store.get("k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn silence_is_a_timeout_and_retried() {
    let Fixture { server, store, .. } = prepared(&[("request_timeout", "200ms")]);
    let late = Duration::from_secs(2);
    let begin = Instant::now();
    for wire in [Wire::Stall(late), Wire::StallBody(late)] {
        server.fail("Get", 1, wire);
        assert_eq!(store.get("k").unwrap(), body(100));
    }
    assert!(begin.elapsed() < late);
    server.fail("Get", 99, Wire::Stall(late));
    let error = store.get("k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.hint_text().unwrap().contains("request_timeout"), "{error:?}");
    assert!(begin.elapsed() < late);
}

#[test]
fn nobody_listening_fails_at_once_with_the_reason() {
    let io = Arc::new(IoRuntime::new(|| ()).unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = BlockingStore::new(store_at(&format!("http://127.0.0.1:{port}"), &[], &io), io, no_poll);
    let error = store.get("k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.detail_text().unwrap().to_lowercase().contains("refused"), "{error}");
    assert!(error.hint_text().unwrap().contains("endpoint"));
}

#[test]
fn a_created_object_whose_answer_was_lost_is_ours() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("Put", 1, Wire::ResetAfter);
    store.put("k", body(100), PutMode::CreateOnly).unwrap();
    assert_eq!(server.count("Put"), 2);
    let error = store.put("k", body(100), PutMode::CreateOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_server_that_knows_no_condition_gets_none() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("Put", 1, Wire::Status(501, "NotImplemented"));
    store.put("k", body(100), PutMode::CreateOnly).unwrap();
    assert!(!server.last("Put").headers.contains_key("if-none-match"));
}

#[test]
fn a_completion_whose_answer_was_lost_is_recognised() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("Complete", 1, Wire::ResetAfter);
    call(&store, "Complete").unwrap();
    assert_eq!(server.count("Complete"), 2);
    assert_eq!(store.get("big").unwrap(), body(9 * MIB));
    assert_eq!(server.uploads(), 0);
}

#[test]
fn an_upload_begun_by_a_lost_answer_is_aborted() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("CreateUpload", 1, Wire::ResetAfter);
    call(&store, "Part").unwrap();
    assert_eq!((server.count("CreateUpload"), server.uploads()), (2, 0));
    server.fail("CreateUpload", 3, Wire::ResetAfter);
    call(&store, "Part").unwrap_err();
    wait_until(|| server.uploads() == 0);
}

fn wait_until(done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(3), "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_failed_part_surfaces_and_the_upload_is_aborted() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("Part", 99, Wire::Status(403, "AccessDenied"));
    let mut upload = store.upload("big").unwrap();
    let error = loop {
        if let Err(error) = upload.write(body(8 * MIB)) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    drop(upload);
    wait_until(|| server.uploads() == 0);
    assert!(server.keys().is_empty());
}

#[test]
fn dropping_an_upload_aborts_it_at_the_store() {
    let Fixture { server, store, .. } = fixture(&[]);
    let mut upload = store.upload("big").unwrap();
    upload.write(body(30 * MIB)).unwrap();
    wait_until(|| server.uploads() == 1);
    let begin = Instant::now();
    drop(upload);
    assert!(begin.elapsed() < Duration::from_secs(1));
    wait_until(|| server.uploads() == 0);
    assert!(server.keys().is_empty());
}

#[test]
fn dropping_while_the_upload_is_being_begun_aborts_it_too() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("CreateUpload", 1, Wire::Stall(Duration::from_millis(900)));
    let mut upload = store.upload("big").unwrap();
    upload.write(body(9 * MIB)).unwrap();
    wait_until(|| server.count("CreateUpload") == 1);
    let begin = Instant::now();
    drop(upload);
    assert!(begin.elapsed() < Duration::from_millis(800), "a drop must not wait for a slow store");
    wait_until(|| server.count("Abort") >= 1 && server.uploads() == 0);
}

#[test]
fn a_cancel_unwinds_and_leaves_no_upload() {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    fn poll() {
        assert!(!CANCELLED.load(Ordering::SeqCst), "cancelled");
    }
    let Fixture { server, store, .. } = fixture_polling(&[], poll);
    server.fail("Part", 99, Wire::Stall(Duration::from_secs(5)));
    let piece = body(8 * MIB);
    let begin = Instant::now();
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(300));
        CANCELLED.store(true, Ordering::SeqCst);
    });
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut upload = store.upload("big").unwrap();
        loop {
            upload.write(piece.clone()).unwrap();
        }
    }));
    assert!(unwound.is_err());
    assert!(begin.elapsed() < Duration::from_millis(1800), "a cancel takes {:?}", begin.elapsed());
    wait_until(|| server.uploads() == 0);
    assert!(server.keys().is_empty());
}

#[test]
fn a_cancel_interrupts_any_wait_within_a_second() {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    fn poll() {
        assert!(!CANCELLED.load(Ordering::SeqCst), "cancelled");
    }
    let Fixture { server, store, .. } = fixture_polling(&[], poll);
    for op in ["Put", "Get", "Head", "List", "Delete", "Complete"] {
        CANCELLED.store(false, Ordering::SeqCst);
        server.fail(op, 1, Wire::Stall(Duration::from_secs(4)));
        let canceller = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            CANCELLED.store(true, Ordering::SeqCst);
        });
        let begin = Instant::now();
        assert!(catch_unwind(AssertUnwindSafe(|| call(&store, op))).is_err(), "{op}");
        assert!(begin.elapsed() < Duration::from_millis(1900), "{op} took {:?}", begin.elapsed());
        canceller.join().unwrap();
    }
}

#[test]
fn at_exit_every_upload_is_aborted() {
    let Fixture { server, io, store } = fixture(&[]);
    let mut uploads: Vec<_> = (0..3).map(|i| store.upload(&format!("big{i}")).unwrap()).collect();
    for upload in &mut uploads {
        upload.write(body(9 * MIB)).unwrap();
    }
    wait_until(|| server.uploads() == 3);
    assert!(io.abort_uploads(Duration::from_secs(2)));
    assert_eq!(server.uploads(), 0);
    for upload in uploads {
        assert_eq!(upload.finish().unwrap_err().message(), "the upload was aborted");
    }
}

#[test]
fn attributes_go_where_they_belong() {
    let options = [
        ("storage_class", "STANDARD_IA"),
        ("sse", "aws:kms"),
        ("kms_key_id", "key-1"),
        ("object_lock", "GOVERNANCE 10 years"),
    ];
    let Fixture { server, store, .. } = fixture(&options);
    let headers = |op: &str, name: &str| server.last(op).headers.get(name).cloned();
    let sent = |key: &str| {
        store.put(key, body(5), PutMode::Overwrite).unwrap();
        assert_eq!(server.last("Put").key, format!("pre/fix/{key}"));
        assert_eq!(headers("Put", "x-amz-server-side-encryption-aws-kms-key-id").as_deref(), Some("key-1"));
        (headers("Put", "x-amz-storage-class").is_some(), headers("Put", "x-amz-object-lock-mode").is_some())
    };
    assert_eq!(sent("s.t/p.v1.00000.parquet"), (true, true));
    assert_eq!(sent("s.t/_manifests/p.v1.json"), (false, true));
    assert_eq!(sent(OWNER_KEY), (false, false));
    assert_eq!(sent("_archive_ext/removed/20260101.ab.json"), (false, true));
    assert_eq!(sent("_archive_ext/probe-1"), (true, false));
    call(&store, "CreateUpload").unwrap();
    assert_eq!(headers("CreateUpload", "x-amz-storage-class").as_deref(), Some("STANDARD_IA"));
    assert_eq!(headers("CreateUpload", "x-amz-object-lock-mode").as_deref(), Some("GOVERNANCE"));
    assert_eq!(headers("CreateUpload", "x-amz-checksum-algorithm").as_deref(), Some("CRC32C"));
    assert!(headers("Part", "x-amz-checksum-crc32c").is_some(), "checksums are headers, not trailers");
    assert!(headers("Part", "content-encoding").is_none());
    assert_eq!(server.last("Part").query["partNumber"].len(), 1);
}

#[test]
fn what_the_store_does_not_lock_is_not_written() {
    let Fixture { server, store, .. } = fixture(&[("object_lock", "COMPLIANCE 1 year")]);
    let key = "s.t/p.v1.00000.parquet";
    let write = |size| {
        let mut upload = store.upload(key).unwrap();
        upload.write(body(size)).unwrap();
        upload.finish()
    };
    assert!(store.put(key, body(5), PutMode::CreateOnly).is_ok() && write(5).is_ok() && write(9 * MIB).is_ok());
    let kept = store.head(key).unwrap().unwrap().kept;
    assert!(kept.retention.is_some_and(|(mode, _)| mode == LockMode::Compliance) && !kept.held);
    assert_eq!(server.count("Retention"), 0);
    server.forget_locks();
    for error in [store.put("other", body(5), PutMode::CreateOnly), write(5), write(9 * MIB)].map(Result::unwrap_err) {
        assert_eq!((error.kind(), error.message().contains("not locked")), (ErrorKind::Unsupported, true), "{error}");
    }
    // Who may not ask is not told.
    server.fail("Retention", 1, Wire::Status(403, "AccessDenied"));
    assert!(write(5).is_ok());
    assert!(store.put(OWNER_KEY, body(5), PutMode::Overwrite).is_ok());
}

#[test]
fn a_refused_delete_says_until_when() {
    let Fixture { server, store, .. } = fixture(&[("object_lock", "GOVERNANCE 10 years")]);
    store.put("locked", body(5), PutMode::Overwrite).unwrap();
    server.fail("Delete", 1, Wire::Status(403, "AccessDenied"));
    let error = store.delete("locked").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.detail_text().unwrap().starts_with("It is retained until 20"), "{error}");
    assert!(error.detail_text().unwrap().ends_with("Z, mode GOVERNANCE."), "{error}");
    assert!(error.lasts_until().is_some_and(|until| until > super::client::now()));
    // What is not locked was refused for another reason.
    store.put(OWNER_KEY, body(5), PutMode::Overwrite).unwrap();
    server.fail("Delete", 1, Wire::Status(403, "AccessDenied"));
    let error = store.delete(OWNER_KEY).unwrap_err();
    assert_eq!((error.kind(), error.lasts_until()), (ErrorKind::PermissionDenied, None));
}

#[test]
fn without_checksums_none_are_sent() {
    let Fixture { server, store, .. } = fixture(&[("checksum", "none")]);
    call(&store, "Put").unwrap();
    call(&store, "Part").unwrap();
    for op in ["Put", "Part", "CreateUpload"] {
        let headers = server.last(op).headers;
        assert!(!headers.keys().any(|name| name.starts_with("x-amz-checksum")), "{op}: {headers:?}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let Fixture { server, store, .. } = fixture(&[]);
    server.fail("Get", 99, Wire::Status(403, "SignatureDoesNotMatch"));
    let error: Error = store.get("k").unwrap_err();
    let text = format!("{store:?} {error:?} {error}");
    assert!(!text.contains(SECRET), "{text}");
    assert!(!text.contains("AKIAEXAMPLE"), "{text}");
}

#[test]
fn s3_without_credentials_is_refused_with_the_remedy() {
    let options = StorageOptions::parse([("location", "s3://bucket")]).unwrap();
    let error = open(&options, None, &IoRuntime::new(|| ()).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.hint_text().unwrap().contains("CREATE USER MAPPING"));
}
