//! The store contract, owner and probe against a real S3 server. `make test` starts one and sets:
//!
//! * `ARCHIVE_EXT_TEST_S3_ENDPOINT` (required: absent, the test fails), such as `http://127.0.0.1:4566`
//! * `ARCHIVE_EXT_TEST_S3_BUCKET` (default `archive-ext-test`; must exist)
//! * `ARCHIVE_EXT_TEST_S3_ACCESS_KEY`, `ARCHIVE_EXT_TEST_S3_SECRET_KEY` (default `test`)
//! * `ARCHIVE_EXT_TEST_S3_CHECKS_KEYS=1` when the server verifies signatures
//! * `ARCHIVE_EXT_TEST_S3_CHECKSUMS` (default `crc32c,none,sha256`; moto returns a wrong crc64nvme for multipart objects)
//!
//! `cargo test -p archive-core --features s3-contract --test s3_contract`

// A test may unwrap; Clippy's allowance covers only functions marked #[test] here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../src/store/contract.rs"]
mod contract;

use archive_core::store::{
    BlockingStore, ClaimTime, Credentials, IoRuntime, ObjectStore, OwnerIdentity, OwnerMarker, PendingUpload, PutMode,
    StorageOptions, UserMappingOptions, open, probe,
};
use archive_core::{ErrorKind, Result};
use bytes::Bytes;
use std::sync::Arc;

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn endpoint() -> String {
    std::env::var("ARCHIVE_EXT_TEST_S3_ENDPOINT").expect("ARCHIVE_EXT_TEST_S3_ENDPOINT must name an S3 server")
}

fn store_with(io: &IoRuntime, bucket: &str, prefix: &str, secret: &str, more: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
    let location = format!("s3://{bucket}{prefix}");
    let endpoint = endpoint();
    let mut options = vec![("location", location.as_str()), ("endpoint", endpoint.as_str()), ("max_attempts", "3")];
    options.extend_from_slice(more);
    let options = StorageOptions::parse(options).unwrap();
    let access = variable("ARCHIVE_EXT_TEST_S3_ACCESS_KEY", "test");
    let keys = UserMappingOptions::parse([("access_key_id", access.as_str()), ("secret_access_key", secret)]).unwrap();
    open(&options, Some(Credentials::Static(keys)), io).unwrap()
}

fn store(io: &IoRuntime, prefix: &str, more: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
    let secret = variable("ARCHIVE_EXT_TEST_S3_SECRET_KEY", "test");
    store_with(io, &variable("ARCHIVE_EXT_TEST_S3_BUCKET", "archive-ext-test"), prefix, &secret, more)
}

fn no_poll() {}

fn unique() -> String {
    format!("/t-{}", uuid::Uuid::new_v4().simple())
}

fn run_contract(io: &IoRuntime, store: Arc<dyn ObjectStore>, many: usize) {
    let run = async move {
        contract::run(store, many).await;
        Ok(())
    };
    io.wait(run, no_poll).unwrap();
}

#[test]
fn the_contract_holds_with_every_checksum() {
    let io = IoRuntime::new(|| ()).unwrap();
    for (index, checksum) in variable("ARCHIVE_EXT_TEST_S3_CHECKSUMS", "crc32c,none,sha256").split(',').enumerate() {
        let store = store(&io, "/deep/prefix", &[("checksum", checksum)]);
        let many = if index == 0 { 1010 } else { 10 };
        run_contract(&io, store, many);
    }
}

#[test]
fn the_contract_holds_without_a_prefix() {
    let io = IoRuntime::new(|| ()).unwrap();
    let store = store(&io, "", &[]);
    run_contract(&io, store, 10);
}

#[test]
fn a_bucket_that_is_missing_is_named() {
    let io = IoRuntime::new(|| ()).unwrap();
    let store = store_with(&io, "no-such-bucket-here", "", &variable("ARCHIVE_EXT_TEST_S3_SECRET_KEY", "test"), &[]);
    let store = BlockingStore::new(store, Arc::new(io), no_poll);
    for error in [
        store.put("k", Bytes::from_static(b"x"), PutMode::Overwrite).unwrap_err(),
        store.get("k").unwrap_err(),
        store.list("").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.hint_text().unwrap().contains("no-such-bucket-here"));
    }
}

#[test]
fn a_wrong_key_is_refused_and_not_shown() {
    let io = IoRuntime::new(|| ()).unwrap();
    let bucket = variable("ARCHIVE_EXT_TEST_S3_BUCKET", "archive-ext-test");
    let store = store_with(&io, &bucket, "", "wrongwrongwrong", &[]);
    let listed = BlockingStore::new(store, Arc::new(io), no_poll).list("");
    if variable("ARCHIVE_EXT_TEST_S3_CHECKS_KEYS", "0") != "1" {
        assert!(listed.is_ok(), "the server checks keys: set ARCHIVE_EXT_TEST_S3_CHECKS_KEYS=1");
        return;
    }
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(!format!("{error} {error:?}").contains("wrongwrongwrong"));
}

#[test]
fn an_upload_dropped_on_the_way_leaves_nothing() {
    let io = Arc::new(IoRuntime::new(|| ()).unwrap());
    let store = BlockingStore::new(store(&io, &unique(), &[]), io, no_poll);
    let mut upload = store.upload("dropped").unwrap();
    upload.write(Bytes::from(vec![7; 40 * 1024 * 1024])).unwrap();
    drop(upload);
    let begin = std::time::Instant::now();
    while !store.pending_uploads("").unwrap().is_empty() {
        assert!(begin.elapsed().as_secs() < 5, "the upload dangles");
    }
    assert_eq!(store.head("dropped").unwrap(), None);
}

#[test]
fn probe_and_owner() {
    let io = Arc::new(IoRuntime::new(|| ()).unwrap());
    let store = BlockingStore::new(store(&io, &unique(), &[]), io, no_poll);
    for result in probe(&store) {
        assert!(result.error.is_none(), "{result:?}");
    }
    assert!(store.list("").unwrap().is_empty(), "the probe leaves nothing");
    let me = |timeline| OwnerIdentity { system_identifier: "1".into(), timeline, incarnation: "ab".into() };
    let now = ClaimTime { text: "2026-01-01T00:00:00Z", unix: 1_767_225_600 };
    OwnerMarker::claim(&store, &me(1), now).unwrap();
    assert_eq!(OwnerMarker::claim(&store, &me(2), now).unwrap_err().kind(), ErrorKind::NotOwner);
}
