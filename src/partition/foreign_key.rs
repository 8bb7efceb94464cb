//! Foreign keys between tables whose rows age together.

use pgrx::pg_sys;

use super::discover;
use crate::error::Result;
use crate::pg::{spi, user};

/// What makes a row of the referencing table reference a row of the other, as an SQL expression that gives the text of the condition:
/// over `pg_constraint k`; the arguments are SQL expressions of the names by which the condition calls the two.
pub fn matches(referencing: &str, referenced: &str) -> String {
    format!(
        "(SELECT string_agg(format('%s.%I OPERATOR(%I.%s) %s.%I', {referencing}, fa.attname, opn.nspname, op.oprname,
                                   {referenced}, pa.attname), ' AND ')
          FROM unnest(k.conkey, k.confkey, k.conpfeqop) AS u(f, p, o)
          JOIN pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = u.f
          JOIN pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.p
          JOIN pg_operator o2 ON o2.oid = u.o
          JOIN pg_operator op ON op.oid = coalesce(nullif(o2.oprcom, 0), o2.oid)
          JOIN pg_namespace opn ON opn.oid = op.oprnamespace)"
    )
}

/// A foreign key as its table has it; those that partitions inherit are not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Name of the constraint.
    pub name: String,
    /// The referencing table.
    pub child: pg_sys::Oid,
    /// The referenced table.
    pub parent: pg_sys::Oid,
    /// The referencing columns.
    pub columns: Vec<String>,
    /// The columns they reference, in the same order.
    pub referenced: Vec<String>,
    /// `NO ACTION`, `RESTRICT`, `CASCADE`, `SET NULL` or `SET DEFAULT`.
    pub on_update: String,
    /// The same for DELETE.
    pub on_delete: String,
    /// Whether all rows are known to obey it.
    pub validated: bool,
}

impl ForeignKey {
    /// The child's column that references `column` of the parent.
    pub fn child_column(&self, column: &str) -> Option<&str> {
        let at = self.referenced.iter().position(|name| name == column)?;
        self.columns.get(at).map(String::as_str)
    }
}

/// The foreign keys that reference `parent`, as the tables they were made on have them.
pub fn referencing(parent: pg_sys::Oid) -> Result<Vec<ForeignKey>> {
    const ACTION: &str = "WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT' WHEN 'c' THEN 'CASCADE'
                          WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END";
    user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT k.conname::text, k.conrelid, k.confrelid,
                        ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, i)
                              JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),
                        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, i)
                              JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i),
                        CASE k.confupdtype {ACTION}, CASE k.confdeltype {ACTION}, k.convalidated
                 FROM pg_constraint k
                 WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conparentid = 0
                 ORDER BY k.conrelid::regclass::text, k.conname"
            ),
            &[parent.into()],
            |row| {
                Ok(ForeignKey {
                    name: row.need(1)?,
                    child: row.need(2)?,
                    parent: row.need(3)?,
                    columns: row.need(4)?,
                    referenced: row.need(5)?,
                    on_update: row.need(6)?,
                    on_delete: row.need(7)?,
                    validated: row.need(8)?,
                })
            },
        )
    })
}

/// The foreign key of this name from `child` to `parent`.
pub fn find(parent: pg_sys::Oid, child: pg_sys::Oid, name: &str) -> Result<Option<ForeignKey>> {
    Ok(referencing(parent)?.into_iter().find(|key| key.child == child && key.name == name))
}

/// The foreign keys of a table itself, no partition any more, that reference one of `parents`.
pub fn own(table: pg_sys::Oid, parents: &[pg_sys::Oid]) -> Result<Vec<String>> {
    let keys = user::elevated(|| {
        spi::rows(
            "SELECT conname::text, confrelid FROM pg_constraint
             WHERE contype = 'f' AND conrelid = $1 AND conparentid = 0 ORDER BY oid",
            &[table.into()],
            |row| Ok((row.need::<String>(1)?, row.need::<pg_sys::Oid>(2)?)),
        )
    })?;
    Ok(keys.into_iter().filter(|(_, parent)| parents.contains(parent)).map(|(name, _)| name).collect())
}

/// The tables that foreign keys of `tables` reference, with the partitions of those that are partitioned.
pub fn referenced_by(tables: &[pg_sys::Oid]) -> Result<Vec<pg_sys::Oid>> {
    discover::look(|| {
        spi::rows(
            "SELECT r.oid FROM (
               SELECT k.confrelid AS oid FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY ($1)
               UNION
               SELECT t.relid::oid FROM pg_constraint k, pg_partition_tree(k.confrelid) t
               WHERE k.contype = 'f' AND k.conrelid = ANY ($1)) r ORDER BY r.oid",
            &[tables.to_vec().into()],
            |row| row.need(1),
        )
    })
}
