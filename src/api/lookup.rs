//! `get_archived_record`, `archive_tier_of`.

use pgrx::prelude::*;

use crate::engine::lookup;
use crate::error::OrRaise;
use crate::pg::args::{Regclass, Text};
use crate::pg::key_arg::{JsonbText, Key};

/// The row of a table with this key as jsonb, from the table or its archive; NULL when there is none.
///
/// `key` is the value of the primary key, or a JSON object with the values of all columns of a unique key.
#[pg_extern(stable)]
fn get_archived_record(source: Regclass, key: Key) -> Option<JsonbText> {
    lookup::record(source.0, &key).or_raise().map(JsonbText)
}

/// Where the row of a table with this key is: `hot`, `warm`, `cold`, `glacier`; NULL when it is nowhere.
#[pg_extern(stable)]
fn archive_tier_of(source: Regclass, key: Key) -> Option<Text> {
    lookup::tier(source.0, &key).or_raise().map(Text)
}
