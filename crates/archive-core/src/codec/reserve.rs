//! Counts that Parquet reserves memory for before it reads what they count. A forged one could ask for more than there is,
//! which ends the process; so they are compared with the bytes that are there. What cannot be read is left to Parquet.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::metadata::RowGroupMetaData;

use super::guard::corrupt;
use crate::Result;

/// Type of a page that holds a dictionary.
const DICTIONARY_PAGE: i64 = 2;

/// Refuses offset indexes within `range`, whose bytes these are, that list more pages than they have bytes.
pub(super) fn check_offset_indexes(indexes: &[Range<u64>], range: &Range<u64>, bytes: &Bytes) -> Result<()> {
    let inside = indexes.iter().filter(|index| range.start <= index.start && index.end <= range.end);
    for index in inside {
        let at = |offset: u64| usize::try_from(offset - range.start).unwrap_or(usize::MAX);
        let index = bytes.get(at(index.start)..at(index.end)).unwrap_or_default();
        if page_count(index).is_some_and(|pages| pages > index.len() as u64) {
            return Err(corrupt("page index lists more pages than it has room for"));
        }
    }
    Ok(())
}

/// The length of the list that an offset index begins with.
fn page_count(index: &[u8]) -> Option<u64> {
    let mut thrift = Thrift { bytes: index, at: 1 };
    thrift.list().map(|(_, length)| length)
}

/// Whether bytes that begin at `offset` of the object belong to columns that are compressed, all of them if several claim them.
pub(super) fn is_compressed(group: &RowGroupMetaData, offset: u64) -> bool {
    let holds = |start: i64, length: i64| {
        let start = u64::try_from(start).unwrap_or(u64::MAX);
        (start..start.saturating_add(u64::try_from(length).unwrap_or(0))).contains(&offset)
    };
    let chunks = group.columns().iter().filter(|chunk| {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        holds(start.min(chunk.data_page_offset()), chunk.compressed_size())
    });
    let compressed: Vec<bool> = chunks.map(|chunk| chunk.compression() != Compression::UNCOMPRESSED).collect();
    !compressed.is_empty() && compressed.iter().all(|compressed| *compressed)
}

/// Refuses dictionaries, among the pages that begin at the beginning of `bytes`, of more values than they have bytes: those that they
/// say they have when decompressed, which Parquet compares before it reserves anything for values; else those that are there.
pub(super) fn check_dictionaries(bytes: &Bytes, compressed: bool) -> Result<()> {
    let mut thrift = Thrift { bytes, at: 0 };
    while let Some(page) = thrift.page_header() {
        let values = page.dictionary_values.unwrap_or(0);
        let there = i64::try_from(bytes.len().saturating_sub(thrift.at)).unwrap_or(i64::MAX);
        let room = page.uncompressed_size.unwrap_or(0).min(if compressed { i64::MAX } else { there });
        if page.page_type == Some(DICTIONARY_PAGE) && !(0..=room).contains(&values) {
            return Err(corrupt("dictionary has more values than it has room for"));
        }
        let Some(size) = page.compressed_size.and_then(|size| usize::try_from(size).ok()) else { break };
        thrift.at = thrift.at.saturating_add(size);
    }
    Ok(())
}

/// What is wanted of a PageHeader.
#[derive(Debug, Default)]
struct PageHeader {
    page_type: Option<i64>,
    uncompressed_size: Option<i64>,
    compressed_size: Option<i64>,
    dictionary_values: Option<i64>,
}

/// Reads Thrift's compact protocol; `None` where that is not what the bytes are.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

