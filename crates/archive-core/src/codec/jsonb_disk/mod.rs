//! The on-disk form of `jsonb` (src/include/utils/jsonb.h, src/backend/utils/adt/jsonb_util.c): printed as PostgreSQL's output function
//! prints it, and made of such a text, without that function's calls for each value.

mod build;
mod print;

pub use build::Builder;
pub use print::print;

const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const OFFSET_OR_LENGTH: u32 = 0x0FFF_FFFF;
const HAS_OFFSET: u32 = 0x8000_0000;
const KIND: u32 = 0x7000_0000;
const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;

/// Of this many entries one has the end of its bytes, the others how many they are.
const OFFSET_STRIDE: usize = 32;
/// A document nests this deeply at most; PostgreSQL's own functions take deeper ones.
const DEEPEST: u32 = 200;
/// Bytes of a length word.
const WORD: usize = 4;
