//! `archive_ext.key_filter`: which keys are certainly not in an object. Only a help: an object without one is read when its ranges
//! do not rule it out.

use archive_core::codec::{KEY_FILTER_FORMAT, KeyFilter, KeyHash, block_may_hold};

use crate::error::Result;
use crate::pg::{spi, user};

/// Keeps the filters of objects that were just added, by ordinal from `first` on.
pub fn insert(partition: i64, version: i32, first: i32, filters: &[Option<KeyFilter>]) -> Result<()> {
    for (ordinal, filter) in (first..).zip(filters) {
        let Some(filter) = filter else { continue };
        user::elevated(|| {
            spi::execute(
                "INSERT INTO archive_ext.key_filter (object_id, format, field_ids, keys, blocks, filter)
                 SELECT id, $4, $5, $6, $7, $8 FROM archive_ext.object
                 WHERE partition_id = $1 AND version = $2 AND ordinal = $3",
                &[
                    partition.into(),
                    version.into(),
                    ordinal.into(),
                    KEY_FILTER_FORMAT.into(),
                    filter.fields.clone().into(),
                    filter.keys.cast_signed().into(),
                    filter.blocks.cast_signed().into(),
                    filter.bytes.clone().into(),
                ],
            )
        })?;
    }
    Ok(())
}

/// The keys, by field ids, that objects of these ids have filters of.
pub fn keys_of(objects: &[i64]) -> Result<Vec<Vec<i32>>> {
    let found = user::elevated(|| {
        let sql = format!(
            "SELECT json_agg(k.field_ids) FROM (
               SELECT DISTINCT field_ids FROM archive_ext.key_filter
               WHERE object_id = ANY ({}) AND format = {KEY_FILTER_FORMAT}) k",
            ids(objects)
        );
        spi::active_text(&sql, &[])
    })?;
    Ok(serde_json::from_str(found.as_deref().unwrap_or("[]"))?)
}

/// The key, by field ids, of the filter of a partition's newest object, and how many keys that has: for the planner, which need not
/// know all.
pub fn newest(partition: i64, version: i32) -> Result<Option<(Vec<i32>, u64)>> {
    let found = user::elevated(|| {
        let sql = format!(
            "SELECT json_build_array(f.field_ids, f.keys) FROM archive_ext.key_filter f
             WHERE f.format = {KEY_FILTER_FORMAT} AND f.object_id =
                   (SELECT id FROM archive_ext.object WHERE partition_id = $1 AND version = $2
                    ORDER BY ordinal DESC LIMIT 1)"
        );
        spi::active_text(&sql, &[partition, version.into()])
    })?;
    Ok(found.as_deref().map(serde_json::from_str).transpose()?)
}

/// Which of the objects have a filter over `fields` that holds none of `keys`. Of each filter only the blocks of these keys are
/// read.
pub fn without(objects: &[i64], fields: &[i32], keys: &[KeyHash]) -> Result<Vec<i64>> {
    let places: Vec<_> = keys.iter().map(|key| key.place().to_string()).collect();
    let fields: Vec<_> = fields.iter().map(i32::to_string).collect();
    // The ids tell objects apart that followed one another under one key, so any snapshot will do.
    let found = user::elevated(|| {
        let sql = format!(
            "SELECT string_agg(b.line, ',') FROM (
               SELECT f.object_id || ':' || string_agg(encode(substring(f.filter
                        FROM 1 + s.size * (k.place % f.blocks)::int FOR s.size), 'hex'), ':' ORDER BY k.number) AS line
               FROM archive_ext.key_filter f CROSS JOIN LATERAL (SELECT octet_length(f.filter) / f.blocks AS size) s
               CROSS JOIN unnest('{{{}}}'::int8[]) WITH ORDINALITY AS k(place, number)
               WHERE f.object_id = ANY ({}) AND f.format = {KEY_FILTER_FORMAT} AND f.field_ids = '{{{}}}'::int[]
               GROUP BY f.object_id) b",
            places.join(","),
            ids(objects),
            fields.join(",")
        );
        spi::active_text(&sql, &[])
    })?;
    let lines = found.as_deref().unwrap_or_default().split(',');
    Ok(lines.filter_map(|line| absent(line, keys)).collect())
}

/// The object of a line, if none of the keys is in its block.
fn absent(line: &str, keys: &[KeyHash]) -> Option<i64> {
    let (object, blocks) = line.split_once(':')?;
    let mut pairs = blocks.split(':').zip(keys);
    let may_hold = pairs.any(|(block, key)| unhex(block).is_none_or(|block| block_may_hold(&block, *key)));
    if may_hold { None } else { object.parse().ok() }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect()
}

fn ids(objects: &[i64]) -> String {
    let ids: Vec<_> = objects.iter().map(i64::to_string).collect();
    format!("'{{{}}}'::int8[]", ids.join(","))
}
