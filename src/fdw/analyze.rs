//! `ANALYZE`: a random sample of the archived rows, in the order in which they are stored.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use archive_core::codec::ScanOptions;
use pgrx::pg_sys;

use super::archive::Archive;
use super::exec;
use crate::catalog::object::ArchivedObject;
use crate::catalog::storage;
use crate::error::{Error, Result, SqlState};
use crate::pg::arena::Arena;
use crate::pg::interrupts;
use crate::pg::memory::MemoryContext;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::reshape::Reshaper;
use crate::pg::row::RowBuffer;
use crate::pg::sample::SampleRows;

/// Partitions up to this size are read whole.
const READ_WHOLE: u64 = 300_000;
const BLOCK_ROWS: u64 = 1_000;
const BLOCKS: u64 = READ_WHOLE / BLOCK_ROWS;

/// `AnalyzeForeignTable`: the size in blocks; `None` for what must be restored before it can be read, which keeps the statistics it has.
pub(super) fn pages(table: pg_sys::Oid) -> Result<Option<u32>> {
    let archive = Archive::of(table)?;
    if archive.objects(&[])?.iter().any(|object| object.frozen.is_some()) {
        return Ok(None);
    }
    Ok(Some(u32::try_from(archive.partition.archived_bytes.div_ceil(8192)).unwrap_or(u32::MAX)))
}

/// `AcquireSampleRows`: fills `sample`; the number of rows of the partition.
pub(super) fn sample(table: pg_sys::Oid, sample: &mut SampleRows) -> Result<u64> {
    let archive = Archive::of(table)?;
    let Some(relation) = Relation::open(table, LockMode::AccessShare) else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the foreign table was dropped meanwhile"));
    };
    let files = archive.objects(&[])?;
    let mut random = Random::seeded();
    let wanted = blocks(archive.partition.rows, &mut random);
    let candidates = wanted.iter().map(|rows| rows.end - rows.start).sum();
    let choice = Choice { random, wanted: sample.capacity() as u64, left: candidates };
    Sampler { decoder: archive.lenient_reshaper()?, archive, relation, choice, sample }.run(&files, &wanted)
}

struct Sampler<'a> {
    archive: Archive,
    relation: Relation,
    decoder: Reshaper,
    choice: Choice,
    sample: &'a mut SampleRows,
}

impl Sampler<'_> {
    fn run(mut self, files: &[ArchivedObject], wanted: &[Range<u64>]) -> Result<u64> {
        let store = storage::open(&self.archive.partition.storage, self.archive.owner)?;
        let mut first = 0;
        for file in files {
            let rows = within(wanted, first..first + file.rows);
            first += file.rows;
            if !rows.is_empty() {
                let options = ScanOptions {
                    columns: self.decoder.fields().to_vec(),
                    row_ranges: Some(rows),
                    ..ScanOptions::default()
                };
                let reader = exec::open(&store, file, &self.archive, options, None)?;
                self.read(reader)?;
            }
        }
        Ok(self.archive.partition.rows)
    }

    fn read(&mut self, mut reader: archive_core::codec::ObjectReader<super::source::ObjectSource>) -> Result<()> {
        let mut memory = MemoryContext::new(c"archive_ext sample");
        let (mut row, mut arena) = (RowBuffer::new(self.archive.attributes), Arena::default());
        while let Some(batch) = reader.next_batch()? {
            for at in 0..batch.rows() {
                interrupts::check();
                if self.choice.next() {
                    memory.within(|| self.decoder.decode(&batch, at, &mut row, &mut arena, None))?;
                    self.sample.push(&self.relation, &row);
                    memory.reset();
                    arena.reset();
                }
            }
        }
        Ok(())
    }
}

/// Rows to look at, ascending: all of a small partition, else random blocks.
fn blocks(rows: u64, random: &mut Random) -> Vec<Range<u64>> {
    if rows <= READ_WHOLE {
        return std::iter::once(0..rows).collect();
    }
    let blocks = rows.div_ceil(BLOCK_ROWS);
    let mut choice = Choice { random: Random(random.next()), wanted: BLOCKS, left: blocks };
    let chosen = (0..blocks).filter(|_| choice.next());
    chosen.map(|block| block * BLOCK_ROWS..((block + 1) * BLOCK_ROWS).min(rows)).collect()
}

/// The part of `wanted` inside `file`, counted from its beginning.
fn within(wanted: &[Range<u64>], file: Range<u64>) -> Vec<Range<u64>> {
    let cut = |rows: &Range<u64>| rows.start.max(file.start)..rows.end.min(file.end);
    let inside = wanted.iter().map(cut).filter(|rows| rows.start < rows.end);
    inside.map(|rows| rows.start - file.start..rows.end - file.start).collect()
}

/// Chooses `wanted` of `left` things that come by, each with the same probability (Knuth's algorithm S).
struct Choice {
    random: Random,
    wanted: u64,
    left: u64,
}

impl Choice {
    fn next(&mut self) -> bool {
        let chosen = self.random.next() % self.left.max(1) < self.wanted;
        self.left = self.left.saturating_sub(1);
        self.wanted -= u64::from(chosen && self.wanted > 0);
        chosen
    }
}

/// SplitMix64: plenty for a sample.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        Self(std::hash::RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
