//! `archive_ext.storage_price`: what storing costs, as the DBA entered it or as price lists say.

use archive_core::policy::Prices;

use crate::error::Result;
use crate::pg::{spi, user};

/// The prices of the database's own disks and of a storage. A price for the storage by name goes before that of its class;
/// a directory's class is DIRECTORY, an S3 storage's its `storage_class`.
pub fn of_storage(storage: Option<&str>) -> Result<Prices> {
    user::elevated(|| {
        spi::one(
            "WITH class AS (
               SELECT CASE WHEN option ->> 'location' LIKE 'file:%' THEN 'DIRECTORY'
                           ELSE upper(coalesce(option ->> 'storage_class', 'STANDARD')) END AS name
               FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw,
                    LATERAL (SELECT jsonb_object_agg(o.option_name, o.option_value) FROM pg_options_to_table(s.srvoptions) o) a(option)
               WHERE w.fdwname = 'archive_fdw' AND s.srvname = $1::name
             )
             SELECT (SELECT p.gb_month::float8 FROM archive_ext.storage_price p
                     WHERE p.storage = '' AND p.storage_class = 'LOCAL'),
                    (SELECT p.gb_month::float8 FROM archive_ext.storage_price p, class c
                     WHERE p.storage IN ($1, '') AND p.storage_class = c.name ORDER BY p.storage = '' LIMIT 1)",
            &[storage.into()],
            |row| Ok(Prices { local: row.get(1)?, archived: row.get(2)? }),
        )
    })
}
