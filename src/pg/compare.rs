//! The order of a type by its default btree operator class, and the range of values seen in a column.

use std::cmp::Ordering;
use std::collections::VecDeque;

use archive_core::codec::{LONGEST_EXTREME, bytes_prefix, float_order, numeric_disk};
use archive_core::schema::PgType;
use pgrx::pg_sys;

use super::columns::Column;
use super::encoding::Encoding;
use super::row::Row;
use super::{datum, varlena};

/// Longest text form of a bound that is kept; a column with a longer one has no range.
const LONGEST_BOUND: usize = 1024;

/// A range, and whether a value too large to compare is beside it.
type Range = (Option<(pg_sys::Datum, pg_sys::Datum)>, bool);

/// Lowest and highest value of the batch that is being filled.
#[derive(Debug)]
struct BatchRange {
    low: Bound,
    high: Bound,
}

/// A copy of a value, with its [prefix](Order::prefix), which nobody asks for of integers.
#[derive(Debug)]
struct Bound {
    datum: pg_sys::Datum,
    prefix: u64,
    /// Bytes allocated at `datum`; none for a value that is passed by value.
    room: usize,
}

/// Lowest and highest value of a column, for one batch and for the object it goes to.
#[derive(Debug)]
pub struct RangeTracker {
    index: usize,
    type_oid: pg_sys::Oid,
    pg_type: PgType,
    order: Order,
    batch: Option<BatchRange>,
    /// The batches that are complete, but not yet known to be in an object.
    complete: VecDeque<Range>,
    object: Option<(pg_sys::Datum, pg_sys::Datum)>,
    /// A value larger than [`LONGEST_EXTREME`], which would take as much memory again, is in the batch, in the object: it has no range.
    unknown: (bool, bool),
}

/// How values of a type are ordered, and how they lie in memory.
#[derive(Debug, Clone, Copy)]
struct Order {
    by: By,
    by_value: bool,
    len: i16,
}

/// What the comparison function of the default btree operator class says; of most types without calling it, since two calls a value
/// would cost more than all else that is done with it.
#[derive(Debug, Clone, Copy)]
enum By {
    /// The datum as a signed integer.
    Integer,
    /// `float4_cmp_internal`, `float8_cmp_internal`: NaN is highest, and equal to itself.
    Float4,
    Float8,
    /// `uuid_internal_cmp`: the sixteen bytes.
    Uuid,
    /// `cmp_numerics`
    Numeric,
    /// `bytea`, and text in collations that sort by bytes.
    Bytes,
    /// The function itself.
    Function {
        compare: *mut pg_sys::FmgrInfo,
        collation: pg_sys::Oid,
    },
}

