//! `archive_ext.storage_finding`: what is wrong with storages.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::Result;
use crate::pg::{spi, user};

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
    pub details: Value,
}

/// Records that an object of a storage is `missing`, `altered`, `foreign`, `orphaned` or `unreadable`, unless that is known and not
/// resolved; whether it is new. One that belongs to a partition is also an event of its table.
pub fn record(storage: &str, key: &str, kind: &str, partition: Option<i64>, details: &Value) -> Result<bool> {
    let me = user::name_of(user::current());
    user::elevated(|| {
        let new = spi::execute(
            "INSERT INTO archive_ext.storage_finding (storage, key, kind, partition, details, found_by)
             SELECT $1::name, $2, $3, (SELECT p.id FROM archive_ext.partition p WHERE p.id = $4), $5::jsonb, $6::name
             WHERE NOT EXISTS (SELECT FROM archive_ext.storage_finding f
                               WHERE f.storage = $1::name AND f.key = $2 AND f.kind = $3 AND f.resolved_at IS NULL)
             RETURNING 1",
            &[
                storage.into(),
                key.into(),
                kind.into(),
                partition.into(),
                details.to_string().as_str().into(),
                me.as_str().into(),
            ],
        )?;
        if new > 0 && partition.is_some() {
            spi::execute(
                "INSERT INTO archive_ext.lifecycle_event (table_name, partition_name, event, status, actor, details)
                 SELECT m.source, format('%I.%I', p.schema_name, p.partition_name), 'object ' || $2, p.status, $3::name,
                        jsonb_build_object('storage', $4::text, 'key', $5::text)
                 FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table WHERE p.id = $1",
                &[partition.into(), kind.into(), me.as_str().into(), storage.into(), key.into()],
            )?;
        }
        Ok(new > 0)
    })
}

/// Notes that what was found about an object is so no more: one of these kinds.
pub fn resolve(storage: &str, key: &str, kinds: &[&str]) -> Result<()> {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.storage_finding SET resolved_at = clock_timestamp()
             WHERE storage = $1::name AND key = $2 AND kind = ANY ($3) AND resolved_at IS NULL",
            &[storage.into(), key.into(), kinds.into()],
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
