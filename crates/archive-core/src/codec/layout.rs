//! How the values of a column are laid out in Parquet, chosen by what the first batch of an object looks like: a dictionary of values
//! that hardly repeat costs time and is given up in the end, and numbers that follow each other are small when only their differences
//! are written.

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};

/// Values of a batch that are looked at.
const SAMPLE: usize = 4096;
/// Fewer than these tell nothing. Tests write few rows, of all layouts.
const FEW: usize = if cfg!(test) { 3 } else { 256 };
/// Bytes at either end by which long values are told apart.
const END: usize = 32;
/// Blocks of an array that are looked at to see whether its values go up or down: about as many as a column has pages to skip.
const BLOCKS: usize = 16;
/// Digits of a decimal that Parquet stores as a 64-bit integer.
const INTEGER_DIGITS: u8 = 18;

/// How a column is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Layout {
    /// A dictionary, as long as it pays.
    #[default]
    Dictionary,
    /// Differences of integers: `DELTA_BINARY_PACKED`, which Spark reads since 3.3.
    Differences,
    /// The same of integers that go up, or down, as those of a key do that a sequence made.
    Ordered,
    /// As they are. Floats, too: `BYTE_STREAM_SPLIT` would make them smaller, but Spark's vectorized reader does not read it.
    Plain,
}

impl Layout {
    /// The layout for values like these.
    pub(super) fn of(array: &dyn Array) -> Self {
        match array.data_type() {
            DataType::Int16 => of_integers::<Int16Type>(array.as_primitive(), |v| v.into()),
            DataType::Int32 => of_integers::<Int32Type>(array.as_primitive(), |v| v.into()),
            DataType::Int64 => of_integers::<Int64Type>(array.as_primitive(), |v| v),
            DataType::Date32 => of_integers::<Date32Type>(array.as_primitive(), |v| v.into()),
            DataType::Time64(_) => of_integers::<Time64MicrosecondType>(array.as_primitive(), |v| v),
            DataType::Timestamp(..) => of_integers::<TimestampMicrosecondType>(array.as_primitive(), |v| v),
            DataType::Decimal128(digits, _) if *digits <= INTEGER_DIGITS => {
                of_integers::<Decimal128Type>(array.as_primitive(), |v| v as i64)
            }
            DataType::Float32 => of_floats::<Float32Type>(array.as_primitive(), |v| v.to_bits().into()),
            DataType::Float64 => of_floats::<Float64Type>(array.as_primitive(), |v| v.to_bits()),
            DataType::Utf8 => of_bytes(array, |at| array.as_string::<i32>().value(at).as_bytes()),
            DataType::Binary => of_bytes(array, |at| array.as_binary::<i32>().value(at)),
            DataType::FixedSizeBinary(_) => of_bytes(array, |at| array.as_fixed_size_binary().value(at)),
            _ => Self::Dictionary,
        }
    }
}

/// Places all over an array that are not NULL.
fn sample(array: &dyn Array) -> impl Iterator<Item = usize> {
    (0..array.len()).step_by(array.len().div_ceil(SAMPLE).max(1)).filter(|at| array.is_valid(*at))
}

/// Whether hardly a value of what was looked at came twice: those of a few thousand make a useful dictionary.
fn hardly_repeats<T: Eq + Hash>(values: impl Iterator<Item = T>) -> bool {
    let mut seen = 0;
    let distinct: HashSet<T> = values.inspect(|_| seen += 1).collect();
    seen >= FEW && distinct.len() > seen / 8 * 7
}

fn of_integers<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, number: impl Fn(T::Native) -> i64) -> Layout {
    let value = |at: usize| number(array.value(at));
    if !hardly_repeats(sample(array).map(value)) {
        return Layout::Dictionary;
    }
    // A quarter must be saved, else unpacking costs more than it gains.
    let (mut bits, mut steps) = (0, 0);
    for at in sample(array).filter(|at| at + 1 < array.len() && array.is_valid(at + 1)) {
        bits += i64::BITS - value(at + 1).wrapping_sub(value(at)).unsigned_abs().leading_zeros() + 1;
        steps += 1;
    }
    let width = if size_of::<T::Native>() <= 4 { i32::BITS } else { i64::BITS };
    match steps > 0 && bits <= steps * width / 4 * 3 {
        true if is_ordered(array, value) => Layout::Ordered,
        true => Layout::Differences,
        false => Layout::Plain,
    }
}

