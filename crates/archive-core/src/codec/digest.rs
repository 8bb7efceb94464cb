//! Row digests (DESIGN §6): an order-free sum of a strong hash of each whole row, sums per column for diagnosis, and
//! the count. Two multisets of rows with one digest are, for all practical purposes, the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::numeric::{Numeric, NumericSign};
use super::value::{ArrayValue, Value};
use crate::schema::TableSchema;

/// Name of the algorithm, recorded in manifests and in the footers of Parquet objects.
pub const DIGEST_ALGORITHM: &str = "xxh3-128-sum.v2";

/// Tags of the kinds of values.
const NULL: u8 = 0;
const BOOL: u8 = 1;
const INT2: u8 = 2;
const INT4: u8 = 3;
const INT8: u8 = 4;
const FLOAT4: u8 = 5;
const FLOAT8: u8 = 6;
const NUMERIC: u8 = 7;
const TEXT: u8 = 8;
const BYTES: u8 = 9;
const DATE: u8 = 10;
const TIME: u8 = 11;
const TIMESTAMP: u8 = 12;
const UUID: u8 = 13;
const ARRAY: u8 = 14;
const UINT4: u8 = 15;
const INTERVAL: u8 = 16;
const REG: u8 = 17;
const UNDECODABLE: u8 = 18;
const COMPOSITE: u8 = 19;
const IMAGE: u8 = 20;
/// Values whose bytes begin with their own tag.
const FORMED: u8 = 255;
/// Null flags of the cells of arrays and composite values.
const IS_NULL: u8 = 1;
const NOT_NULL: u8 = 0;

/// The digest of a set of rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the hashes of the rows.
    #[serde(with = "hex_u128")]
    pub sum: u128,
    /// Sum of the hashes of the values, per field id.
    #[serde(with = "hex_map")]
    pub columns: BTreeMap<i32, u128>,
}

impl Digest {
    /// Adds the rows of another set.
    pub fn merge(&mut self, other: &Digest) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
        for (id, sum) in &other.columns {
            let column = self.columns.entry(*id).or_default();
            *column = column.wrapping_add(*sum);
        }
    }

    /// Takes rows of the set out of it: the reverse of [`Self::merge`].
    pub fn remove(&mut self, other: &Digest) {
        self.rows = self.rows.wrapping_sub(other.rows);
        self.sum = self.sum.wrapping_sub(other.sum);
        for (id, sum) in &other.columns {
            let column = self.columns.entry(*id).or_default();
            *column = column.wrapping_sub(*sum);
        }
    }

    /// Field ids of the columns that differ.
    pub fn differing_columns(&self, other: &Digest) -> Vec<i32> {
        let ids = self.columns.keys().chain(other.columns.keys().filter(|id| !self.columns.contains_key(id)));
        ids.filter(|id| self.columns.get(id) != other.columns.get(id)).copied().collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}/{}", self.sum, self.rows)
    }
}

/// Computes a [`Digest`] row by row. Every column must be given once per row: one that is not keeps the value of the row before.
///
/// A value is hashed from where it is, under a seed of its field id and its kind; the hash of a row is that of the hashes of its
/// values in schema order. So every byte is looked at once and never copied, and a value cannot take the place of another.
pub struct RowHasher {
    fields: Vec<i32>,
    /// The hashes of the values of the current row, in order.
    row: Vec<u8>,
    sum: u128,
    columns: Vec<u128>,
    rows: u64,
    values: ValueHasher,
}

/// Bytes of a hash.
const HASH: usize = size_of::<u128>();
/// Digits of a numeric that is brought into its form without the buffer.
const FEW_DIGITS: usize = 8;
/// Bytes of a numeric before its digits: sign, weight, scale.
const NUMERIC_HEAD: usize = 5;

impl RowHasher {
    /// A hasher of rows of this schema.
    pub fn new(schema: &TableSchema) -> Self {
        let fields: Vec<i32> = schema.fields.iter().map(|field| field.id).collect();
        let (columns, row) = (vec![0; fields.len()], vec![0; fields.len() * HASH]);
        Self { fields, row, sum: 0, columns, rows: 0, values: ValueHasher::default() }
    }

