//! Rows that reference the rows to be archived.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use crate::error::{Error, Result, SqlState};
use crate::partition::discover::Leaf;
use crate::partition::foreign_key;
use crate::pg::{spi, user};

/// A foreign key to the table.
#[derive(Debug)]
pub struct Reference {
    /// The referencing table, qualified.
    pub table: String,
    /// The constraint.
    pub constraint: String,
    /// Whether a row of the table is referenced, as an SQL condition over it.
    pub condition: String,
    /// The referencing table.
    pub relation: pg_sys::Oid,
    /// That a row of the referencing table, under its own name, references the row [`REFERENCED`], as an SQL condition.
    pub matches: String,
}

/// What [`Reference::matches`] calls the referenced row.
pub const REFERENCED: &str = "archive_ext_p";

impl Reference {
    /// That a row of the table is not referenced, as an SQL condition over it.
    pub fn absent(&self) -> String {
        format!("NOT {}", self.condition)
    }
}

/// The foreign keys that reference `table` or one of its partitions, those of the table itself included.
///
/// Errors: 42501 when the caller cannot see every row of a referencing table: a row that is deleted could take hidden ones along.
pub fn to(table: &Leaf) -> Result<Vec<Reference>> {
    let found = user::elevated(|| {
        let matches = foreign_key::matches("'archive_ext_f'", "$2");
        let children = foreign_key::matches("quote_ident(fc.relname)", &format!("'{REFERENCED}'"));
        let sql = format!(
            "SELECT format('%I.%I', fn.nspname, fc.relname), k.conname::text,
                    format('EXISTS (SELECT FROM %I.%I AS archive_ext_f WHERE %s)', fn.nspname, fc.relname,
                           {matches}
                           -- A row that references itself goes with itself.
                           || CASE WHEN k.conrelid = k.confrelid
                              THEN format(' AND (archive_ext_f.tableoid, archive_ext_f.ctid) <> (%1$s.tableoid, %1$s.ctid)', $2)
                              ELSE '' END
                           || CASE WHEN k.confrelid <> $1 THEN format(' AND %s.tableoid = %s', $2, k.confrelid::oid) ELSE '' END),
                    k.conrelid,
                    {children} || CASE WHEN k.confrelid <> $1 THEN format(' AND {REFERENCED}.tableoid = %s', k.confrelid::oid) ELSE '' END
             FROM pg_constraint k
             JOIN pg_class fc ON fc.oid = k.conrelid JOIN pg_namespace fn ON fn.oid = fc.relnamespace
             WHERE k.contype = 'f' AND k.conparentid = 0
               AND (k.confrelid = $1 OR k.confrelid IN (SELECT t.relid FROM pg_partition_tree($1::oid) t))
             ORDER BY 1, 2"
        );
        spi::rows(&sql, &[table.oid.into(), quote_identifier(&table.name).into()], |row| {
            Ok(Reference {
                table: row.need(1)?,
                constraint: row.need(2)?,
                condition: row.need(3)?,
                relation: row.need(4)?,
                matches: row.need(5)?,
            })
        })
    })?;
    found.into_iter().map(|reference| sees_every_row(&reference, table).map(|()| reference)).collect()
}

fn sees_every_row(reference: &Reference, table: &Leaf) -> Result<()> {
    let sees = user::as_user(user::current(), || {
        spi::one(
            "SELECT has_table_privilege($1::oid, 'SELECT') AND NOT row_security_active($1::oid)",
            &[reference.relation.into()],
            |row| row.need::<bool>(1),
        )
    })?;
    if sees {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("not every row of {} that references \"{}\" can be seen", reference.table, table.qualified()),
    )
    .detail(format!("Foreign key \"{}\" could take such rows along unseen.", reference.constraint))
    .hint(format!(
        "GRANT SELECT ON {}, and let no row security policy hold for the role that archives.",
        reference.table
    )))
}
