//! Reads what Parquet recorded about row groups and pages into the terms of pruning.

use std::ops::Range;

use parquet::bloom_filter::Sbbf;
use parquet::data_type::AsBytes;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::bind::Bound as Column;
use super::parquet_file::can_bloom;
use super::prune::{Bound, Point, Prepared, Stats, may_match};
use crate::schema::{PgType, Storage};

/// What is known about a column in a row group.
pub(super) fn group_stats(column: &Column, group: &RowGroupMetaData) -> Stats {
    let rows = u64::try_from(group.num_rows()).unwrap_or(0);
    let mut stats = Stats { rows, outliers: has_outliers(column, group, rows), ..Stats::default() };
    let native = group.columns().get(column.native.leaf).and_then(ColumnChunkMetaData::statistics);
    if let Some(native) = native {
        stats.nulls = native.null_count_opt();
        if !native.is_min_max_deprecated() {
            (stats.min, stats.max) = bounds(native, &column.pg_type);
        }
    }
    stats
}

/// Whether the sidecar holds values in the row group; yes when it does not say.
fn has_outliers(column: &Column, group: &RowGroupMetaData, rows: u64) -> bool {
    let Some(place) = column.sidecar else { return false };
    let sidecar = group.columns().get(place.leaf).and_then(ColumnChunkMetaData::statistics);
    sidecar.and_then(Statistics::null_count_opt) != Some(rows)
}

fn bounds(statistics: &Statistics, pg_type: &PgType) -> (Option<Bound>, Option<Bound>) {
    let int = |v: Option<i128>| v.map(Bound::Int);
    let bytes = |v: Option<&[u8]>| v.and_then(|v| bytes_bound(v, pg_type));
    match statistics {
        Statistics::Boolean(s) => (int(s.min_opt().map(|v| i128::from(*v))), int(s.max_opt().map(|v| i128::from(*v)))),
        Statistics::Int32(s) => (int(s.min_opt().map(|v| i128::from(*v))), int(s.max_opt().map(|v| i128::from(*v)))),
        Statistics::Int64(s) => (int(s.min_opt().map(|v| i128::from(*v))), int(s.max_opt().map(|v| i128::from(*v)))),
        Statistics::Float(s) => {
            (s.min_opt().and_then(|v| float(f64::from(*v))), s.max_opt().and_then(|v| float(f64::from(*v))))
        }
        Statistics::Double(s) => (s.min_opt().and_then(|v| float(*v)), s.max_opt().and_then(|v| float(*v))),
        Statistics::ByteArray(s) => (bytes(s.min_opt().map(|v| v.data())), bytes(s.max_opt().map(|v| v.data()))),
        Statistics::FixedLenByteArray(s) => {
            (bytes(s.min_opt().map(|v| v.data())), bytes(s.max_opt().map(|v| v.data())))
        }
        Statistics::Int96(_) => (None, None),
    }
}

fn float(value: f64) -> Option<Bound> {
    (!value.is_nan()).then_some(Bound::Float(value))
}