    /// The next column of the current row; `index` counts from 0 in schema order.
    #[inline(always)]
    pub fn column(&mut self, index: usize, value: Option<&Value<'_>>) {
        let Some(id) = self.fields.get(index).copied() else { return };
        let hash = self.values.hash(id, value);
        if let Some(column) = self.columns.get_mut(index) {
            *column = column.wrapping_add(hash);
        }
        if let Some(cell) = self.row.get_mut(index * HASH..(index + 1) * HASH) {
            cell.copy_from_slice(&hash.to_le_bytes());
        }
    }

    /// The row is complete.
    #[inline]
    pub fn end_row(&mut self) {
        self.sum = self.sum.wrapping_add(XxHash3_128::oneshot(&self.row));
        self.rows += 1;
    }

    /// The digest so far.
    pub fn digest(&self) -> Digest {
        let columns = self.fields.iter().copied().zip(self.columns.iter().copied()).collect();
        Digest { rows: self.rows, sum: self.sum, columns }
    }

    /// The digest so far; the hasher starts anew.
    pub fn take(&mut self) -> Digest {
        let digest = self.digest();
        self.columns.fill(0);
        (self.sum, self.rows) = (0, 0);
        digest
    }
}

/// Computes the [`Digest`] that [`RowHasher`] does, of rows whose values are hashed column by column, some rows at a time.
#[derive(Debug)]
pub(super) struct BlockHasher {
    fields: Vec<i32>,
    /// The hashes of the values of the rows of the block, row by row.
    block: Vec<u8>,
    digest: (u64, u128),
    columns: Vec<u128>,
}

impl BlockHasher {
    /// Rows of a block, so that its hashes stay in a processor's cache.
    pub(super) const ROWS: usize = 256;

    /// A hasher of rows with these fields.
    pub(super) fn new(fields: Vec<i32>) -> Self {
        Self {
            block: vec![0; Self::ROWS * fields.len() * HASH],
            columns: vec![0; fields.len()],
            fields,
            digest: (0, 0),
        }
    }

    /// The hash of the value of a column in a row of the block.
    #[inline]
    pub(super) fn put(&mut self, row: usize, column: usize, hash: u128) {
        let at = (row * self.fields.len() + column) * HASH;
        if let (Some(cell), Some(sum)) = (self.block.get_mut(at..at + HASH), self.columns.get_mut(column)) {
            cell.copy_from_slice(&hash.to_le_bytes());
            *sum = sum.wrapping_add(hash);
        }
    }

    /// The block is complete; each of its rows has a hash in every column.
    pub(super) fn end_block(&mut self, rows: usize) {
        let stride = (self.fields.len() * HASH).max(1);
        for row in self.block.chunks_exact(stride).take(rows) {
            self.digest.1 = self.digest.1.wrapping_add(XxHash3_128::oneshot(row));
        }
        self.digest.0 += rows as u64;
    }

    /// The digest of all blocks.
    pub(super) fn finish(self) -> Digest {
        let columns = self.fields.into_iter().zip(self.columns).collect();
        Digest { rows: self.digest.0, sum: self.digest.1, columns }
    }
}

/// Hashes single values.
#[derive(Debug, Default)]
pub(super) struct ValueHasher {
    /// The bytes of a value that has to be brought into a form first.
    form: Vec<u8>,
}

impl ValueHasher {
    /// The hash of a value of the column with this field id.
    #[inline(always)]
    pub(super) fn hash(&mut self, id: i32, value: Option<&Value<'_>>) -> u128 {
        match value {
            None => hash(id, NULL, &[]),
            Some(Value::Bool(v)) => hash(id, BOOL, &[u8::from(*v)]),
            Some(Value::Int2(v)) => hash(id, INT2, &v.to_le_bytes()),
            Some(Value::Int4(v)) => hash(id, INT4, &v.to_le_bytes()),
            Some(Value::Int8(v)) => hash(id, INT8, &v.to_le_bytes()),
            Some(Value::Float4(v)) => hash(id, FLOAT4, &v.to_bits().to_le_bytes()),
            Some(Value::Float8(v)) => hash(id, FLOAT8, &v.to_bits().to_le_bytes()),
            Some(Value::Date(v)) => hash(id, DATE, &v.to_le_bytes()),
            Some(Value::Time(v)) => hash(id, TIME, &v.to_le_bytes()),
            Some(Value::Timestamp(v)) => hash(id, TIMESTAMP, &v.to_le_bytes()),
            Some(Value::Uuid(v)) => hash(id, UUID, v),
            Some(Value::UInt4(v)) => hash(id, UINT4, &v.to_le_bytes()),
            Some(Value::Text(text)) => hash(id, TEXT, text.as_bytes()),
            Some(Value::Bytes(bytes)) => hash(id, BYTES, bytes),
            Some(Value::Undecodable(bytes)) => hash(id, UNDECODABLE, bytes),
            Some(Value::Image(bytes)) => hash(id, IMAGE, bytes),
            Some(Value::Numeric(numeric)) => self.hash_numeric(id, numeric),
            Some(value) => self.formed(id, value),
        }
    }

