//! Managed children, and families of partitions that are archived and come back together.

use archive_core::lifecycle::Status;
use pgrx::Uuid;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::prelude::*;

use super::archive::{options, row};
use super::seconds;
use crate::engine::family;
use crate::engine::reattach::Options;
use crate::error::OrRaise;
use crate::pg::args::{Name, Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Makes a table age with the one that it references; the name of the foreign key.
#[pg_extern]
fn add_child_table(parent: Regclass, child: Regclass, foreign_key: default!(Option<Name>, "NULL")) -> Text {
    xact::refuse_read_only(c"add_child_table()");
    Text(giving_way(|| family::add(parent.0, child.0, foreign_key.as_ref().map(|name| name.0.as_str()))).or_raise())
}

/// Lets a child age on its own again; whether it was a child.
#[pg_extern]
fn drop_child_table(parent: Regclass, child: Regclass) -> bool {
    xact::refuse_read_only(c"drop_child_table()");
    family::remove(parent.0, child.0).or_raise()
}

/// The tables that reference a table, and whether they can be managed children.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn discover_child_tables(
    parent: Regclass,
) -> TableIterator<
    'static,
    (
        name!(child, Regclass),
        name!(foreign_key, Text),
        name!(columns, Vec<String>),
        name!(on_update, Text),
        name!(on_delete, Text),
        name!(managed, bool),
        name!(usable, bool),
        name!(reason, Option<Text>),
    ),
> {
    let found = family::discover(parent.0).or_raise();
    TableIterator::new(found.into_iter().map(|one| {
        let key = one.key;
        (
            Regclass(key.child),
            Text(key.name),
            key.columns,
            Text(key.on_update),
            Text(key.on_delete),
            one.managed,
            one.reason.is_none(),
            one.reason.map(Text),
        )
    }))
}

/// Archives a partition with the partitions of its children, children first.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn archive_family(
    partition: Regclass,
    storage: default!(Option<Name>, "NULL"),
    verify: default!(&str, "'content'"),
    drop_local: default!(Option<Interval>, "NULL"),
    dry_run: default!(bool, "false"),
    keep_keys: default!(bool, "false"),
    allow_subscribed: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(archived, Regclass),
        name!(rows, Option<i64>),
        name!(local_bytes, i64),
        name!(archived_bytes, Option<i64>),
        name!(objects, Option<i32>),
        name!(location, String),
        name!(local_copy_until, Option<TimestampWithTimeZone>),
    ),
> {
    if !dry_run {
        xact::refuse_read_only(c"archive_family()");
    }
    let options = options(storage, verify, drop_local, allow_subscribed).or_raise();
    let outcomes = giving_way(|| match dry_run {
        true => family::dry_run(partition.0, &options, keep_keys),
        false => family::archive(partition.0, &options, keep_keys),
    });
    TableIterator::new(outcomes.or_raise().into_iter().map(row))
}

/// What keeps a partition and its children from being archived.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn family_blockers(
    partition: Regclass,
) -> TableIterator<
    'static,
    (name!(relation, Regclass), name!(reason, Text), name!(rows, Option<i64>), name!(remedy, Text)),
> {
    let blockers = family::blockers(partition.0).or_raise();
    TableIterator::new(
        blockers
            .into_iter()
            .map(|blocker| (Regclass(blocker.relation), Text(blocker.reason), blocker.rows, Text(blocker.remedy))),
    )
}

/// Puts an archived partition back with those of its children, parents first.
#[pg_extern]
fn reattach_family(
    partition: Text,
    keep_for: default!(Option<Interval>, "NULL"),
    writable: default!(bool, "false"),
) -> SetOfIterator<'static, Regclass> {
    xact::refuse_read_only(c"reattach_family()");
    let options =
        Options { keep_for_seconds: keep_for.map(seconds), status: Status::Warm, writable, move_late_rows: false };
    let back = giving_way(|| family::reattach(&partition.0, options)).or_raise();
    SetOfIterator::new(back.into_iter().map(Regclass))
}

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;
    use pgrx::datum::Interval;
    use pgrx::prelude::*;

    use crate::api::archive::options;
    use crate::engine::family;
    use crate::error::OrRaise;
    use crate::pg::args::{Name, Regclass};
    use crate::pg::xact;

    /// The job that archives a partition with its children, new or taken up again; NULL when it is archived already.
    #[pg_extern]
    fn begin_family(
        partition: Regclass,
        storage: Option<Name>,
        verify: &str,
        drop_local: Option<Interval>,
        allow_subscribed: default!(bool, "false"),
    ) -> Option<Uuid> {
        xact::refuse_read_only(c"begin_family()");
        options(storage, verify, drop_local, allow_subscribed)
            .and_then(|options| family::begin(partition.0, &options))
            .or_raise()
    }
}