impl RangeTracker {
    /// A tracker for `column`; `None` for types without a useful order (json, jsonb, arrays, composites).
    ///
    /// `bytewise` says that its collation sorts by bytes. It keeps copies in the memory context that is current when batches are
    /// merged, which must outlive it.
    pub fn new(column: &Column, pg_type: &PgType, bytewise: bool) -> Option<Self> {
        if !pg_type.has_useful_order() {
            return None;
        }
        let order = Order::of(column, pg_type, bytewise)?;
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
    #[inline]
    pub fn observe(&mut self, row: &Row<'_>, keep: &super::memory::MemoryContext) {
        let Some(value) = row.datum(self.index) else { return };
        if let (By::Integer, Some(BatchRange { low, high })) = (self.order.by, &mut self.batch) {
            let number = value.value() as i64;
            if number < low.datum.value() as i64 {
                low.datum = value;
            }
            if number > high.datum.value() as i64 {
                high.datum = value;
            }
            return;
        }
        self.observe_any(value, keep);
    }

    #[inline]
    fn observe_any(&mut self, value: pg_sys::Datum, keep: &super::memory::MemoryContext) {
        let Some(prefix) = self.order.prefix(value) else {
            self.unknown.0 = true;
            return;
        };
        match &self.batch {
            // Most values are between the two, and mostly their first bytes say so.
            Some(batch) if batch.low.prefix < prefix && prefix < batch.high.prefix => {}
            _ => self.widen(value, prefix, keep),
        }
    }

    fn widen(&mut self, value: pg_sys::Datum, prefix: u64, keep: &super::memory::MemoryContext) {
        let order = self.order;
        let Some(BatchRange { low, high }) = &mut self.batch else {
            let bound = || keep.within(|| order.bound(value, prefix));
            self.batch = Some(BatchRange { low: bound(), high: bound() });
            return;
        };
        // The values decide where the prefixes are equal.
        let compared = |bound: &Bound| prefix.cmp(&bound.prefix).then_with(|| order.compare(value, bound.datum));
        if compared(low).is_lt() {
            keep.within(|| order.replace_by_copy(low, value, prefix));
        } else if compared(high).is_gt() {
            keep.within(|| order.replace_by_copy(high, value, prefix));
        }
    }

    /// The batch is complete.
    pub fn hand_over(&mut self) {
        let range = self.batch.take().map(|BatchRange { low, high }| (low.datum, high.datum));
        self.complete.push_back((range, std::mem::take(&mut self.unknown.0)));
    }

    /// Adds the range of the first batch that is complete to the object's.
    pub fn merge_batch(&mut self) {
        let (range, unknown) = self.complete.pop_front().unwrap_or_default();
        self.unknown.1 |= unknown;
        if let Some((low, high)) = range {
            self.merge(low, high);
        }
    }

    /// Whether its order is the one in which a batch tells the extremes of its values ([`archive_core::codec::Extremes`]).
    pub fn has_the_order_of_batches(&self) -> bool {
        match self.pg_type {
            // Other encodings may sort in another way.
            PgType::Text | PgType::Varchar => {
                matches!(self.order.by, By::Bytes) && matches!(Encoding::of_database(), Encoding::Utf8)
            }
            _ => !matches!(self.order.by, By::Function { .. }),
        }
    }

    /// Adds a value that is not known to the object's range.
    pub fn merge_unknown(&mut self) {
        self.unknown.1 = true;
    }

    /// Adds the lowest and the highest of some values to the object's range. They are its own from now on, and may be freed.
    pub fn merge(&mut self, low: pg_sys::Datum, high: pg_sys::Datum) {
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
    fn of(column: &Column, pg_type: &PgType, bytewise: bool) -> Option<Self> {
        let (by, by_value, len) = match pg_type {
            PgType::Bool
            | PgType::Int2
            | PgType::Int4
            | PgType::Int8
            | PgType::Money
            | PgType::Date
            | PgType::Time
            | PgType::Timestamp
            | PgType::TimestampTz => (By::Integer, true, 8),
            PgType::Float4 => (By::Float4, true, 4),
            PgType::Float8 => (By::Float8, true, 8),
            PgType::Uuid => (By::Uuid, false, 16),
            PgType::Numeric { .. } | PgType::UnboundedNumeric => (By::Numeric, false, -1),
            PgType::Bytea => (By::Bytes, false, -1),
            PgType::Text | PgType::Varchar if bytewise => (By::Bytes, false, -1),
            _ => return Self::by_function(column),
        };
        Some(Self { by, by_value, len })
    }

    fn by_function(column: &Column) -> Option<Self> {
        // SAFETY: lookup_type_cache returns an entry that lives as long as the backend.
        unsafe {
            let entry = pg_sys::lookup_type_cache(column.type_oid, pg_sys::TYPECACHE_CMP_PROC_FINFO as i32);
            if (*entry).cmp_proc_finfo.fn_oid == pg_sys::InvalidOid {
                return None;
            }
            let by = By::Function { compare: &raw mut (*entry).cmp_proc_finfo, collation: column.collation };
            Some(Self { by, by_value: (*entry).typbyval, len: (*entry).typlen })
        }
    }

    #[inline]
    fn is_too_large(&self, value: pg_sys::Datum) -> bool {
        // SAFETY: a varlena, compressed or out of line perhaps.
        self.len == -1 && unsafe { varlena::raw_size(value) } > LONGEST_EXTREME
    }

    /// A number that is never larger for a lower value: where those of two values differ, they say which one is lower. `None` for a
    /// value that is too large to be compared.
    #[inline]
    fn prefix(&self, value: pg_sys::Datum) -> Option<u64> {
        if self.is_too_large(value) {
            return None;
        }
        // SAFETY: a value of the type, which the order was chosen by.
        Some(unsafe {
            match self.by {
                By::Integer => (value.value() as i64).cast_unsigned() ^ (1 << 63),
                By::Float4 => float_order(f32::from_bits(value.value() as u32).into()),
                By::Float8 => float_order(f64::from_bits(value.value() as u64)),
                By::Uuid => bytes_prefix(&*value.cast_mut_ptr::<[u8; 16]>()),
                By::Numeric => numeric_disk::parse(varlena::payload(value)).order_prefix(),
                By::Bytes => bytes_prefix(varlena::payload(value)),
                // It says nothing, so that the function is always called.
                By::Function { .. } => 0,
            }
        })
    }

    #[inline]
    fn compare(&self, a: pg_sys::Datum, b: pg_sys::Datum) -> Ordering {
        // SAFETY: both are values of the type, which the order was chosen by; they outlive the comparison.
        unsafe {
            match self.by {
                By::Integer => (a.value() as i64).cmp(&(b.value() as i64)),
                By::Float4 => floats(f32::from_bits(a.value() as u32).into(), f32::from_bits(b.value() as u32).into()),
                By::Float8 => floats(f64::from_bits(a.value() as u64), f64::from_bits(b.value() as u64)),
                By::Uuid => (*a.cast_mut_ptr::<[u8; 16]>()).cmp(&*b.cast_mut_ptr::<[u8; 16]>()),
                By::Numeric => {
                    let numeric = |value| numeric_disk::parse(varlena::payload(value));
                    numeric(a).compare(&numeric(b))
                }
                By::Bytes => varlena::payload(a).cmp(varlena::payload(b)),
                // The type cache entry lives as long as the backend.
                By::Function { compare, collation } => {
                    (pg_sys::FunctionCall2Coll(compare, collation, a, b).value() as i32).cmp(&0)
                }
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
        if !self.by_value {
            // SAFETY: a copy that `bound` allocated and nobody else refers to.
            unsafe { pg_sys::pfree(value.cast_mut_ptr()) }
        }
    }

    /// A copy of a value in the current memory context.
    fn bound(&self, value: pg_sys::Datum, prefix: u64) -> Bound {
        let datum = datum::copy(value, self.by_value, self.len);
        Bound { datum, prefix, room: self.plain_size(datum).unwrap_or(0) }
    }

    /// Another value in the place of `bound`, in the memory that it has where that is enough: in a column that ascends each value is
    /// the highest so far.
    fn replace_by_copy(&self, bound: &mut Bound, value: pg_sys::Datum, prefix: u64) {
        match self.plain_size(value).filter(|size| *size <= bound.room) {
            Some(size) => {
                // SAFETY: the bound's memory is ours alone and has `room` bytes; the value has as many as were asked for.
                unsafe { std::ptr::copy_nonoverlapping(value.cast_mut_ptr::<u8>(), bound.datum.cast_mut_ptr(), size) }
                bound.prefix = prefix;
            }
            None => {
                let old = std::mem::replace(bound, self.bound(value, prefix));
                self.free(old.datum);
            }
        }
    }

    /// Bytes of a value that is passed by reference and neither compressed nor elsewhere.
    fn plain_size(&self, value: pg_sys::Datum) -> Option<usize> {
        match (self.by_value, self.len) {
            (true, _) => None,
            // SAFETY: a varlena.
            (false, -1) => unsafe { varlena::plain_size(value) },
            (false, len) => usize::try_from(len).ok(),
        }
    }
}

fn floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