    /// The hash of a text of these bytes.
    #[inline]
    pub(super) fn hash_text(&self, id: i32, text: &[u8]) -> u128 {
        hash(id, TEXT, text)
    }

    /// The hash of a number.
    #[inline]
    pub(super) fn hash_numeric(&mut self, id: i32, numeric: &Numeric<'_>) -> u128 {
        let (weight, digits) = numeric.normalized();
        if digits.len() <= FEW_DIGITS {
            let mut form = [0; NUMERIC_HEAD + 2 * FEW_DIGITS];
            let used = NUMERIC_HEAD + 2 * digits.len();
            let (head, places) = form.split_at_mut(NUMERIC_HEAD);
            head.copy_from_slice(&numeric_head(numeric, weight));
            for (place, digit) in places.chunks_exact_mut(2).zip(digits) {
                place.copy_from_slice(&numeric.digits.get(digit).to_le_bytes());
            }
            return hash(id, NUMERIC, form.get(..used).unwrap_or_default());
        }
        self.form.clear();
        put_numeric(&mut self.form, numeric);
        hash(id, NUMERIC, &self.form)
    }

    /// A value of another kind: its tag comes first in its form.
    fn formed(&mut self, id: i32, value: &Value<'_>) -> u128 {
        self.form.clear();
        put_value(&mut self.form, value);
        let hash = hash(id, FORMED, &self.form);
        // One huge value must not keep its memory for the rest of the scan.
        if self.form.capacity() > KEEP_CAPACITY {
            self.form = Vec::new();
        }
        hash
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowHasher").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Capacity of the buffer that is kept between values.
const KEEP_CAPACITY: usize = 1 << 20;

/// The hash of the bytes of a value of a column.
#[inline(always)]
fn hash(id: i32, tag: u8, bytes: &[u8]) -> u128 {
    let seed = u64::from(id.cast_unsigned()) << 8 | u64::from(tag);
    // Without a secret of its own only short input is hashed, which needs none; long input is refused.
    XxHash3_128::oneshot_with_seed_and_secret(seed, &[], bytes)
        .unwrap_or_else(|_| XxHash3_128::oneshot_with_seed(seed, bytes))
}

/// Null flag, length, canonical bytes.
pub(super) fn put_cell(out: &mut Vec<u8>, value: Option<&Value<'_>>) {
    let Some(value) = value else {
        out.push(IS_NULL);
        out.extend_from_slice(&0u64.to_le_bytes());
        return;
    };
    out.push(NOT_NULL);
    let length_at = out.len();
    out.extend_from_slice(&[0; 8]);
    let start = out.len();
    put_value(out, value);
    let length = (out.len() - start) as u64;
    if let Some(slot) = out.get_mut(length_at..start) {
        slot.copy_from_slice(&length.to_le_bytes());
    }
}

/// A tag for the kind of value, then its bytes: little-endian integers, raw float bits.
fn put_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Bool(v) => put(out, BOOL, &[u8::from(*v)]),
        Value::Int2(v) => put(out, INT2, &v.to_le_bytes()),
        Value::Int4(v) => put(out, INT4, &v.to_le_bytes()),
        Value::Int8(v) => put(out, INT8, &v.to_le_bytes()),
        Value::Float4(v) => put(out, FLOAT4, &v.to_bits().to_le_bytes()),
        Value::Float8(v) => put(out, FLOAT8, &v.to_bits().to_le_bytes()),
        Value::Numeric(v) => {
            out.push(NUMERIC);
            put_numeric(out, v);
        }
        Value::Text(v) => put(out, TEXT, v.as_bytes()),
        Value::Bytes(v) => put(out, BYTES, v),
        Value::Date(v) => put(out, DATE, &v.to_le_bytes()),
        Value::Time(v) => put(out, TIME, &v.to_le_bytes()),
        Value::Timestamp(v) => put(out, TIMESTAMP, &v.to_le_bytes()),
        Value::Uuid(v) => put(out, UUID, v),
        Value::Array(v) => put_array(out, v),
        Value::UInt4(v) => put(out, UINT4, &v.to_le_bytes()),
        Value::Interval(v) => {
            put(out, INTERVAL, &v.months.to_le_bytes());
            out.extend_from_slice(&v.days.to_le_bytes());
            out.extend_from_slice(&v.micros.to_le_bytes());
        }
        // A renamed object is still the same value.
        Value::Reg(oid, _) => put(out, REG, &oid.to_le_bytes()),
        Value::Undecodable(v) => put(out, UNDECODABLE, v),
        Value::Image(v) => put(out, IMAGE, v),
        Value::Composite(parts) => {
            put(out, COMPOSITE, &(parts.len() as u64).to_le_bytes());
            parts.iter().for_each(|part| put_cell(out, part.as_ref()));
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

/// Sign, weight, scale, digits: the same for every spelling of a value.
fn put_numeric(out: &mut Vec<u8>, numeric: &Numeric<'_>) {
    let (weight, digits) = numeric.normalized();
    out.reserve(NUMERIC_HEAD + 2 * digits.len());
    out.extend_from_slice(&numeric_head(numeric, weight));
    for i in digits {
        out.extend_from_slice(&numeric.digits.get(i).to_le_bytes());
    }
}

#[inline]
fn numeric_head(numeric: &Numeric<'_>, weight: i16) -> [u8; NUMERIC_HEAD] {
    let ([w0, w1], [s0, s1]) = (weight.to_le_bytes(), numeric.dscale.to_le_bytes());
    [sign_code(numeric.sign), w0, w1, s0, s1]
}

fn sign_code(sign: NumericSign) -> u8 {
    match sign {
        NumericSign::Positive => 0,
        NumericSign::Negative => 1,
        NumericSign::NaN => 2,
        NumericSign::PositiveInfinity => 3,
        NumericSign::NegativeInfinity => 4,
    }
}

fn put_array(out: &mut Vec<u8>, array: &ArrayValue<'_>) {
    out.push(ARRAY);
    out.extend_from_slice(&(array.dims.len() as u64).to_le_bytes());
    for (length, lower) in &array.dims {
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&lower.to_le_bytes());
    }
    for element in &array.elements {
        put_cell(out, element.as_ref());
    }
}

mod hex_u128 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }

