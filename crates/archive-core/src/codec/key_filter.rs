//! Filters of the keys of an object: which keys are certainly not in it. They are kept in the catalog, so that a lookup asks
//! no storage about objects that cannot have the key.
//!
//! A blocked bloom filter of 4 bytes a key. A key sets [`PROBES`] bits of one block, so that a lookup reads one block of
//! some 512 bytes, however many keys the object has. About six in ten million keys that are not there seem to be.
//!
//! The format is fixed by [`KEY_FILTER_FORMAT`]: filters stay in the catalog when the extension is updated.

use twox_hash::XxHash3_128;

use super::canonical::{Canonical, has_canonical_form};
use super::predicate::{CompareOp, Predicate, Scalar, Test};
use super::value::Value;
use crate::schema::{PgType, TableSchema};

/// The format that is written, and the only one that is read.
pub const KEY_FILTER_FORMAT: i16 = 1;

/// Bytes per key.
const KEY_BYTES: usize = 4;
/// Keys per block, about: many, so that blocks fill alike.
const BLOCK_KEYS: usize = 128;
/// Bits that a key sets.
const PROBES: u64 = 16;
/// An object of more keys gets no filter: their hashes wait in memory, 8 bytes each, until the object is complete.
const MAX_KEYS: usize = 8 << 20;
/// A query for more keys at once asks no filters: each key is a block to read of each filter.
const MAX_WANTED: usize = 64;

/// The hash of a key: the sum of the hashes of its columns, so that their order does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyHash(u64);

impl KeyHash {
    fn with(self, field: i32, value: &Canonical<'_>, bytes: &mut Vec<u8>) -> Self {
        bytes.clear();
        value.put(bytes);
        let hash = XxHash3_128::oneshot_with_seed(u64::from(field.cast_unsigned()), bytes);
        Self(self.0.wrapping_add(hash as u64))
    }

    /// What the number of a key's block is told from: its remainder by the number of blocks.
    pub fn place(self) -> i64 {
        (self.0 >> 1).cast_signed()
    }

    /// The bits of a block of `bits` bits that the key sets.
    fn bits(self, bits: u64) -> impl Iterator<Item = usize> {
        (1..=PROBES).map(move |probe| {
            let random = split_mix(self.0.wrapping_add(probe.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            ((u128::from(random) * u128::from(bits)) >> 64) as usize
        })
    }
}

/// The finaliser of SplitMix64.
fn split_mix(value: u64) -> u64 {
    let mixed = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The filter of an object's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    /// The columns of the key, by field id, ascending.
    pub fields: Vec<i32>,
    /// Number of keys.
    pub keys: u64,
    /// Number of blocks, all of one length.
    pub blocks: u32,
    /// The blocks.
    pub bytes: Vec<u8>,
}

impl KeyFilter {
    fn new(fields: Vec<i32>, hashes: &[KeyHash]) -> Self {
        let blocks = (hashes.len() / BLOCK_KEYS).max(1);
        let length = (hashes.len() * KEY_BYTES / blocks).max(KEY_BYTES);
        let mut bytes = vec![0; blocks * length];
        for hash in hashes {
            let at = (hash.place().unsigned_abs() % blocks as u64) as usize * length;
            let Some(block) = bytes.get_mut(at..at + length) else { continue };
            for bit in hash.bits(length as u64 * 8) {
                if let Some(byte) = block.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        Self { fields, keys: hashes.len() as u64, blocks: u32::try_from(blocks).unwrap_or(u32::MAX), bytes }
    }

    /// Whether the key may be among the filter's.
    pub fn may_hold(&self, key: KeyHash) -> bool {
        let blocks = usize::try_from(self.blocks).unwrap_or(1).max(1);
        let length = self.bytes.len() / blocks;
        let at = (key.place().unsigned_abs() % blocks as u64) as usize * length;
        self.bytes.get(at..at + length).is_none_or(|block| block_may_hold(block, key))
    }
}

/// Whether the key may be among those of its block.
pub fn block_may_hold(block: &[u8], key: KeyHash) -> bool {
    let is_set = |bit: usize| block.get(bit / 8).is_none_or(|byte| byte & (1 << (bit % 8)) != 0);
    key.bits(block.len() as u64 * 8).all(is_set)
}

/// Whether keys over columns of these types can have filters.
pub fn can_filter<'a>(mut types: impl Iterator<Item = &'a PgType>) -> bool {
    types.all(has_canonical_form)
}

/// The keys that rows must have one of to meet all predicates, for a key over `fields`. `None` when the predicates do not
/// say, or there are too many.
pub fn wanted_keys(fields: &[(i32, &PgType)], predicates: &[Predicate]) -> Option<Vec<KeyHash>> {
    let mut keys = vec![KeyHash::default()];
    let mut bytes = Vec::new();
    for (field, pg_type) in fields {
        let on_field = predicates.iter().filter(|predicate| predicate.field_id == *field);
        let values = on_field.filter_map(|predicate| equal_to(pg_type, &predicate.test)).next()?;
        if keys.len().saturating_mul(values.len()) > MAX_WANTED {
            return None;
        }
        let with_each = |key: KeyHash| values.iter().map(move |value| (key, value));
        keys = keys.into_iter().flat_map(with_each).map(|(key, value)| key.with(*field, value, &mut bytes)).collect();
    }
    Some(keys)
}

/// The values of which a row must have one to pass.
fn equal_to<'a>(pg_type: &PgType, test: &'a Test) -> Option<Vec<Canonical<'a>>> {
    let form = |value: &'a Scalar| Canonical::of_scalar(pg_type, value);
    match test {
        Test::Compare { op: CompareOp::Eq, value, .. } => Some(vec![form(value)?]),
        Test::In { values, .. } => values.iter().map(form).collect(),
        _ => None,
    }
}

/// Field ids of the columns that a row must equal something in.
pub fn equality_fields(predicates: &[Predicate]) -> Vec<i32> {
    let is_equality = |test: &Test| matches!(test, Test::Compare { op: CompareOp::Eq, .. } | Test::In { .. });
    predicates.iter().filter(|predicate| is_equality(&predicate.test)).map(|predicate| predicate.field_id).collect()
}

/// The hashes of the keys of some rows.
#[derive(Debug, Default)]
pub(super) struct Keys {
    hashes: Vec<KeyHash>,
    /// A key has no hash, or there are too many.
    incomplete: bool,
}

impl Keys {
    fn add(&mut self, key: Option<KeyHash>) {
        match key {
            Some(key) if !self.incomplete && self.hashes.len() < MAX_KEYS => self.hashes.push(key),
            _ => *self = Self { hashes: Vec::new(), incomplete: true },
        }
    }

