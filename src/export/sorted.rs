//! Rows that were sorted, written to objects: those of each month to objects of their own.

use archive_core::codec::{Digest, Value};
use archive_core::lifecycle::{Granularity, Moment};
use archive_core::naming::HiveDate;
use archive_core::store::BlockingStore;

use super::{Export, ExportSource, Exported, Objects, StoreSink, Tick};
use crate::error::Result;
use crate::pg::guc::GucNest;
use crate::pg::row::Row;
use crate::pg::sort::RowSort;

/// Names an object: the month of its rows, and its number among those of the month.
type MonthKey<'a> = &'a dyn Fn(Option<HiveDate>, u32) -> String;

/// Writes the rows of `sort` in its order. `time` is the column, by its place in the source, whose months part the objects.
pub fn sorted(
    source: &ExportSource,
    sort: &mut RowSort,
    time: Option<usize>,
    objects: &Objects,
    store: &BlockingStore,
    key: MonthKey<'_>,
    tick: Tick<'_>,
) -> Result<Exported> {
    source.as_owner(|| sorted_as_owner(source, sort, time, objects, store, key, tick))
}

fn sorted_as_owner(
    source: &ExportSource,
    sort: &mut RowSort,
    time: Option<usize>,
    objects: &Objects,
    store: &BlockingStore,
    key: MonthKey<'_>,
    tick: Tick<'_>,
) -> Result<Exported> {
    let _text = GucNest::lossless_text();
    let mut all = Exported::nothing(Digest::default());
    let month = |row: &Row<'_>| month(source, time, row);
    let mut rows_before = 0;
    let mut more = sort.advance();
    while more {
        let date = sort.visit(|row| month(&row))?;
        let named = |ordinal| key(date, ordinal);
        let mut export = Export::new(source, objects.clone(), StoreSink::new(store, &named))?;
        while more && sort.visit(|row| month(&row))? == date {
            sort.visit(|row| export.row(&row))?;
            if export.writer.is_full() {
                export.flush()?;
            }
            export.tick(&mut |rows, bytes| tick(rows_before + rows, bytes));
            more = sort.advance();
        }
        let written = export.finish()?;
        rows_before += written.digest.rows;
        all.digest.merge(&written.digest);
        all.objects.extend(written.objects);
        all.filters.extend(written.filters);
    }
    Ok(all)
}

fn month(source: &ExportSource, time: Option<usize>, row: &Row<'_>) -> Result<Option<HiveDate>> {
    let Some(io) = time.and_then(|at| source.io.get(at)) else { return Ok(None) };
    let seconds = match io.read(row)? {
        Some(Value::Timestamp(micros)) => micros.div_euclid(1_000_000),
        Some(Value::Date(days)) => i64::from(days) * 86_400,
        _ => return Ok(None),
    };
    Ok(Moment::after_2000(seconds).map(|at| HiveDate::new(at, Granularity::Month)))
}
