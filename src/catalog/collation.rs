//! Collation versions: text ranges are trusted only under the version they were computed with.

use pgrx::pg_sys;

use crate::pg::columns::DATABASE_COLLATION_VERSION;
use crate::pg::{spi, user};

/// The version the provider reports now; empty for byte order (C, POSIX, C.UTF-8), which has none. `None` when unknown.
pub fn collation_version(collation: pg_sys::Oid) -> Option<String> {
    if collation == pg_sys::InvalidOid {
        return None;
    }
    let sql = format!(
        "SELECT CASE WHEN c.collprovider = 'd'
                THEN (SELECT {DATABASE_COLLATION_VERSION} FROM pg_database d WHERE d.datname = current_database())
                WHEN c.collprovider = 'c' AND (c.collcollate IN ('C', 'POSIX') OR c.collcollate LIKE 'C.%') THEN ''
                ELSE pg_collation_actual_version(c.oid) END
         FROM pg_collation c WHERE c.oid = $1"
    );
    let version = user::elevated(|| spi::optional(&sql, &[collation.into()], |row| row.get::<String>(1)));
    version.ok().flatten().flatten()
}
