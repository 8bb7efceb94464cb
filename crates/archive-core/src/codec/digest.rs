//! Row digests (DESIGN §6): an order-free sum of a strong hash over each whole row, sums per column for diagnosis, and
//! the count. Two multisets of rows with one digest are, for all practical purposes, the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::numeric::{Numeric, NumericSign};
use super::value::{ArrayValue, Value};
use crate::schema::TableSchema;

/// Name of the algorithm, recorded wherever a digest is.
pub const DIGEST_ALGORITHM: &str = "xxh3-128-sum.v1";

const NULL: u8 = 1;
const NOT_NULL: u8 = 0;
/// Tags of the kinds of values.
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
const UINT4: u8 = 15;

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

/// Computes a [`Digest`] row by row. Columns are hashed in schema order, every column once per row.
pub struct RowHasher {
    fields: Vec<i32>,
    /// The bytes of the current row that were not hashed yet.
    row: Vec<u8>,
    /// The hash of the bytes before them, in a row with a large value: such a value is not copied.
    hashed: Option<XxHash3_128>,
    sum: u128,
    columns: Vec<u128>,
    rows: u64,
}

/// Values from this size on are hashed from where they are.
const LARGE: usize = 64 << 10;

impl RowHasher {
    /// A hasher of rows of this schema.
    pub fn new(schema: &TableSchema) -> Self {
        let fields: Vec<i32> = schema.fields.iter().map(|field| field.id).collect();
        Self { columns: vec![0; fields.len()], fields, row: Vec::new(), hashed: None, sum: 0, rows: 0 }
    }

    /// The next column of the current row; `index` counts from 0 in schema order.
    #[inline(always)]
    pub fn column(&mut self, index: usize, value: Option<&Value<'_>>) {
        let Some(id) = self.fields.get(index).copied() else { return };
        let hash = match value {
            Some(Value::Text(text)) if text.len() >= LARGE => self.large_cell(id, TEXT, text.as_bytes()),
            Some(Value::Bytes(bytes)) if bytes.len() >= LARGE => self.large_cell(id, BYTES, bytes),
            _ => self.cell(id, value),
        };
        if let Some(column) = self.columns.get_mut(index) {
            *column = column.wrapping_add(hash);
        }
    }

    #[inline(always)]
    fn cell(&mut self, id: i32, value: Option<&Value<'_>>) -> u128 {
        match value {
            None => self.fixed_cell(id, header(id, NULL, 0)),
            Some(Value::Bool(v)) => self.fixed_cell(id, fixed::<15, 1>(id, BOOL, [u8::from(*v)])),
            Some(Value::Int2(v)) => self.fixed_cell(id, fixed::<16, 2>(id, INT2, v.to_le_bytes())),
            Some(Value::Int4(v)) => self.fixed_cell(id, fixed::<18, 4>(id, INT4, v.to_le_bytes())),
            Some(Value::Int8(v)) => self.fixed_cell(id, fixed::<22, 8>(id, INT8, v.to_le_bytes())),
            Some(Value::Float4(v)) => self.fixed_cell(id, fixed::<18, 4>(id, FLOAT4, v.to_bits().to_le_bytes())),
            Some(Value::Float8(v)) => self.fixed_cell(id, fixed::<22, 8>(id, FLOAT8, v.to_bits().to_le_bytes())),
            Some(Value::Date(v)) => self.fixed_cell(id, fixed::<18, 4>(id, DATE, v.to_le_bytes())),
            Some(Value::Time(v)) => self.fixed_cell(id, fixed::<22, 8>(id, TIME, v.to_le_bytes())),
            Some(Value::Timestamp(v)) => self.fixed_cell(id, fixed::<22, 8>(id, TIMESTAMP, v.to_le_bytes())),
            Some(Value::Uuid(v)) => self.fixed_cell(id, fixed::<30, 16>(id, UUID, *v)),
            Some(Value::UInt4(v)) => self.fixed_cell(id, fixed::<18, 4>(id, UINT4, v.to_le_bytes())),
            Some(Value::Text(text)) => self.sized_cell(id, TEXT, text.as_bytes()),
            Some(Value::Bytes(bytes)) => self.sized_cell(id, BYTES, bytes),
            Some(_) => self.any_cell(id, value),
        }
    }

    /// Bytes of a size that is known, so that they are copied and hashed without calls or loops.
    #[inline]
    fn fixed_cell<const SIZE: usize>(&mut self, id: i32, cell: [u8; SIZE]) -> u128 {
        self.row.extend_from_slice(&cell);
        XxHash3_128::oneshot_with_seed(seed(id), &cell)
    }

    #[inline]
    fn sized_cell(&mut self, id: i32, tag: u8, value: &[u8]) -> u128 {
        let start = self.row.len();
        self.row.reserve(TAGGED + value.len());
        self.row.extend_from_slice(&fixed_header(id, value.len(), tag));
        self.row.extend_from_slice(value);
        self.hash_from(start, id)
    }

    fn any_cell(&mut self, id: i32, value: Option<&Value<'_>>) -> u128 {
        let start = self.row.len();
        self.row.extend_from_slice(&id.to_le_bytes());
        put_cell(&mut self.row, value);
        self.hash_from(start, id)
    }

    fn hash_from(&self, start: usize, id: i32) -> u128 {
        self.row.get(start..).map_or(0, |cell| XxHash3_128::oneshot_with_seed(seed(id), cell))
    }

