//! Rows per month in a table and its archive, compared with the most there ever were.
//!
//! Archiving and restoring move rows and change no sum. Rows that are added raise it; that it falls, only a DELETE explains, an
//! UPDATE of the time, or a loss.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;
use serde_json::json;

use super::batch::time as time_column;
use crate::catalog::event::{self, Transition};
use crate::catalog::managed_table;
use crate::catalog::month_count::{self, Counted, Reconciled};
use crate::catalog::{self, remnant};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::pg::guc::GucNest;
use crate::pg::{spi, user};

/// Counts the rows of each month and keeps what was found. `accept`: what is missing is explained, and forgotten.
///
/// Reads the whole table, and one column of its whole archive, by one snapshot. Locks: ACCESS SHARE on both. Errors: 42809 what is no
/// table, 42501 for others than the owner and where row security hides rows, those of the time column, 55000 when something is in
/// glacier.
pub fn reconcile(source: pg_sys::Oid, time: Option<&str>, accept: bool) -> Result<Vec<Reconciled>> {
    let table = table(source)?;
    let time = time_column(&table, time)?;
    let months = month_count::record(source, &count(&table, &time)?, accept)?;
    let missing: i64 = months.iter().map(Reconciled::missing).sum();
    if accept && missing > 0 {
        event::record_transition(&Transition {
            table: source,
            partition: &table.qualified(),
            event: "counts accepted",
            from: None,
            to: None,
            reason: "reconcile_counts was called with accept",
            job: None,
            details: json!({ "missing": missing }),
        })?;
    }
    Ok(months)
}

fn count(table: &Leaf, time: &str) -> Result<Vec<Counted>> {
    let archive = managed_table::of_source(table.oid)?.and_then(|managed| managed.archive_table);
    let archive = archive.map(catalog::qualified_name).transpose()?;
    let time = quote_identifier(time);
    let select = |relation: &str, archived: bool| {
        format!(
            "SELECT coalesce(pg_catalog.date_trunc('month', t.{time}::pg_catalog.timestamptz)::pg_catalog.date, '-infinity') AS month, \
                    {archived} AS archived FROM {relation} t"
        )
    };
    // What stays of archived rows is counted there.
    let live = remnant::of(table.oid)?.map_or_else(String::new, |marker| format!(" WHERE {}", marker.live("t")));
    let mut selects = vec![format!("{}{live}", select(&table.qualified(), false))];
    selects.extend(archive.map(|archive| select(&archive, true)));
    let query = format!(
        "SELECT r.month::pg_catalog.text, pg_catalog.count(*) FILTER (WHERE NOT r.archived), \
                pg_catalog.count(*) FILTER (WHERE r.archived) FROM ({}) r GROUP BY r.month",
        selects.join(" UNION ALL ")
    );
    // Months are those of UTC, whoever counts.
    let _settings = GucNest::new().set(c"timezone", "UTC").set(c"datestyle", "ISO");
    user::own_sql(user::current(), || {
        spi::rows(&query, &[], |row| Ok(Counted { month: row.need(1)?, hot: row.need(2)?, archived: row.need(3)? }))
    })
}

/// The table, of which the caller must see every row.
fn table(source: pg_sys::Oid) -> Result<Leaf> {
    let found = discover::leaf(source)?
        .filter(|table| matches!(table.kind, 'r' | 'p') && table.root.is_none_or(|root| root == source));
    let Some(table) = found else {
        return Err(Error::new(
            SqlState::ERRCODE_WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a table, or a partition", catalog::qualified_name(source)?),
        )
        .hint("Name the table that rows are inserted into."));
    };
    if !user::has_privileges_of(table.owner) {
        let message = format!("must be owner of table {}", table.qualified());
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, message));
    }
    if user::row_security_applies(source) {
        let message = format!("row-level security hides rows of \"{}\"", table.qualified());
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
            .detail("Counts of some of the rows would look like a loss.")
            .hint("Call it as a role that row-level security does not apply to."));
    }
    Ok(table)
}
