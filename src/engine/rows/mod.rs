//! Rows of lifecycle-partitioned tables: they get the label of another status, and with it another partition.
//!
//! One engine, two drivers: `move_where` moves batch after batch in the caller's transaction, a job of operation `rows`
//! one batch per transaction. Rows that moved no longer match, so either can be called again and goes on.

mod due;
mod family;
mod filter;
mod job;
mod plan;
mod statement;
mod tally;

pub use due::{Due, coming, due};
pub use job::{begin, may_steer, step};
pub use plan::Request;
pub use statement::moment;

use archive_core::lifecycle::{Kind, Label, Status, list_values};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::batch;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::partition::labels::LabelTable;
use crate::pg::{interrupts, spi, user};
use plan::Plan;
use tally::Tally;

/// Rows that one statement of the function form moves.
const BATCH_IN_ONE_TRANSACTION: i64 = 100_000;

/// Moves all rows of a request in this transaction; the rows moved, children included.
///
/// Rows of a table that is partitioned by hash have no other status but ARCHIVED: they leave the table for its archive.
pub fn move_where(request: &Request) -> Result<u64> {
    match batches(request)? {
        Some(batches) => Ok(batch::archive_all(&batches)?.1),
        None => Ok(move_all(request)?.total()),
    }
}

/// The request to archive rows of a table that is partitioned by hash; `None` for other requests.
fn batches(request: &Request) -> Result<Option<batch::Request>> {
    if request.to != Status::Archived || discover::kind(request.source)? != Kind::Hash {
        return match request.keep_keys {
            true => Err(Error::new(
                SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
                "keep_keys is for rows of tables partitioned by hash that become ARCHIVED",
            )
            .hint("Rows of plain tables leave their keys with archive_table(…, mode => 'offload').")),
            false => Ok(None),
        };
    }
    if request.removal_time.is_some() {
        let name = crate::catalog::qualified_name(request.source)?;
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("rows of \"{name}\" have no removal_time: the table is partitioned by hash"),
        )
        .hint("They are archived by the call itself; leave removal_time out."));
    }
    let wanted = if request.keep_keys { batch::Wanted::stubs() } else { batch::Wanted::default() };
    Ok(Some(batch::Request { wanted, ..batch::Request::of_clause(request.source, request.clause.clone()) }))
}

fn move_all(request: &Request) -> Result<Tally> {
    let mut plan = Plan::of(request)?;
    filter::check(&plan)?;
    filter::refuse_illegal(&plan)?;
    plan.managed_table()?;
    let mut moved = Tally::default();
    loop {
        interrupts::check();
        match statement::batch(&plan, BATCH_IN_ONE_TRANSACTION)? {
            statement::Outcome::Nothing => break,
            statement::Outcome::Made => plan = Plan::of(request)?,
            statement::Outcome::Moved(batch, last) => {
                moved.add(batch);
                if last {
                    break;
                }
            }
        }
    }
    moved.record(&plan, None)?;
    Ok(moved)
}

/// Moves all rows of one LIST partition (`ticket_live_202412` → HOT) in this transaction, children along. The partition
/// stays, empty. Returns the label that the rows have now (several, comma-separated, where they differ) and their number,
/// children included.
pub fn move_partition(
    partition: pg_sys::Oid,
    status: Status,
    removal_time: Option<String>,
    reason: &str,
) -> Result<(String, u64)> {
    let Some(leaf) = discover::leaf(partition)? else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "partition does not exist"));
    };
    let name = leaf.qualified();
    let not_labelled = || {
        Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is no partition of a lifecycle label"))
            .hint("Name a partition FOR VALUES IN ('LIVE_202412') or another label.")
    };
    let (Some(root), Some(parent)) = (leaf.root, leaf.parent) else { return Err(not_labelled()) };
    let table = LabelTable::of(root)?.filter(|_| root == parent).ok_or_else(not_labelled)?;
    let own = table.partitions.iter().find(|known| known.oid == partition && !known.is_default);
    let labels = own.map(|own| own.values.clone()).ok_or_else(not_labelled)?;
    let request = Request {
        source: root,
        clause: None,
        labels: Some(labels.clone()),
        to: status,
        removal_time,
        reason: reason.to_owned(),
        keep_keys: false,
    };
    let moved = move_all(&request)?;
    let label = match moved.labels() {
        none if none.is_empty() => label_of_none(&request, &labels)?,
        labels => labels.join(", "),
    };
    Ok((label, moved.total()))
}

/// Gives all rows of the partition of a lifecycle label another status; the label they have now. `None` where the partition
/// itself takes the status: it is of no label, or its label has this status already.
pub fn relabel_partition(
    partition: pg_sys::Oid,
    status: Status,
    removal_time: Option<TimestampWithTimeZone>,
    reason: &str,
) -> Result<Option<String>> {
    let Some(leaf) = discover::leaf(partition)? else { return Ok(None) };
    let Some(root) = leaf.root.filter(|root| Some(*root) == leaf.parent) else { return Ok(None) };
    if discover::kind(root)? != Kind::Lifecycle {
        return Ok(None);
    }
    let values = list_values(leaf.bounds.as_deref().unwrap_or_default());
    let has_status = |value: &String| value.parse::<Label>().is_ok_and(|label| label.status == status);
    if values.is_empty() || values.iter().any(has_status) {
        return Ok(None);
    }
    let removal_time = removal_time.map(|time| text_of(&time)).transpose()?;
    Ok(Some(move_partition(partition, status, removal_time, reason)?.0))
}

/// A time as text that means the same in every session.
pub fn text_of(time: &TimestampWithTimeZone) -> Result<String> {
    user::elevated(|| spi::one("SELECT $1::text", &[(*time).into()], |row| row.need(1)))
}

/// What the rows of an empty partition would have been called, as far as its label tells.
fn label_of_none(request: &Request, labels: &[String]) -> Result<String> {
    let plan = Plan::of(request)?;
    let first = labels.iter().find_map(|label| label.parse::<Label>().ok());
    let label = first.map(|label| match label.status == request.to {
        true => label,
        false => plan.relabel(label, None).unwrap_or_else(|| Label::new(request.to, None)),
    });
    Ok(label.unwrap_or_else(|| Label::new(request.to, None)).to_string())
}
