//! What is due for a table, and what waits: the core's decision on what the database shows.

use archive_core::lifecycle::{Kind, Label};
use archive_core::policy::{self, Table};
use pgrx::pg_sys;

use crate::catalog;
use crate::catalog::observed::Leaf;
use crate::catalog::policy::TablePolicy;
use crate::engine::clock;
use crate::error::Result;
use crate::partition::discover;
use crate::pg::{spi, user};

/// The outlook of one table.
#[derive(Debug)]
pub struct Outlook {
    /// How the table ages.
    pub kind: Kind,
    /// Its partitions that are in the database, in the order of their bounds.
    pub leaves: Vec<Leaf>,
    /// What the core decided; indexes are those of `leaves`.
    pub core: policy::Outlook,
    /// The time it was decided for, in microseconds since 2000-01-01 UTC.
    pub now: i64,
}

impl Outlook {
    /// Looks at a table; nothing is changed.
    pub fn of(table: &TablePolicy) -> Result<Self> {
        let now = pg_sys::TimestampTz::from(clock::now()?);
        let kind = kind(table.source)?;
        if kind == Kind::Plain {
            return Ok(Self { kind, leaves: Vec::new(), core: policy::Outlook::default(), now });
        }
        let leaves = catalog::observed::leaves(table.source)?;
        if kind != Kind::Time {
            let leaves: Vec<_> = leaves.into_iter().map(with_status_of_label).collect();
            let observed: Vec<_> = leaves.iter().map(|leaf| leaf.observed.clone()).collect();
            return Ok(Self { kind, core: policy::brought_back(&table.policy, &observed, now), leaves, now });
        }
        let observed: Vec<_> = leaves.iter().map(|leaf| leaf.observed.clone()).collect();
        let about_table = about_table(table, &leaves, now)?;
        Ok(Self { kind, core: policy::due(&table.policy, &about_table, &observed, now), leaves, now })
    }
}

/// Partitions of a lifecycle-partitioned table have their status in their bounds: `FOR VALUES IN ('WARM_2024')`.
fn with_status_of_label(mut leaf: Leaf) -> Leaf {
    let value = leaf.bounds.as_deref().and_then(|bounds| bounds.split('\'').nth(1));
    if let Some(label) = value.and_then(|value| value.parse::<Label>().ok()) {
        leaf.observed.status = label.status;
        leaf.label = Some(label.to_string());
    }
    leaf
}

/// How a table ages, as registered or by its partitioning.
pub fn kind(source: pg_sys::Oid) -> Result<Kind> {
    match catalog::managed_table::of_source(source)? {
        Some(managed) => Ok(managed.kind),
        None => discover::kind(source),
    }
}

fn about_table(table: &TablePolicy, leaves: &[Leaf], now: i64) -> Result<Table> {
    let (busy, drained_in_vain_at) = catalog::observed::table_jobs(table.source)?;
    let coming = leaves.iter().filter(|leaf| begins_at(leaf).is_some_and(|begins| begins > now)).count();
    Ok(Table {
        coming: u32::try_from(coming).unwrap_or(u32::MAX),
        default_partition: default_partition(table)?,
        drained_in_vain_at,
        busy,
    })
}

/// When a partition begins. Coming ones are whole periods, so the calendar of their bounds is near enough.
fn begins_at(leaf: &Leaf) -> Option<i64> {
    let (lower, upper) = leaf.observed.span?;
    let length = upper.seconds_since(lower) * 1_000_000;
    leaf.observed.ends_at.map(|ends| ends - length)
}

/// The DEFAULT partition, and whether it holds rows: looked at with the rights of the table's owner, where it matters.
fn default_partition(table: &TablePolicy) -> Result<Option<(String, bool)>> {
    if table.policy.premake.unwrap_or(0) == 0 {
        return Ok(None);
    }
    let Some((_, name, takes_space)) = catalog::observed::default_partition(table.source)? else { return Ok(None) };
    let holds_rows = takes_space
        && user::as_user(discover::owner(table.source)?, || {
            spi::one(&format!("SELECT EXISTS (SELECT FROM ONLY {name})"), &[], |row| row.need(1))
        })?;
    Ok(Some((name, holds_rows)))
}
