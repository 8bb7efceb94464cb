//! The partitioned table above an archived partition, recorded so that an empty database can have it again.

use archive_core::manifest::{FamilyKey, Level, Root};
use pgrx::pg_sys;

use super::{ddl, discover, prerequisites};
use crate::catalog;
use crate::error::Result;
use crate::pg::{spi, user};

/// Records the root of a partition tree as an empty table, and the levels between it and `parent`.
pub fn record(root: pg_sys::Oid, parent: pg_sys::Oid) -> Result<Root> {
    let name = catalog::qualified_name(root)?;
    let owner = discover::owner(root)?;
    let partition_key = discover::partition_key(root)?;
    user::elevated(|| {
        let mut ddl = ddl::of_table(root, &name, owner)?;
        ddl.create_table.push_str(&format!(" PARTITION BY {partition_key}"));
        ddl.defaults.extend(prerequisites::owned_by(root)?);
        Ok(Root { partition_key, ddl, levels: levels(root, parent)?, parents: Some(parents(root)?) })
    })
}

fn parents(root: pg_sys::Oid) -> Result<Vec<FamilyKey>> {
    let keys = catalog::child_table::parents(root)?.into_iter().map(|edge| {
        let (schema, table) = discover::schema_and_name(edge.parent)?;
        Ok(FamilyKey { schema, table, foreign_key: edge.foreign_key })
    });
    keys.collect()
}

fn levels(root: pg_sys::Oid, parent: pg_sys::Oid) -> Result<Vec<Level>> {
    spi::rows(
        "SELECT n.nspname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid),
                format('CREATE TABLE %I.%I PARTITION OF %s %s PARTITION BY %s', n.nspname, c.relname,
                       (SELECT format('%I.%I', pn.nspname, pc.relname)
                        FROM pg_inherits i JOIN pg_class pc ON pc.oid = i.inhparent
                        JOIN pg_namespace pn ON pn.oid = pc.relnamespace WHERE i.inhrelid = c.oid),
                       pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid))
         FROM pg_partition_ancestors($1::oid) WITH ORDINALITY a(relid, depth)
         JOIN pg_class c ON c.oid = a.relid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid <> $2 ORDER BY a.depth DESC",
        &[parent.into(), root.into()],
        |row| {
            Ok(Level {
                schema: row.need(1)?,
                name: row.need(2)?,
                bounds: row.need(3)?,
                partition_key: row.need(4)?,
                sql: row.need(5)?,
            })
        },
    )
}
