//! What the keys of partitioned tables tell the time by: their types, and for ids what the policy says.

use archive_core::lifecycle::{Epoch, TimeKey};
use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// SQL for the epoch of policy `p` in milliseconds since 1970; NULL where its ids are no snowflakes.
pub const EPOCH_MILLIS: &str = "(extract(epoch FROM p.key_epoch) * 1000)::bigint";

/// SQL for the type of the first key column of partitioned table `k`, `a` being that column, and the epoch of ids in it: the
/// policy's, where the column is the one by which the root is partitioned.
pub const TYPE_AND_EPOCH: &str = "format_type(a.atttypid, NULL),
    (SELECT (extract(epoch FROM p.key_epoch) * 1000)::bigint FROM archive_ext.archive_policy p
     JOIN pg_partitioned_table r ON r.partrelid = p.source::oid
     JOIN pg_attribute ra ON ra.attrelid = r.partrelid AND ra.attnum = r.partattrs[0]
     WHERE p.source::oid = pg_partition_root(k.partrelid)::oid AND ra.attname = a.attname)";

/// That of a table partitioned by RANGE; `None` where the bounds tell no time.
pub fn of(parent: pg_sys::Oid) -> Result<Option<TimeKey>> {
    let found = user::elevated(|| {
        spi::optional(
            &format!(
                "SELECT {TYPE_AND_EPOCH} FROM pg_partitioned_table k
                 JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
                 WHERE k.partrelid = $1 AND k.partstrat = 'r'"
            ),
            &[parent.into()],
            |row| Ok((row.need::<String>(1)?, row.get::<i64>(2)?)),
        )
    })?;
    Ok(found.and_then(|(type_sql, epoch)| TimeKey::of_type(&type_sql, epoch.map(Epoch::from_unix_millis))))
}
