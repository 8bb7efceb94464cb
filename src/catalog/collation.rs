//! Collation versions: text ranges are trusted only under the version they were computed with.

use pgrx::pg_sys;

use crate::pg::{spi, user};

/// The version the provider reports now; empty for providers without versions (C, POSIX). `None` when unknown.
pub fn collation_version(collation: pg_sys::Oid) -> Option<String> {
    if collation == pg_sys::InvalidOid {
        return None;
    }
    let version = user::elevated(|| {
        spi::optional(
            "SELECT CASE WHEN c.collprovider = 'd'
                    THEN (SELECT CASE WHEN d.datcollate IN ('C', 'POSIX') THEN ''
                          ELSE to_jsonb(d) ->> 'datcollversion' END
                          FROM pg_database d WHERE d.datname = current_database())
                    WHEN c.collcollate IN ('C', 'POSIX') THEN ''
                    ELSE pg_collation_actual_version(c.oid) END
             FROM pg_collation c WHERE c.oid = $1",
            &[collation.into()],
            |row| row.get::<String>(1),
        )
    });
    version.ok().flatten().flatten()
}
