//! Loads the footer and, when it is wanted, the page index of an object.

use std::ops::Range;

use bytes::Bytes;
use parquet::DecodeResult;
use parquet::file::metadata::{ColumnChunkMask, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};

use super::fetch::fetch;
use super::guard::{corrupt, guarded};
use super::reader::RangeReader;
use super::reserve::check_offset_indexes;
use crate::Result;

/// Bytes read from the end at first: the footer and, in most files, the page index.
const TAIL: u64 = 64 << 10;

/// The end of an object, kept while the footer is read.
pub(super) struct Tail {
    range: Range<u64>,
    bytes: Bytes,
    size: u64,
}

impl Tail {
    /// Reads the end of the object.
    pub(super) fn read<R: RangeReader>(reader: &mut R, size: u64) -> Result<Self> {
        let range = size.saturating_sub(TAIL)..size;
        let bytes = fetch(reader, size, std::slice::from_ref(&range))?.into_iter().next().unwrap_or_default();
        Ok(Self { range, bytes, size })
    }

    /// The footer without the page index.
    pub(super) fn metadata<R: RangeReader>(&self, reader: &mut R) -> Result<ParquetMetaData> {
        let decoder = guarded(|| ParquetMetaDataPushDecoder::try_new(self.size))?;
        self.run(reader, decoder.with_page_index_policy(PageIndexPolicy::Skip), &[])
    }

    /// Adds the page index of these row groups: column index and offset index of the given leaves.
    pub(super) fn page_index<R: RangeReader>(
        &self,
        reader: &mut R,
        metadata: ParquetMetaData,
        groups: &[usize],
        tested: &[usize],
        read: &[usize],
    ) -> Result<ParquetMetaData> {
        let offset_indexes = offset_indexes(&metadata, groups, read);
        let mask =
            |leaves: &[usize]| ColumnChunkMask::row_groups_and_columns(groups.iter().copied(), leaves.iter().copied());
        let decoder = guarded(|| ParquetMetaDataPushDecoder::try_new_with_metadata(self.size, metadata))?
            .with_page_index_policy(PageIndexPolicy::Optional)
            .with_column_index_mask(mask(tested))
            .with_offset_index_mask(mask(read));
        self.run(reader, decoder, &offset_indexes)
    }

    fn run<R: RangeReader>(
        &self,
        reader: &mut R,
        mut decoder: ParquetMetaDataPushDecoder,
        offset_indexes: &[Range<u64>],
    ) -> Result<ParquetMetaData> {
        check_offset_indexes(offset_indexes, &self.range, &self.bytes)?;
        guarded(|| decoder.push_range(self.range.clone(), self.bytes.clone()))?;
        loop {
            match guarded(|| decoder.try_decode())? {
                DecodeResult::Data(metadata) => return Ok(metadata),
                DecodeResult::Finished => return Err(corrupt("object has no Parquet footer")),
                DecodeResult::NeedsData(ranges) => {
                    let data = fetch(reader, self.size, &ranges)?;
                    for (range, bytes) in ranges.iter().zip(&data) {
                        check_offset_indexes(offset_indexes, range, bytes)?;
                    }
                    guarded(|| decoder.push_ranges(ranges, data))?;
                }
            }
        }
    }
}

/// Where the offset indexes of these leaves are.
fn offset_indexes(metadata: &ParquetMetaData, groups: &[usize], leaves: &[usize]) -> Vec<Range<u64>> {
    let groups = groups.iter().filter_map(|group| metadata.row_groups().get(*group));
    let chunks = groups.flat_map(|group| leaves.iter().filter_map(|leaf| group.columns().get(*leaf)));
    chunks
        .filter_map(|chunk| {
            let start = u64::try_from(chunk.offset_index_offset()?).ok()?;
            Some(start..start.checked_add(u64::try_from(chunk.offset_index_length()?).ok()?)?)
        })
        .collect()
}

/// Row counts that do not add up would move rows, so they are checked before anything is skipped.
pub(super) fn check_counts(metadata: &ParquetMetaData) -> Result<()> {
    let groups = metadata.row_groups();
    let negative = groups.iter().any(|group| group.num_rows() < 0);
    let total = groups.iter().try_fold(0i64, |sum, group| sum.checked_add(group.num_rows()));
    if negative || total != Some(metadata.file_metadata().num_rows()) {
        return Err(corrupt("row groups do not add up to the rows of the object"));
    }
    Ok(())
}
