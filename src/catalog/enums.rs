//! Enum types and their labels.

use archive_core::schema::EnumType;
use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// The enum types with these OIDs, by OID, each with its labels in order.
pub fn enums(oids: &[pg_sys::Oid]) -> Result<Vec<EnumType>> {
    let mut oids = oids.to_vec();
    oids.sort_unstable_by_key(|oid| oid.to_u32());
    oids.dedup();
    oids.into_iter().map(|oid| user::elevated(|| describe(oid))).collect()
}

/// Whether every archived label is still what its value is called.
pub fn are_as_archived(archived: &[EnumType]) -> Result<bool> {
    for known in archived {
        let now = user::elevated(|| describe(pg_sys::Oid::from(known.oid)))?;
        if !known.labels.iter().all(|label| now.labels.contains(label)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn describe(oid: pg_sys::Oid) -> Result<EnumType> {
    let name = spi::one("SELECT format_type($1, NULL)", &[oid.into()], |row| row.need(1))?;
    let labels = spi::rows(
        "SELECT oid, enumlabel::text FROM pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder",
        &[oid.into()],
        |row| Ok((row.need::<pg_sys::Oid>(1)?.to_u32(), row.need(2)?)),
    )?;
    Ok(EnumType { oid: oid.to_u32(), name, labels })
}
