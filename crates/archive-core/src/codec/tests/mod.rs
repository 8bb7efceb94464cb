//! Tests of the codec as a whole: what goes in comes out, and pruning hides nothing.

mod corruption;
mod key_filter;
mod ndjson;
mod own;
mod pruning;
mod roundtrip;
mod store;

pub(super) use own::table;