    /// Adds the keys of further rows.
    pub(super) fn extend(&mut self, other: Self) {
        if other.incomplete {
            self.add(None);
        }
        other.hashes.into_iter().for_each(|key| self.add(Some(key)));
    }

    /// Their filter; `None` when there is no key at all, or not each has a hash.
    pub(super) fn filter(&self, fields: &[i32]) -> Option<KeyFilter> {
        let usable = !self.incomplete && !self.hashes.is_empty() && !fields.is_empty();
        usable.then(|| KeyFilter::new(fields.to_vec(), &self.hashes))
    }
}

/// Hashes the keys of rows value by value.
#[derive(Debug)]
pub(super) struct KeyHasher {
    /// Field id and type of each column of the schema that is part of the key.
    columns: Vec<Option<(i32, PgType)>>,
    bytes: Vec<u8>,
    key: RowKey,
    keys: Keys,
}

/// The key of the current row so far.
#[derive(Debug, Clone, Copy)]
enum RowKey {
    Hash(KeyHash),
    /// A part is NULL: the row equals no key.
    Null,
    Unknown,
}

impl KeyHasher {
    /// A hasher of the columns with these field ids; `None` when there are none, or one of them has no canonical form.
    pub(super) fn new(schema: &TableSchema, fields: &[i32]) -> Option<Self> {
        let part = |id: i32, pg_type: &PgType| fields.contains(&id).then(|| (id, pg_type.clone()));
        let columns: Vec<_> = schema.fields.iter().map(|field| part(field.id, &field.pg_type)).collect();
        let found = columns.iter().flatten();
        let usable = !fields.is_empty()
            && found.clone().count() == fields.len()
            && can_filter(found.map(|(_, pg_type)| pg_type));
        let (bytes, key, keys) = (Vec::new(), RowKey::Hash(KeyHash::default()), Keys::default());
        usable.then_some(Self { columns, bytes, key, keys })
    }

    /// The next column of the current row.
    pub(super) fn column(&mut self, index: usize, value: Option<&Value<'_>>) {
        let Some(Some((field, pg_type))) = self.columns.get(index) else { return };
        let RowKey::Hash(key) = self.key else { return };
        self.key = match value.map(|value| Canonical::of_value(pg_type, value)) {
            None => RowKey::Null,
            Some(None) => RowKey::Unknown,
            Some(Some(value)) => RowKey::Hash(key.with(*field, &value, &mut self.bytes)),
        };
    }

    /// The row is complete.
    pub(super) fn end_row(&mut self) {
        match std::mem::replace(&mut self.key, RowKey::Hash(KeyHash::default())) {
            RowKey::Hash(key) => self.keys.add(Some(key)),
            RowKey::Null => {}
            RowKey::Unknown => self.keys.add(None),
        }
    }

    /// The keys of the rows since the last call.
    pub(super) fn take(&mut self) -> Keys {
        std::mem::take(&mut self.keys)
    }
}