    pub(super) fn parse<E: Error>(text: &str) -> Result<u128, E> {
        u128::from_str_radix(text, 16).map_err(|_| E::custom(format_args!("\"{text}\" is no hexadecimal digest")))
    }
}

mod hex_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<i32, u128>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(id, sum)| (id, format!("{sum:032x}"))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<i32, u128>, D::Error> {
        let texts = BTreeMap::<i32, String>::deserialize(deserializer)?;
        texts.into_iter().map(|(id, text)| Ok((id, super::hex_u128::parse(&text)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::table;
    use crate::schema::PgType;

    type Row<'a> = [Option<Value<'a>>; 2];

    #[test]
    fn what_was_merged_can_be_removed() {
        let (one, two) = (digest_of(&[[Some(Value::Text("a")), None]]), digest_of(&[[None, Some(Value::Text("b"))]]));
        let mut both = one.clone();
        both.merge(&two);
        both.remove(&one);
        assert_eq!(both, two);
    }

    fn digest_of(rows: &[Row<'_>]) -> Digest {
        let mut hasher = RowHasher::new(&table(&[PgType::Text, PgType::Text]));
        for row in rows {
            for (i, value) in row.iter().enumerate() {
                hasher.column(i, value.as_ref());
            }
            hasher.end_row();
        }
        hasher.take()
    }

    fn text(text: &str) -> Option<Value<'_>> {
        Some(Value::Text(text))
    }

    #[test]
    fn swapping_a_value_between_rows_is_caught() {
        let before = digest_of(&[[text("a"), text("1")], [text("b"), text("2")]]);
        let after = digest_of(&[[text("a"), text("2")], [text("b"), text("1")]]);
        assert_ne!(before.sum, after.sum);
        assert_eq!(before.columns, after.columns, "only whole rows show it");
    }

    #[test]
    fn shifting_nulls_is_caught() {
        let before = digest_of(&[[None, text("x")], [text(""), text("x")]]);
        let after = digest_of(&[[text(""), text("x")], [None, text("y")]]);
        assert_ne!(before.sum, after.sum);
        assert_ne!(digest_of(&[[None, text("")]]), digest_of(&[[text(""), None]]));
    }

    #[test]
    fn duplicating_one_row_and_dropping_another_is_caught() {
        let before = digest_of(&[[text("a"), None], [text("b"), None]]);
        let after = digest_of(&[[text("a"), None], [text("a"), None]]);
        assert_eq!(before.rows, after.rows);
        assert_ne!(before.sum, after.sum);
        assert_eq!(before.differing_columns(&after), [1]);
    }

    #[test]
    fn order_and_partition_do_not_matter() {
        let rows = [[text("a"), text("1")], [text("b"), None], [None, None]];
        let mut reversed = rows.clone();
        reversed.reverse();
        let mut merged = digest_of(&rows[..1]);
        merged.merge(&digest_of(&rows[1..]));
        assert_eq!(digest_of(&rows), digest_of(&reversed));
        assert_eq!(digest_of(&rows), merged);
    }

    #[test]
    fn lengths_separate_neighbours() {
        assert_ne!(digest_of(&[[text("ab"), text("c")]]).sum, digest_of(&[[text("a"), text("bc")]]).sum);
    }

    #[test]
    fn the_algorithm_stays_what_its_name_says() {
        let long = "x".repeat(100_000);
        let numeric = |text: &str| Some(Value::Numeric(Numeric::parse_text(text).unwrap()));
        let rows = [
            [text("a"), Some(Value::Int8(-1))],
            [Some(Value::Bytes(b"a")), Some(Value::Bool(true))],
            [text(&long), numeric("-12.50")],
            [None, numeric("1234567890123456789012345678901234567890.5")],
            [Some(Value::Uuid([7; 16])), Some(Value::Composite(vec![None, text("b")]))],
        ];
        // The same by python-xxhash, of what [`RowHasher`] describes.
        assert_eq!(digest_of(&rows).to_string(), "01dd0ddbfd87cb39e033a68826777f12/5");
    }

    #[test]
    fn kinds_and_columns_tell_equal_bytes_apart() {
        let cells =
            [text("abcd"), Some(Value::Bytes(b"abcd")), Some(Value::Undecodable(b"abcd")), Some(Value::Image(b"abcd"))];
        let numbers = [Some(Value::Int4(7)), Some(Value::Date(7)), Some(Value::UInt4(7)), Some(Value::Reg(7, ""))];
        let digests = |cells: [Option<Value<'static>>; 4]| {
            let places = |cell: Option<Value<'static>>| [[cell.clone(), None], [None, cell]];
            cells.into_iter().flat_map(places).map(|row| digest_of(&[row]).sum).collect::<Vec<_>>()
        };
        let mut sums = [digests(cells), digests(numbers)].concat();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), 16);
    }

