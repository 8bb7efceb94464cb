//! Where a row is in its table.

use pgrx::pg_sys;

/// Lines of a block where rows are only counted: half of what a line number can be.
const LINE_BITS: u32 = 15;
const LAST_LINE: u64 = (1 << LINE_BITS) - 1;

/// A row's place: block, then line pointer. The order is that of a sequential scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TupleId(u64);

impl TupleId {
    /// Before every row.
    pub const FIRST: Self = Self(0);
    /// After every row.
    pub const END: Self = Self(((pg_sys::InvalidBlockNumber as u64) << 16) | u16::MAX as u64);

    /// The place that a slot or tuple carries.
    pub(super) fn of(pointer: pg_sys::ItemPointerData) -> Self {
        let block = u64::from(pointer.ip_blkid.bi_hi) << 16 | u64::from(pointer.ip_blkid.bi_lo);
        Self(block << 16 | u64::from(pointer.ip_posid))
    }

    /// The same as PostgreSQL has it.
    pub(super) fn pointer(self) -> pg_sys::ItemPointerData {
        let block = self.0 >> 16;
        pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
            ip_posid: self.0 as u16,
        }
    }

    /// The last place before this one.
    pub(super) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The place of row `number` where rows are only counted, as in an archive. Every line is one that PostgreSQL takes for valid.
    pub fn of_number(number: u64) -> Self {
        Self((number >> LINE_BITS) << 16 | ((number & LAST_LINE) + 1))
    }

    /// The number that [`Self::of_number`] gave this place.
    pub fn number(self) -> u64 {
        (self.0 >> 16) << LINE_BITS | (self.0 & 0xffff).saturating_sub(1)
    }

    /// The place that PostgreSQL prints as `(block,line)`.
    pub fn parse(text: &str) -> Option<Self> {
        let (block, line) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(Self(u64::from(block.parse::<u32>().ok()?) << 16 | u64::from(line.parse::<u16>().ok()?)))
    }

    /// As the catalog stores it.
    pub fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// What the catalog stored.
    pub fn from_i64(stored: i64) -> Self {
        Self(stored.cast_unsigned())
    }
}

impl std::fmt::Display for TupleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({},{})", self.0 >> 16, self.0 as u16)
    }
}