/// Decimals of many digits are big-endian two's complement; everything else is compared bytewise.
fn bytes_bound(bytes: &[u8], pg_type: &PgType) -> Option<Bound> {
    match pg_type.storage() {
        Storage::Decimal(..) => big_endian(bytes).map(Bound::Int),
        _ => Some(Bound::Bytes(bytes.to_vec())),
    }
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut wide = if negative { [0xff; 16] } else { [0; 16] };
    let start = wide.len().checked_sub(bytes.len())?;
    wide.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

/// The rows of the row group, relative to its start, whose pages may match; `None` when the index cannot say.
pub(super) fn matching_rows(
    column: &Column,
    test: &Prepared,
    group: &Stats,
    metadata: &ParquetMetaData,
    index: usize,
) -> Option<Vec<Range<u64>>> {
    let pages = metadata.page_index()?.column_index(index, column.native.leaf)?;
    let starts = page_starts(column, group.rows, metadata, index)?;
    if pages.num_pages() != starts.len() as u64 - 1 {
        return None;
    }
    let ranges = starts.iter().zip(starts.iter().skip(1)).enumerate();
    let kept = ranges.filter(|(i, (start, end))| may_match(test, &page_stats(column, pages, *i, group, *end - *start)));
    Some(kept.map(|(_, (start, end))| *start..*end).collect())
}

/// First row of each page and the end; `None` unless they ascend.
fn page_starts(column: &Column, rows: u64, metadata: &ParquetMetaData, index: usize) -> Option<Vec<u64>> {
    let locations = metadata.page_index()?.offset_index(index, column.native.leaf)?.page_locations();
    let mut starts = Vec::with_capacity(locations.len() + 1);
    for location in locations {
        starts.push(u64::try_from(location.first_row_index).ok()?);
    }
    starts.push(rows);
    let ascending = starts.first() == Some(&0) && starts.is_sorted();
    ascending.then_some(starts)
}

fn page_stats(column: &Column, pages: &ColumnIndexMetaData, i: usize, group: &Stats, rows: u64) -> Stats {
    let (min, max) = page_bounds(pages, i, &column.pg_type);
    let nulls =
        if pages.is_null_page(i) { Some(rows) } else { pages.null_count(i).and_then(|n| u64::try_from(n).ok()) };
    Stats { min, max, nulls, rows, outliers: group.outliers }
}

fn page_bounds(pages: &ColumnIndexMetaData, i: usize, pg_type: &PgType) -> (Option<Bound>, Option<Bound>) {
    let int = |v: Option<i128>| v.map(Bound::Int);
    let bytes = |v: Option<&[u8]>| v.and_then(|v| bytes_bound(v, pg_type));
    match pages {
        ColumnIndexMetaData::BOOLEAN(p) => {
            (int(p.min_value(i).map(|v| i128::from(*v))), int(p.max_value(i).map(|v| i128::from(*v))))
        }
        ColumnIndexMetaData::INT32(p) => {
            (int(p.min_value(i).map(|v| i128::from(*v))), int(p.max_value(i).map(|v| i128::from(*v))))
        }
        ColumnIndexMetaData::INT64(p) => {
            (int(p.min_value(i).map(|v| i128::from(*v))), int(p.max_value(i).map(|v| i128::from(*v))))
        }
        ColumnIndexMetaData::FLOAT(p) => {
            (p.min_value(i).and_then(|v| float(f64::from(*v))), p.max_value(i).and_then(|v| float(f64::from(*v))))
        }
        ColumnIndexMetaData::DOUBLE(p) => {
            (p.min_value(i).and_then(|v| float(*v)), p.max_value(i).and_then(|v| float(*v)))
        }
        ColumnIndexMetaData::BYTE_ARRAY(p) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(p) => {
            (bytes(p.min_value(i)), bytes(p.max_value(i)))
        }
        ColumnIndexMetaData::INT96(_) => (None, None),
    }
}

/// Whether a bloom filter can answer the test.
pub(super) fn asks_bloom(column: &Column, test: &Prepared) -> bool {
    matches!(test, Prepared::OneOf(_)) && can_bloom(&column.pg_type)
}

/// The bytes of the bloom filter of a column chunk.
pub(super) fn bloom_range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
    let length = u64::try_from(chunk.bloom_filter_length()?).ok()?;
    Some(start..start.checked_add(length)?)
}

/// Whether one of the constants may be among the values.
pub(super) fn bloom_may_match(filter: &Sbbf, column: &Column, test: &Prepared, chunk: &ColumnChunkMetaData) -> bool {
    match test {
        Prepared::OneOf(points) => points.iter().any(|point| contains(filter, column, point, chunk)),
        _ => true,
    }
}

fn contains(filter: &Sbbf, column: &Column, point: &Point, chunk: &ColumnChunkMetaData) -> bool {
    match (point, column.pg_type.storage()) {
        (Point::Bytes(bytes), _) => filter.check(bytes.as_slice()),
        (Point::Int { exact: false, .. }, _) => false,
        (Point::Int { floor, .. }, storage) => contains_int(filter, *floor, &storage, chunk),
        // The filter hashes bits, and both zeros are equal.
        (Point::Float(value), _) if *value == 0.0 => true,
        (Point::Float(value), Storage::Float32) => {
            let narrow = *value as f32;
            f64::from(narrow) == *value && filter.check(&narrow)
        }
        (Point::Float(value), _) => filter.check(value),
    }
}

fn contains_int(filter: &Sbbf, value: i128, storage: &Storage, chunk: &ColumnChunkMetaData) -> bool {
    use parquet::basic::Type;
    match chunk.column_type() {
        Type::INT32 => i32::try_from(value).is_ok_and(|value| filter.check(&value)),
        Type::INT64 => i64::try_from(value).is_ok_and(|value| filter.check(&value)),
        Type::FIXED_LEN_BYTE_ARRAY if matches!(storage, Storage::Decimal(..)) => {
            let length = usize::try_from(chunk.column_descr().type_length()).unwrap_or(0);
            let bytes = value.to_be_bytes();
            let narrow = bytes.len().checked_sub(length).and_then(|start| bytes.get(start..));
            narrow.is_none_or(|narrow| big_endian(narrow) == Some(value) && filter.check(narrow.as_bytes()))
        }
        _ => true,
    }
}
