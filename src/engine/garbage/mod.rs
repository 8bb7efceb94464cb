//! What a storage holds that nothing names, or names that it does not hold: `audit_storage` tells, `collect_garbage` removes.

mod audit;
mod collect;
mod family;
mod uploads;

pub use audit::{audit, newer_than_catalog};
pub use collect::{Options, collect, keep_out};

use archive_core::lifecycle::Moment;

use crate::catalog::finding::Finding;

/// Who found it, in the details of findings: only what an audit found is resolved by one.
const AUDIT: &str = "audit_storage";

/// How far the clocks of storage and database may be apart, in seconds.
const CLOCKS: i64 = 60;

/// How a listed object that is `kind` is recorded.
fn orphan(key: &str, bytes: u64, written: Option<i64>, kind: &'static str) -> Finding {
    let details = serde_json::json!({ "by": AUDIT, "bytes": bytes, "written": written.and_then(iso) });
    Finding { key: key.to_owned(), kind, partition: None, details }
}

/// Seconds since 1970 as RFC 3339 text.
fn iso(unix: i64) -> Option<String> {
    const UNIX_2000: i64 = 946_684_800;
    let Moment { year, month, day, hour, minute, second } = Moment::after_2000(unix - UNIX_2000)?;
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}
