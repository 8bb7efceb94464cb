//! Rows that reference the rows to be archived.

use pgrx::spi::quote_identifier;

use crate::error::Result;
use crate::partition::discover::Leaf;
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
}

/// The foreign keys that reference `table`, those of the table itself included.
pub fn to(table: &Leaf) -> Result<Vec<Reference>> {
    user::elevated(|| {
        spi::rows(
            "SELECT format('%I.%I', fn.nspname, fc.relname), k.conname::text,
                    format('EXISTS (SELECT FROM %I.%I AS archive_ext_f WHERE %s)', fn.nspname, fc.relname,
                           (SELECT string_agg(format('archive_ext_f.%I OPERATOR(%I.%s) %s.%I', fa.attname, opn.nspname,
                                                     op.oprname, $2, pa.attname), ' AND ')
                            FROM unnest(k.conkey, k.confkey, k.conpfeqop) AS u(f, p, o)
                            JOIN pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = u.f
                            JOIN pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.p
                            JOIN pg_operator o2 ON o2.oid = u.o
                            JOIN pg_operator op ON op.oid = coalesce(nullif(o2.oprcom, 0), o2.oid)
                            JOIN pg_namespace opn ON opn.oid = op.oprnamespace)
                           -- A row that references itself goes with itself.
                           || CASE WHEN k.conrelid = k.confrelid
                              THEN format(' AND (archive_ext_f.tableoid, archive_ext_f.ctid) <> (%1$s.tableoid, %1$s.ctid)', $2)
                              ELSE '' END)
             FROM pg_constraint k
             JOIN pg_class fc ON fc.oid = k.conrelid JOIN pg_namespace fn ON fn.oid = fc.relnamespace
             WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conparentid = 0
             ORDER BY 1, 2",
            &[table.oid.into(), quote_identifier(&table.name).into()],
            |row| Ok(Reference { table: row.need(1)?, constraint: row.need(2)?, condition: row.need(3)? }),
        )
    })
}
