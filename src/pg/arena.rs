//! Memory for the values of rows, handed out piece by piece and taken back at once: a call of `palloc` costs more than most values do.

use pgrx::pg_sys;

/// Words of a block.
const BLOCK: usize = 1024;
/// Larger values are not kept here: PostgreSQL refuses those that are too large, and counts their memory.
const LARGEST: usize = BLOCK * size_of::<u64>() / 2;
/// Blocks that are kept for the next rows.
const KEPT: usize = 64;

/// Values stay where they are until [`Self::reset`].
#[derive(Debug, Default)]
pub struct Arena {
    blocks: Vec<Box<[u64; BLOCK]>>,
    /// The block from which pieces are taken, and its words that were taken.
    at: usize,
    used: usize,
}

impl Arena {
    /// Takes everything back.
    pub fn reset(&mut self) {
        (self.at, self.used) = (0, 0);
        self.blocks.truncate(KEPT);
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        (self.at * BLOCK + self.used) * size_of::<u64>()
    }

    /// A copy of the bytes of a value of fixed length; `None` when it is too large.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Option<pg_sys::Datum> {
        let place = self.place(bytes.len())?;
        // SAFETY: the piece has room for all bytes, and nobody else has it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Some(pg_sys::Datum::from(place))
    }

    /// A varlena with this payload; `None` when it is too large.
    pub(super) fn varlena(&mut self, payload: &[u8]) -> Option<pg_sys::Datum> {
        let header = size_of::<i32>();
        let size = payload.len() + header;
        let place = self.place(size)?;
        // SAFETY: as above; a header of four bytes comes first.
        unsafe {
            pgrx::set_varsize_4b(place.cast(), size as i32);
            std::ptr::copy_nonoverlapping(payload.as_ptr(), place.add(header), payload.len());
        }
        Some(pg_sys::Datum::from(place))
    }

    /// A piece that is aligned for every type.
    fn place(&mut self, bytes: usize) -> Option<*mut u8> {
        if bytes > LARGEST {
            return None;
        }
        let words = bytes.div_ceil(size_of::<u64>());
        if self.used + words > BLOCK {
            (self.at, self.used) = (self.at + 1, 0);
        }
        if self.at == self.blocks.len() {
            self.blocks.push(Box::new([0; BLOCK]));
        }
        let block = self.blocks.get_mut(self.at)?;
        let place = block.get_mut(self.used..self.used + words)?.as_mut_ptr();
        self.used += words;
        Some(place.cast())
    }
}
