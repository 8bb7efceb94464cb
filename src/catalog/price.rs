//! `archive_ext.storage_price`: what storing costs, as the DBA entered it or as price lists say.

use archive_core::policy::Prices;

use crate::error::Result;
use crate::pg::{spi, user};

/// The prices of the database's own disks and of a storage. A price for the storage by name goes before that of its class;
/// a directory's class is DIRECTORY, an S3 storage's its `storage_class`.
pub fn of_storage(storage: Option<&str>) -> Result<Prices> {
    user::elevated(|| {
        spi::one(
            "SELECT (archive_ext.price_of(NULL)).gb_month::float8,
                    (SELECT p.gb_month::float8 FROM archive_ext.price_of($1::name) p WHERE $1 IS NOT NULL)",
            &[storage.into()],
            |row| Ok(Prices { local: row.get(1)?, archived: row.get(2)? }),
        )
    })
}

/// What a gigabyte costs a month in another class of a storage.
pub fn of_class(storage: &str, class: &str) -> Result<Option<f64>> {
    user::elevated(|| {
        spi::one(
            "SELECT (archive_ext.price_of($1::name, $2)).gb_month::float8",
            &[storage.into(), class.into()],
            |row| row.get(1),
        )
    })
}
