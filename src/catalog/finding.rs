//! `archive_ext.storage_finding`: what is wrong with objects in the storages.

use std::collections::HashMap;

use crate::error::Result;
use crate::pg::server_text::warning;
use crate::pg::{interrupts, spi, user};

/// Something that is wrong with an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its key.
    pub key: String,
    /// `missing`, `altered`, `foreign`, `orphaned` or `unreadable`.
    pub kind: &'static str,
    /// The partition that it belongs to.
    pub partition: Option<i64>,
    /// More about it.
    pub details: serde_json::Value,
}

/// Findings recorded by one statement.
const AT_ONCE: usize = 1000;

/// Records findings, unless they are known and not resolved; how many are new. One that belongs to a partition is also an event of its table.
pub fn record_all(storage: &str, findings: &[Finding]) -> Result<u64> {
    let me = user::name_of(user::current());
    let mut new = 0;
    for some in findings.chunks(AT_ONCE) {
        interrupts::check();
        one_at_a_time(storage)?;
        let texts = |text: fn(&Finding) -> String| some.iter().map(text).collect::<Vec<_>>();
        let details = texts(|finding| finding.details.to_string());
        let partitions = texts(|finding| finding.partition.map_or_else(String::new, |id| id.to_string()));
        new += user::elevated(|| {
            spi::execute(
                "WITH new AS (
                   INSERT INTO archive_ext.storage_finding (storage, key, kind, partition, details, found_by)
                   SELECT $1::name, n.key, n.kind, p.id, n.details::jsonb, $6::name
                   FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS n (key, kind, partition, details)
                   LEFT JOIN archive_ext.partition p ON p.id = nullif(n.partition, '')::bigint
                   WHERE NOT EXISTS (SELECT FROM archive_ext.storage_finding f
                                     WHERE f.storage = $1::name AND f.key = n.key AND f.kind = n.kind AND f.resolved_at IS NULL)
                   RETURNING key, kind, partition, details),
                 told AS (
                   INSERT INTO archive_ext.lifecycle_event (table_name, partition_name, event, status, actor, details)
                   SELECT m.source, format('%I.%I', p.schema_name, p.partition_name), 'object ' || new.kind, p.status, $6::name,
                          jsonb_build_object('storage', $1, 'key', new.key, 'kind', new.kind, 'details', new.details)
                   FROM new JOIN archive_ext.partition p ON p.id = new.partition
                   JOIN archive_ext.managed_table m ON m.id = p.managed_table)
                 SELECT 1 FROM new",
                &[
                    storage.into(),
                    texts(|finding| finding.key.clone()).into(),
                    texts(|finding| finding.kind.to_owned()).into(),
                    partitions.into(),
                    details.into(),
                    me.as_str().into(),
                ],
            )
        })?;
    }
    Ok(new)
}

/// Two sessions do not note the same.
fn one_at_a_time(storage: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('archive_ext findings ' || $1, 0))",
            &[storage.into()],
        )
    })?;
    Ok(())
}

/// Records one, with a WARNING that names the object and what to do if it is new.
pub fn record(storage: &str, finding: Finding) -> Result<()> {
    if record_all(storage, std::slice::from_ref(&finding))? == 0 {
        return Ok(());
    }
    let Finding { key, kind, details, .. } = &finding;
    let what = details.get("what").and_then(serde_json::Value::as_str).map(|what| format!(": {what}"));
    warning!(
        "archive_ext: object \"{key}\" in storage \"{storage}\" is {kind}{}; {}",
        what.unwrap_or_default(),
        remedy(kind)
    );
    Ok(())
}

/// What to do about a finding of this kind.
fn remedy(kind: &str) -> &'static str {
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

/// Notes that what was found about objects is so no more: one of these kinds.
pub fn resolve_all(storage: &str, keys: &[String], kinds: &[&str]) -> Result<()> {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.storage_finding SET resolved_at = clock_timestamp()
             WHERE storage = $1::name AND key = ANY ($2) AND kind = ANY ($3) AND resolved_at IS NULL",
            &[storage.into(), keys.to_vec().into(), kinds.into()],
        )
    })?;
    Ok(())
}

/// What is found and not resolved: key and kind, since when (in seconds since 1970), and whether `found_by` is who found it, as its
/// details say.
pub fn unresolved(storage: &str, found_by: &str) -> Result<HashMap<(String, String), (i64, bool)>> {
    let found = user::elevated(|| {
        spi::rows(
            "SELECT key, kind, floor(extract(epoch FROM min(found_at)))::bigint, bool_or(coalesce(details ->> 'by' = $2, false))
             FROM archive_ext.storage_finding WHERE storage = $1::name AND resolved_at IS NULL GROUP BY key, kind",
            &[storage.into(), found_by.into()],
            |row| Ok(((row.need(1)?, row.need(2)?), (row.need(3)?, row.need(4)?))),
        )
    })?;
    Ok(found.into_iter().collect())
}

/// Whether damage of a partition's objects is known and not resolved.
pub fn any(partition: i64) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.storage_finding WHERE partition = $1 AND resolved_at IS NULL
                            AND kind IN ('missing', 'altered', 'unreadable'))",
            &[partition.into()],
            |row| row.need(1),
        )
    })
}
