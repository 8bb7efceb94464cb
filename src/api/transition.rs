//! Partitions as they age: `set_lifecycle`, `premake_partitions`, `merge_partitions` and the like.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::SetOfIterator;
use pgrx::prelude::*;

use crate::engine::transition::{self, rearrange, registry};
use crate::error::OrRaise;
use crate::pg::args::{LifecycleStatus, Name, Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Gives a partition a status; its new label.
#[pg_extern]
fn set_lifecycle(
    partition: Regclass,
    status: LifecycleStatus,
    removal_time: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Text {
    xact::refuse_read_only(c"set_lifecycle()");
    let label =
        giving_way(|| transition::set_status(partition.0, status.0, removal_time, "set_lifecycle() was called", None));
    Text(label.or_raise())
}

/// The label of a status at a time.
#[pg_extern(stable)]
fn partition_label(status: LifecycleStatus, granularity: Option<Text>, at: TimestampWithTimeZone) -> Text {
    let granularity = granularity.map(|text| text.0);
    Text(transition::label(status.0, granularity.as_deref(), at).or_raise())
}

/// Makes coming partitions.
#[pg_extern]
fn premake_partitions(source: Regclass, ahead: default!(Option<i32>, "NULL")) -> SetOfIterator<'static, Regclass> {
    xact::refuse_read_only(c"premake_partitions()");
    let made = giving_way(|| transition::premake(source.0, ahead)).or_raise();
    SetOfIterator::new(made.into_iter().map(Regclass))
}

/// Moves what a DEFAULT partition caught into partitions of its own.
#[pg_extern]
fn drain_default(source: Regclass) -> i64 {
    xact::refuse_read_only(c"drain_default()");
    giving_way(|| transition::drain_default(source.0)).or_raise().cast_signed()
}

/// Merges WARM partitions in one transaction.
#[pg_extern]
fn merge_partitions(partitions: Vec<Option<Regclass>>, name: default!(Option<Name>, "NULL")) -> Option<Regclass> {
    xact::refuse_read_only(c"merge_partitions()");
    let name = name.map(|name| name.0);
    giving_way(|| rearrange::merge(&oids(partitions), name.as_deref())).or_raise().map(Regclass)
}

/// Splits a WARM partition in one transaction.
#[pg_extern]
fn split_partition(partition: Regclass, granularity: Text) -> SetOfIterator<'static, Regclass> {
    xact::refuse_read_only(c"split_partition()");
    let made = giving_way(|| rearrange::split(partition.0, &granularity.0)).or_raise();
    SetOfIterator::new(made.into_iter().map(Regclass))
}

/// Registers a table as one that is never archived.
#[pg_extern]
fn register_static_table(source: Regclass, reason: Text) {
    xact::refuse_read_only(c"register_static_table()");
    registry::register_static(source.0, &reason.0).or_raise();
}

/// Lets a static table age again.
#[pg_extern]
fn unregister_static_table(source: Regclass) -> bool {
    xact::refuse_read_only(c"unregister_static_table()");
    registry::unregister_static(source.0).or_raise()
}

fn oids(partitions: Vec<Option<Regclass>>) -> Vec<pg_sys::Oid> {
    partitions.into_iter().flatten().map(|partition| partition.0).collect()
}

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;
    use pgrx::prelude::*;

    use crate::engine::transition::rearrange;
    use crate::error::OrRaise;
    use crate::pg::args::{Name, Regclass, Text};
    use crate::pg::xact;

    /// The job that merges partitions, new or taken up again.
    #[pg_extern]
    fn begin_merge(partitions: Vec<Option<Regclass>>, name: Option<Name>) -> Uuid {
        xact::refuse_read_only(c"begin_merge()");
        let name = name.map(|name| name.0);
        rearrange::begin_merge(&super::oids(partitions), name.as_deref()).or_raise()
    }

    /// The job that splits a partition, new or taken up again.
    #[pg_extern]
    fn begin_split(partition: Regclass, granularity: Text) -> Uuid {
        xact::refuse_read_only(c"begin_split()");
        rearrange::begin_split(partition.0, &granularity.0).or_raise()
    }
}
