//! Names: object keys (DESIGN §6), the local copy, the `_all` view.

mod key_name;
mod relation;
mod segment;

mod object_key;

pub use key_name::{Batch, KeyName, Version, job_family, version_family};
pub use object_key::{
    BatchName, HiveDate, batch_key, batch_key_beside, batch_manifest_key, data_key, data_key_beside, is_batch_manifest,
    manifest_key, manifest_prefix, table_of_prefix, table_prefix, version_of,
};
pub use relation::{MAX_IDENTIFIER, all_view_name, local_copy_name, quote_ident, row_set_name};
pub use segment::{decode_ident, encode_ident};