/// Whether the ranges of blocks of values follow each other, so that hardly a value is in two of them.
fn is_ordered<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, value: impl Fn(usize) -> i64) -> bool {
    let block = array.len().div_ceil(BLOCKS).max(1);
    let range = |begin: usize| {
        let rows = (begin..(begin + block).min(array.len())).filter(|at| array.is_valid(*at));
        rows.map(&value)
            .fold(None, |range, v| range.map_or(Some((v, v)), |(low, high)| Some((v.min(low), v.max(high)))))
    };
    let ranges: Vec<(i64, i64)> = (0..array.len()).step_by(block).filter_map(range).collect();
    let span = |low: i64, high: i64| i128::from(high) - i128::from(low);
    let low = ranges.iter().map(|range| range.0).min().unwrap_or(0);
    let high = ranges.iter().map(|range| range.1).max().unwrap_or(0);
    // What of them would be in the wrong place if all went up, if all went down.
    let pairs = ranges.iter().zip(ranges.iter().skip(1));
    let (up, down) = pairs.fold((0, 0), |(up, down), (first, second)| {
        (up + span(second.0, first.1).max(0), down + span(first.0, second.1).max(0))
    });
    up.min(down) <= span(low, high) / BLOCKS as i128
}

fn of_floats<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, bits: impl Fn(T::Native) -> u64) -> Layout {
    match hardly_repeats(sample(array).map(|at| bits(array.value(at)))) {
        true => Layout::Plain,
        false => Layout::Dictionary,
    }
}

fn of_bytes<'a>(array: &dyn Array, value: impl Fn(usize) -> &'a [u8]) -> Layout {
    let ends = |value: &'a [u8]| {
        let tail = value.get(value.len().saturating_sub(END)..).unwrap_or_default();
        (value.len(), value.get(..END).unwrap_or(value), tail)
    };
    if hardly_repeats(sample(array).map(|at| ends(value(at)))) { Layout::Plain } else { Layout::Dictionary }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray};

    use super::*;

    /// Numbers without any order.
    fn scattered(n: i64) -> i64 {
        n.wrapping_mul(0x5851_F42D_4C95_7F2D_u64.cast_signed()).rotate_left(31).wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    #[test]
    fn integers() {
        let of = |numbers: Vec<i64>| Layout::of(&Int64Array::from(numbers));
        assert_eq!(of((0..20_000).collect()), Layout::Ordered);
        assert_eq!(of((0..20_000).map(|n| 20_000 - n / 2).collect()), Layout::Ordered);
        assert_eq!(of((0..20_000).map(|n| scattered(n) >> 40).collect()), Layout::Differences);
        assert_eq!(of((0..20_000).map(|n| n % 100).collect()), Layout::Dictionary);
        assert_eq!(of((0..20_000).map(scattered).collect()), Layout::Plain);
        assert_eq!(of((0..2).collect()), Layout::Dictionary);
        assert_eq!(of(vec![]), Layout::Dictionary);
        assert_eq!(of([i64::MIN, i64::MAX].repeat(2000)), Layout::Dictionary);
        assert_eq!(Layout::of(&Int64Array::new_null(10_000)), Layout::Dictionary);
        let gaps: Int32Array = (0..20_000).map(|n| (n % 3 > 0).then_some(n)).collect();
        assert_eq!(Layout::of(&gaps), Layout::Ordered);
    }

    #[test]
    fn integers_are_ordered_when_pages_of_them_hardly_overlap() {
        for rows in [8192, 20_000] {
            let of = |number: fn(i64) -> i64| Layout::of(&Int64Array::from_iter_values((0..rows).map(number)));
            // Sessions that take numbers from a sequence are not always done in that order.
            assert_eq!(of(|n| n ^ 7), Layout::Ordered);
            assert_eq!(of(|n| -(n ^ 7)), Layout::Ordered);
            assert_eq!(of(|n| n / 2 + n % 2 * 1_000_000), Layout::Differences);
            assert_eq!(of(|n| n % 100 * 1000 + n / 100), Layout::Differences);
            assert_eq!(of(|n| n % 2000 * 10 + n / 2000), Layout::Differences);
            assert_eq!(of(|n| if n % 1000 == 7 { -n } else { n }), Layout::Differences);
        }
    }

    #[test]
    fn floats_and_texts() {
        let floats = |repeats: u32| Float64Array::from_iter_values((0..20_000).map(|n| f64::from(n / repeats) / 7.0));
        assert_eq!(Layout::of(&floats(1)), Layout::Plain);
        assert_eq!(Layout::of(&floats(500)), Layout::Dictionary);
        let texts = |repeats: i32| StringArray::from_iter_values((0..20_000).map(|n| format!("name {}", n / repeats)));
        assert_eq!(Layout::of(&texts(1)), Layout::Plain);
        assert_eq!(Layout::of(&texts(500)), Layout::Dictionary);
    }
}
