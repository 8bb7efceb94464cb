//! `set_archive_policy`, `drop_archive_policy`, `export_policies`, `import_policies`.

use archive_core::lifecycle::Epoch;
use archive_core::policy::{Age, Policy};
use archive_core::store::ObjectLock;
use pgrx::JsonB;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::lifecycle;
use crate::error::OrRaise;
use crate::pg::args::{Name, Regclass, Text};
use crate::pg::xact;

/// Sets how a table ages; NULL leaves a setting as it is, `clear` removes those it names.
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn set_archive_policy(
    source: Regclass,
    hot_after: default!(Option<Interval>, "NULL"),
    warm_after: default!(Option<Interval>, "NULL"),
    archive_after: default!(Option<Interval>, "NULL"),
    glacier_after: default!(Option<Interval>, "NULL"),
    expire_after: default!(Option<Interval>, "NULL"),
    verify_after: default!(Option<Interval>, "NULL"),
    drop_after: default!(Option<Interval>, "NULL"),
    storage: default!(Option<Name>, "NULL"),
    max_hot_bytes: default!(Option<i64>, "NULL"),
    idle_for: default!(Option<Interval>, "NULL"),
    live_granularity: default!(Option<Text>, "NULL"),
    hot_granularity: default!(Option<Text>, "NULL"),
    warm_granularity: default!(Option<Text>, "NULL"),
    archive_granularity: default!(Option<Text>, "NULL"),
    premake: default!(Option<i32>, "NULL"),
    format: default!(Option<Text>, "NULL"),
    compression: default!(Option<Text>, "NULL"),
    hot_tablespace: default!(Option<Name>, "NULL"),
    warm_tablespace: default!(Option<Name>, "NULL"),
    maintenance_window: default!(Option<Text>, "NULL"),
    removal_column: default!(Option<Name>, "NULL"),
    max_attempts: default!(Option<i32>, "NULL"),
    archive_schema: default!(Option<Name>, "NULL"),
    archive_name: default!(Option<Name>, "NULL"),
    enabled: default!(Option<bool>, "NULL"),
    time_column: default!(Option<Name>, "NULL"),
    key_kind: default!(Option<Text>, "NULL"),
    key_epoch: default!(Option<TimestampWithTimeZone>, "NULL"),
    glacier_class: default!(Option<Text>, "NULL"),
    copy_storage: default!(Option<Name>, "NULL"),
    object_lock: default!(Option<Text>, "NULL"),
    clear: default!(Option<Vec<Option<String>>>, "NULL"),
) {
    xact::refuse_read_only(c"set_archive_policy()");
    let (age, text, name) = (
        |interval: Option<Interval>| {
            interval.map(|interval| Age::new(interval.months(), interval.days(), interval.micros()))
        },
        |text: Option<Text>| text.map(|text| text.0),
        |name: Option<Name>| name.map(|name| name.0),
    );
    let changes = Policy {
        enabled,
        hot_after: age(hot_after),
        warm_after: age(warm_after),
        archive_after: age(archive_after),
        glacier_after: age(glacier_after),
        glacier_class: text(glacier_class).map(|class| class.to_ascii_uppercase()),
        expire_after: age(expire_after),
        verify_after: age(verify_after),
        drop_after: age(drop_after),
        max_hot_bytes,
        idle_for: age(idle_for),
        live_granularity: text(live_granularity),
        hot_granularity: text(hot_granularity),
        warm_granularity: text(warm_granularity),
        archive_granularity: text(archive_granularity),
        premake,
        storage: name(storage),
        copy_storage: name(copy_storage),
        object_lock: text(object_lock).map(|lock| ObjectLock::parse(&lock).map_or(lock, |lock| lock.to_string())),
        format: text(format),
        compression: text(compression),
        hot_tablespace: name(hot_tablespace),
        warm_tablespace: name(warm_tablespace),
        maintenance_window: text(maintenance_window),
        removal_column: name(removal_column),
        time_column: name(time_column),
        key_kind: text(key_kind),
        key_epoch: key_epoch.map(|epoch| Epoch::from_postgres_micros(pg_sys::TimestampTz::from(epoch))),
        max_attempts,
        archive_schema: name(archive_schema),
        archive_name: name(archive_name),
    };
    let clear: Vec<String> = clear.unwrap_or_default().into_iter().flatten().collect();
    lifecycle::set_policy(source.0, &changes, &clear).or_raise();
}

/// Removes a table's policy; whether there was one.
#[pg_extern]
fn drop_archive_policy(source: Regclass) -> bool {
    xact::refuse_read_only(c"drop_archive_policy()");
    lifecycle::clear_policy(source.0).or_raise()
}

/// The policies of the caller's tables as JSON.
#[pg_extern]
fn export_policies(source: default!(Option<Regclass>, "NULL")) -> JsonB {
    JsonB(lifecycle::export(source.map(|source| source.0)).or_raise())
}

/// Sets policies as exported, or tells what that would change.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn import_policies(
    policies: JsonB,
    dry_run: default!(bool, "true"),
) -> TableIterator<
    'static,
    (
        name!(table_name, Text),
        name!(action, String),
        name!(setting, Option<String>),
        name!(before, Option<Text>),
        name!(after, Option<Text>),
        name!(note, Option<Text>),
    ),
> {
    if !dry_run {
        xact::refuse_read_only(c"import_policies()");
    }
    let lines = lifecycle::import(&policies.0, dry_run).or_raise();
    TableIterator::new(lines.into_iter().map(|line| {
        let (setting, before, after) = match line.change {
            Some(change) => (Some(change.setting.to_owned()), change.before, change.after),
            None => (None, None, None),
        };
        let note = line.note.map(Text);
        (Text(line.table), line.action.to_owned(), setting, before.map(Text), after.map(Text), note)
    }))
}