const STRUCT: u8 = 12;
/// Structs within structs are skipped to this depth, as Parquet skips them.
const DEPTH: u8 = 64;

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Type and length of a list.
    fn list(&mut self) -> Option<(u8, u64)> {
        let header = self.byte()?;
        let length = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
        Some((header & 15, length))
    }

    /// Type and number of the next field of a struct; `None` for the type at its end.
    fn field(&mut self, last: i64) -> Option<(Option<u8>, i64)> {
        let header = self.byte()?;
        // As Parquet reads it: the type alone tells the end.
        if header & 15 == 0 {
            return Some((None, last));
        }
        let number = if header >> 4 == 0 { self.integer()? } else { last + i64::from(header >> 4) };
        Some((Some(header & 15), number))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => {}
            3 => self.at += 1,
            4..=6 => {
                self.varint()?;
            }
            7 => self.at += 8,
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.at = self.at.checked_add(length)?;
            }
            9 | 10 => {
                let (kind, length) = self.list()?;
                for _ in 0..length {
                    // Booleans take a byte each in a list.
                    self.skip(if kind <= 2 { 3 } else { kind }, depth)?;
                    self.bytes.get(self.at.checked_sub(1)?)?;
                }
            }
            STRUCT => {
                let mut last = 0;
                while let (Some(kind), number) = self.field(last)? {
                    self.skip(kind, depth)?;
                    last = number;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn page_header(&mut self) -> Option<PageHeader> {
        let (mut page, mut last) = (PageHeader::default(), 0);
        while let (Some(kind), number) = self.field(last)? {
            match (number, kind) {
                (1, _) => page.page_type = Some(self.integer()?),
                (2, _) => page.uncompressed_size = Some(self.integer()?),
                (3, _) => page.compressed_size = Some(self.integer()?),
                (7, _) => page.dictionary_values = self.first_integer()?,
                _ => self.skip(kind, DEPTH)?,
            }
            last = number;
        }
        Some(page)
    }

    /// Field 1 of a struct, which is read to its end.
    fn first_integer(&mut self) -> Option<Option<i64>> {
        let (mut first, mut last) = (None, 0);
        while let (Some(kind), number) = self.field(last)? {
            if number == 1 {
                first = Some(self.integer()?);
            } else {
                self.skip(kind, DEPTH)?;
            }
            last = number;
        }
        Some(first)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "sets of one range")]
mod tests {
    use super::*;

    /// The greatest number of 32 bits.
    const MOST: &[u8] = &[0xfe, 0xff, 0xff, 0xff, 0x0f];

    /// A PageHeader of a dictionary: type, sizes, and a DictionaryPageHeader with the number of values; then its 10 bytes.
    fn dictionary(values: &[u8]) -> Bytes {
        dictionary_of(&[40], values)
    }

    fn dictionary_of(uncompressed_size: &[u8], values: &[u8]) -> Bytes {
        let mut bytes = vec![0x15, 4, 0x15];
        bytes.extend_from_slice(uncompressed_size);
        bytes.extend_from_slice(&[0x15, 20, 0x4c, 0x15]);
        bytes.extend_from_slice(values);
        bytes.extend_from_slice(&[0x15, 0, 0, 0]);
        bytes.extend_from_slice(&[7; 10]);
        bytes.into()
    }

    #[test]
    fn a_dictionary_has_room_for_its_values() {
        let check = |bytes: Bytes| check_dictionaries(&bytes, true);
        assert!(check(dictionary(&[6])).is_ok());
        assert!(check(dictionary(&[40])).is_ok(), "one byte each");
        for forged in [&[42][..], MOST, &[1]] {
            assert!(check(dictionary(forged)).is_err(), "{forged:?}");
        }
        // Also one that follows another page.
        assert!(check([dictionary(&[6]), dictionary(MOST)].concat().into()).is_err());
        assert!(check(Bytes::from_static(b"no header")).is_ok(), "Parquet says what it is");
    }

    #[test]
    fn a_dictionary_that_is_not_compressed_has_the_room_that_is_there() {
        let check = |bytes: Bytes| check_dictionaries(&bytes, false);
        assert!(check(dictionary(&[20])).is_ok(), "ten values in ten bytes");
        assert!(check(dictionary(&[22])).is_err(), "the header says twenty bytes");
        assert!(check(dictionary_of(MOST, MOST)).is_err());
        assert!(check([dictionary(&[6]), dictionary_of(MOST, MOST)].concat().into()).is_err());
    }

    #[test]
    fn what_belongs_to_no_column_counts_as_it_is() {
        use parquet::file::metadata::ColumnChunkMetaData;
        use parquet::schema::types::{SchemaDescriptor, Type};
        use std::sync::Arc;

        let column = |name: &str| {
            let leaf = Type::primitive_type_builder(name, parquet::basic::Type::INT32).build().unwrap();
            Arc::new(leaf)
        };
        let root = Type::group_type_builder("root").with_fields(vec![column("a"), column("b")]).build().unwrap();
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
        let chunk = |leaf, start, compression| {
            let chunk = ColumnChunkMetaData::builder(schema.column(leaf)).set_compression(compression);
            chunk
                .set_data_page_offset(start + 5)
                .set_dictionary_page_offset(Some(start))
                .set_total_compressed_size(20)
                .build()
                .unwrap()
        };
        let zstd = chunk(0, 100, Compression::ZSTD(Default::default()));
        let plain = chunk(1, 110, Compression::UNCOMPRESSED);
        let group =
            RowGroupMetaData::builder(Arc::clone(&schema)).set_column_metadata(vec![zstd, plain]).build().unwrap();
        assert!(is_compressed(&group, 100));
        for offset in [99, 110, 119, 120, 129, 130] {
            assert!(!is_compressed(&group, offset), "{offset}");
        }
    }

    #[test]
    fn an_offset_index_has_room_for_its_pages() {
        let check = |bytes: &'static [u8]| {
            let length = bytes.len() as u64;
            check_offset_indexes(&[100..100 + length], &(100..100 + length), &Bytes::from_static(bytes))
        };
        assert!(check(&[0x19, 0x1c, 0x16, 8, 0x15, 2, 0x16, 0, 0, 0]).is_ok());
        assert!(check(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]).is_err());
        assert!(check(&[0x19]).is_ok(), "Parquet says what it is");
        let elsewhere = check_offset_indexes(&[0..10], &(100..102), &Bytes::from_static(&[0x19, 0xfc]));
        assert!(elsewhere.is_ok());
    }
}