    #[test]
    fn few_and_many_digits_hash_alike() {
        for digits in [1, 4, 4 * FEW_DIGITS, 4 * FEW_DIGITS + 1, 200] {
            let numeric = Numeric::parse_text(&"7".repeat(digits)).unwrap();
            let mut bytes = Vec::new();
            put_numeric(&mut bytes, &numeric);
            assert_eq!(ValueHasher::default().hash_numeric(3, &numeric), hash(3, NUMERIC, &bytes));
        }
    }

    #[test]
    fn numerics_hash_by_value_and_scale() {
        let hash = |text: &str| {
            let mut out = Vec::new();
            put_numeric(&mut out, &Numeric::parse_text(text).unwrap());
            out
        };
        assert_ne!(hash("1.0"), hash("1.00"));
        assert_eq!(hash("120000.50"), {
            let mut out = Vec::new();
            put_numeric(&mut out, &Numeric::from_i128(12_000_050, 2));
            out
        });
    }

    #[test]
    fn json_holds_hexadecimal_text() {
        let digest = digest_of(&[[text("a"), None]]);
        let json = serde_json::to_string(&digest).unwrap();
        assert!(json.contains(&format!("{:032x}", digest.sum)));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>(&json.replace(&format!("{:032x}", digest.sum), "zz")).is_err());
    }
}
