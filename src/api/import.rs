//! `import_archive`.

use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::import::{self, Options};
use crate::error::OrRaise;
use crate::pg::args::{Name, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Rebuilds catalog, hot roots and foreign tables from the manifests of a storage. Superusers only.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn import_archive(
    storage: Name,
    dry_run: default!(bool, "true"),
    tables: default!(Option<Text>, "NULL"),
    owner: default!(Option<Name>, "NULL"),
    verify: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(partition, Text),
        name!(action, String),
        name!(rows, Option<i64>),
        name!(bytes, Option<i64>),
        name!(version, Option<i32>),
        name!(detail, Option<Text>),
    ),
> {
    if !dry_run {
        xact::refuse_read_only(c"import_archive()");
    }
    let (tables, owner) = (tables.map(|pattern| pattern.0), owner.map(|name| name.0));
    let options = Options { storage: storage.0, dry_run, tables, owner, verify };
    let lines = giving_way(|| import::run(&options)).or_raise();
    TableIterator::new(lines.into_iter().map(|line| {
        let number = |value: Option<u64>| value.map(u64::cast_signed);
        (
            Text(line.partition),
            line.action.as_str().to_owned(),
            number(line.rows),
            number(line.bytes),
            line.version.map(u32::cast_signed),
            line.detail.map(Text),
        )
    }))
}
