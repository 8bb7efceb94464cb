//! The order of a type by its default btree operator class, and the range of values seen in a column.

use std::cmp::Ordering;
use std::collections::VecDeque;

use archive_core::schema::PgType;
use pgrx::pg_sys;

use super::columns::Column;
use super::datum;
use super::row::Row;

/// Longest text form of a bound that is kept; a column with a longer one has no range.
const LONGEST_BOUND: usize = 1024;
/// Larger values are not even compared: that would take as much memory again. Their object has no range of the column.
const LARGEST_COMPARED: usize = 64 << 10;

/// A range, and whether a value too large to compare is beside it.
type Range = (Option<(pg_sys::Datum, pg_sys::Datum)>, bool);

/// Lowest and highest value of a column, for one batch and for the object it goes to.
#[derive(Debug)]
pub struct RangeTracker {
    index: usize,
    type_oid: pg_sys::Oid,
    pg_type: PgType,
    order: Order,
    batch: Option<(pg_sys::Datum, pg_sys::Datum)>,
    /// The batches that are complete, but not yet known to be in an object.
    complete: VecDeque<Range>,
    object: Option<(pg_sys::Datum, pg_sys::Datum)>,
    /// A value too large to compare is in the batch, in the object.
    unknown: (bool, bool),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    /// By-value types whose datum orders as a signed integer.
    Integer,
    /// The comparison function of the default btree operator class.
    Function { compare: *mut pg_sys::FmgrInfo, collation: pg_sys::Oid, by_value: bool, len: i16 },
}

impl RangeTracker {
    /// A tracker for `column`; `None` for types without a useful order (json, jsonb, arrays, composites).
    ///
    /// It keeps copies in the memory context that is current when batches are merged, which must outlive it.
    pub fn new(column: &Column, pg_type: &PgType) -> Option<Self> {
        let order = match pg_type {
            _ if !pg_type.has_useful_order() => return None,
            PgType::Bool
            | PgType::Int2
            | PgType::Int4
            | PgType::Int8
            | PgType::Money
            | PgType::Date
            | PgType::Time
            | PgType::Timestamp
            | PgType::TimestampTz => Order::Integer,
            _ => function(column)?,
        };
        Some(Self {
            index: column.index,
            type_oid: column.type_oid,
            pg_type: pg_type.clone(),
            order,
            batch: None,
            complete: VecDeque::new(),
            object: None,
            unknown: (false, false),
        })
    }

    /// Takes the column's value in `row` into the batch's range.
    pub fn observe(&mut self, row: &Row<'_>, keep: &super::memory::MemoryContext) {
        let Some(value) = row.datum(self.index) else { return };
        if self.order.is_too_large(value) {
            self.unknown.0 = true;
            return;
        }
        let (below, above) = match &self.batch {
            None => (true, true),
            Some((low, high)) => (
                self.order.compare(value, *low) == Ordering::Less,
                self.order.compare(value, *high) == Ordering::Greater,
            ),
        };
        let copy = || keep.within(|| self.order.copy(value));
        self.batch = Some(match self.batch {
            None => (copy(), copy()),
            Some((low, high)) => (
                if below { self.order.replace(low, copy()) } else { low },
                if above { self.order.replace(high, copy()) } else { high },
            ),
        });
    }

    /// The batch is complete.
    pub fn hand_over(&mut self) {
        self.complete.push_back((self.batch.take(), std::mem::take(&mut self.unknown.0)));
    }

    /// Adds the range of the first batch that is complete to the object's.
    pub fn merge_batch(&mut self) {
        let (range, unknown) = self.complete.pop_front().unwrap_or_default();
        self.unknown.1 |= unknown;
        let Some((low, high)) = range else { return };
        let order = self.order;
        self.object = Some(match self.object {
            None => (low, high),
            Some((object_low, object_high)) => {
                (order.keep(low, object_low, Ordering::Less), order.keep(high, object_high, Ordering::Greater))
            }
        });
    }

    /// The object's range as text, and a fresh start for the next object.
    pub fn take_object(&mut self) -> Option<(String, String)> {
        let unknown = std::mem::take(&mut self.unknown.1);
        let (lowest, highest) = self.object.take()?;
        let text = |bound| datum::bound_text(self.type_oid, &self.pg_type, bound);
        let texts = text(lowest).zip(text(highest));
        self.order.free(lowest);
        self.order.free(highest);
        texts.filter(|(low, high)| !unknown && low.len() <= LONGEST_BOUND && high.len() <= LONGEST_BOUND)
    }
}

impl Order {
    fn is_too_large(&self, value: pg_sys::Datum) -> bool {
        // SAFETY: a varlena, compressed or out of line perhaps; its size is in its header.
        matches!(self, Self::Function { by_value: false, len: -1, .. })
            && unsafe { pg_sys::toast_raw_datum_size(value) } > LARGEST_COMPARED
    }

    fn compare(&self, a: pg_sys::Datum, b: pg_sys::Datum) -> Ordering {
        match self {
            Self::Integer => (a.value() as i64).cmp(&(b.value() as i64)),
            Self::Function { compare, collation, .. } => {
                // SAFETY: the type cache entry lives as long as the backend; both datums are of its type.
                let order = unsafe { pg_sys::FunctionCall2Coll(*compare, *collation, a, b) };
                (order.value() as i32).cmp(&0)
            }
        }
    }

    /// The one of two kept values that is `wanted` against the other; the other is freed.
    fn keep(&self, new: pg_sys::Datum, old: pg_sys::Datum, wanted: Ordering) -> pg_sys::Datum {
        if self.compare(new, old) == wanted { self.replace(old, new) } else { self.replace(new, old) }
    }

    /// Frees `old`; `new` takes its place.
    fn replace(&self, old: pg_sys::Datum, new: pg_sys::Datum) -> pg_sys::Datum {
        self.free(old);
        new
    }

    fn free(&self, value: pg_sys::Datum) {
        if let Self::Function { by_value: false, .. } = self {
            // SAFETY: a copy that `copy` allocated and nobody else refers to.
            unsafe { pg_sys::pfree(value.cast_mut_ptr()) }
        }
    }

    fn copy(&self, value: pg_sys::Datum) -> pg_sys::Datum {
        match self {
            Self::Integer => value,
            Self::Function { by_value, len, .. } => datum::copy(value, *by_value, *len),
        }
    }
}

fn function(column: &Column) -> Option<Order> {
    // SAFETY: lookup_type_cache returns an entry that lives as long as the backend.
    unsafe {
        let entry = pg_sys::lookup_type_cache(column.type_oid, pg_sys::TYPECACHE_CMP_PROC_FINFO as i32);
        if (*entry).cmp_proc_finfo.fn_oid == pg_sys::InvalidOid {
            return None;
        }
        Some(Order::Function {
            compare: &raw mut (*entry).cmp_proc_finfo,
            collation: column.collation,
            by_value: (*entry).typbyval,
            len: (*entry).typlen,
        })
    }
}