    /// The same bytes as [`Self::cell`] hashes.
    fn large_cell(&mut self, id: i32, tag: u8, value: &[u8]) -> u128 {
        let start = self.row.len();
        self.row.extend_from_slice(&fixed_header(id, value.len(), tag));
        let mut column = XxHash3_128::with_seed(seed(id));
        column.write(self.row.get(start..).unwrap_or_default());
        column.write(value);
        let hashed = self.hashed.get_or_insert_with(XxHash3_128::new);
        hashed.write(&self.row);
        hashed.write(value);
        self.row.clear();
        column.finish_128()
    }

    /// The row is complete.
    pub fn end_row(&mut self) {
        let hash = match self.hashed.take() {
            Some(mut hashed) => {
                hashed.write(&self.row);
                hashed.finish_128()
            }
            None => XxHash3_128::oneshot(&self.row),
        };
        self.sum = self.sum.wrapping_add(hash);
        self.rows += 1;
        self.row.clear();
        // One huge row must not keep its memory for the rest of the scan.
        if self.row.capacity() > KEEP_CAPACITY {
            self.row = Vec::new();
        }
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
        self.row.clear();
        self.hashed = None;
        digest
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowHasher").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Capacity of the row buffer that is kept between rows.
const KEEP_CAPACITY: usize = 1 << 20;

fn seed(id: i32) -> u64 {
    u64::from(id.cast_unsigned())
}

/// Bytes of field id, null flag and length; and of these and the tag.
const HEADER: usize = 4 + 1 + 8;
const TAGGED: usize = HEADER + 1;

#[inline]
fn header(id: i32, null: u8, length: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (of_id, rest) = header.split_at_mut(4);
    let (of_null, of_length) = rest.split_at_mut(1);
    of_id.copy_from_slice(&id.to_le_bytes());
    of_null.copy_from_slice(&[null]);
    of_length.copy_from_slice(&length.to_le_bytes());
    header
}

/// What comes before so many bytes that are tagged.
#[inline]
fn fixed_header(id: i32, bytes: usize, tag: u8) -> [u8; TAGGED] {
    let mut tagged = [tag; TAGGED];
    tagged[..HEADER].copy_from_slice(&header(id, NOT_NULL, bytes as u64 + 1));
    tagged
}

/// The cell of a value of `BYTES` bytes, with its header `SIZE`.
#[inline]
fn fixed<const SIZE: usize, const BYTES: usize>(id: i32, tag: u8, bytes: [u8; BYTES]) -> [u8; SIZE] {
    const { assert!(SIZE == TAGGED + BYTES) };
    let mut cell = [0; SIZE];
    cell[..TAGGED].copy_from_slice(&fixed_header(id, BYTES, tag));
    cell[TAGGED..].copy_from_slice(&bytes);
    cell
}

/// Null flag, length, canonical bytes.
pub(super) fn put_cell(out: &mut Vec<u8>, value: Option<&Value<'_>>) {
    let Some(value) = value else {
        out.push(NULL);
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
        Value::Numeric(v) => put_numeric(out, v),
        Value::Text(v) => put(out, TEXT, v.as_bytes()),
        Value::Bytes(v) => put(out, BYTES, v),
        Value::Date(v) => put(out, DATE, &v.to_le_bytes()),
        Value::Time(v) => put(out, TIME, &v.to_le_bytes()),
        Value::Timestamp(v) => put(out, TIMESTAMP, &v.to_le_bytes()),
        Value::Uuid(v) => put(out, UUID, v),
        Value::Array(v) => put_array(out, v),
        Value::UInt4(v) => put(out, UINT4, &v.to_le_bytes()),
        Value::Interval(v) => {
            put(out, 16, &v.months.to_le_bytes());
            out.extend_from_slice(&v.days.to_le_bytes());
            out.extend_from_slice(&v.micros.to_le_bytes());
        }
        // A renamed object is still the same value.
        Value::Reg(oid, _) => put(out, 17, &oid.to_le_bytes()),
        Value::Undecodable(v) => put(out, 18, v),
        Value::Image(v) => put(out, 20, v),
        Value::Composite(parts) => {
            put(out, 19, &(parts.len() as u64).to_le_bytes());
            parts.iter().for_each(|part| put_cell(out, part.as_ref()));
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn put_numeric(out: &mut Vec<u8>, numeric: &Numeric<'_>) {
    let (weight, digits) = numeric.normalized();
    let ([w0, w1], [s0, s1]) = (weight.to_le_bytes(), numeric.dscale.to_le_bytes());
    out.reserve(6 + 2 * digits.len());
    out.extend_from_slice(&[NUMERIC, sign_code(numeric.sign), w0, w1, s0, s1]);
    for i in digits {
        out.extend_from_slice(&numeric.digits.get(i).to_le_bytes());
    }
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
    out.push(14);
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
    fn large_values_hash_as_small_ones_do() {
        let long = "x".repeat(LARGE);
        let (mut hasher, mut bytes) = (RowHasher::new(&table(&[PgType::Text, PgType::Text])), Vec::new());
        for (i, value) in [text(&long), text("tail")].iter().enumerate() {
            hasher.column(i, value.as_ref());
            bytes.extend_from_slice(&(i as i32 + 1).to_le_bytes());
            put_cell(&mut bytes, value.as_ref());
        }
        hasher.end_row();
        assert_eq!(hasher.digest().sum, XxHash3_128::oneshot(&bytes));
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
