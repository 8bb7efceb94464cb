//! `archive_ext.storage_finding`: what is wrong with objects in the storages.

use pgrx::{JsonB, pg_sys};

use crate::error::Result;
use crate::pg::server_text::warning;
use crate::pg::{spi, user};

/// Notes that something is wrong with an object, unless it is noted already; whether it is news. News are an event of the
/// partition, if it is one's, and a WARNING that names the object and what to do. Closes nothing.
pub fn record(
    storage: &str,
    key: &str,
    kind: &str,
    partition: Option<i64>,
    details: &serde_json::Value,
) -> Result<bool> {
    if !insert(storage, key, kind, partition, details)? {
        return Ok(false);
    }
    if let Some((table, name)) = partition.map(subject).transpose()?.flatten() {
        let told = serde_json::json!({ "storage": storage, "key": key, "kind": kind, "details": details });
        super::event::record(table, &name, "found", "ARCHIVED", None, told)?;
    }
    let what = details.get("what").and_then(serde_json::Value::as_str).map(|what| format!(": {what}"));
    warning!(
        "archive_ext: object \"{key}\" in storage \"{storage}\" is {kind}{}; {}",
        what.unwrap_or_default(),
        remedy(kind)
    );
    Ok(true)
}

/// What to do about a finding of this kind.
pub fn remedy(kind: &str) -> &'static str {
    match kind {
        "missing" | "altered" => {
            "put it back from a copy or an older version of the bucket; as long as there is a local copy, \
             reattach_partition and archive_partition write it anew"
        }
        "unreadable" => "its bytes are those that were written: see why they cannot be read, and verify_archive again",
        "foreign" => "archive_ext did not write it: move it elsewhere, or leave it",
        _ => "nothing refers to it: collect_garbage removes it",
    }
}

/// One at a time for each object, so that two sessions do not note the same.
fn insert(storage: &str, key: &str, kind: &str, partition: Option<i64>, details: &serde_json::Value) -> Result<bool> {
    let me = user::name_of(user::current());
    let added = user::elevated(|| {
        spi::execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('archive_ext finding ' || $1 || ' ' || $2, 0))",
            &[storage.into(), key.into()],
        )?;
        spi::execute(
            "INSERT INTO archive_ext.storage_finding (storage, key, kind, partition, details, found_by)
             SELECT $1::name, $2, $3, $4, $5, $6::name
             WHERE NOT EXISTS (SELECT FROM archive_ext.storage_finding f
                               WHERE f.storage = $1::name AND f.key = $2 AND f.kind = $3 AND f.resolved_at IS NULL)
             RETURNING 1",
            &[
                storage.into(),
                key.into(),
                kind.into(),
                partition.into(),
                JsonB(details.clone()).into(),
                me.as_str().into(),
            ],
        )
    })?;
    Ok(added > 0)
}

/// The table of a partition, if it is there, and the partition's name.
fn subject(partition: i64) -> Result<Option<(pg_sys::Oid, String)>> {
    user::elevated(|| {
        spi::optional(
            "SELECT c.oid, format('%I.%I', p.schema_name, p.partition_name) FROM archive_ext.partition p
             JOIN archive_ext.managed_table m ON m.id = p.managed_table JOIN pg_class c ON c.oid = m.source::oid
             WHERE p.id = $1",
            &[partition.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Closes the open findings of these kinds about an object; how many there were.
pub fn resolve(storage: &str, key: &str, kinds: &[&str]) -> Result<u64> {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.storage_finding SET resolved_at = clock_timestamp()
             WHERE storage = $1::name AND key = $2 AND kind = ANY ($3) AND resolved_at IS NULL",
            &[storage.into(), key.into(), kinds.into()],
        )
    })
}
