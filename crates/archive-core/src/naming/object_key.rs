//! Keys of data objects and manifests below a storage's prefix.

use super::segment::{decode_ident, encode_ident};
use crate::codec::ObjectFormat;
use crate::lifecycle::{Granularity, Moment};

/// The Hive directories of a partition, from its lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiveDate {
    /// `archive_year`.
    pub year: i32,
    /// `archive_month`; none when the partition spans several.
    pub month: Option<u8>,
}

impl HiveDate {
    /// The directories of a partition that begins at `lower` and is `granularity` long: a quarter or a year has no
    /// month, for an engine that filters on one would skip the others.
    pub fn new(lower: Moment, granularity: Granularity) -> Self {
        let month = match granularity {
            Granularity::Year | Granularity::Quarter => None,
            _ => Some(lower.month),
        };
        Self { year: lower.year, month }
    }

    fn directories(self) -> String {
        match self.month {
            Some(month) => format!("archive_year={:04}/archive_month={month:02}/", self.year),
            None => format!("archive_year={:04}/", self.year),
        }
    }
}

/// The prefix of all objects of a table: `<schema>.<table>/`.
pub fn table_prefix(schema: &str, table: &str) -> String {
    format!("{}.{}/", encode_ident(schema), encode_ident(table))
}

/// Schema and table of a key, or `None` when it is none of ours or its names were cut.
pub fn table_of_prefix(key: &str) -> Option<(String, String)> {
    let (schema, table) = key.split('/').next()?.split_once('.')?;
    Some((decode_ident(schema)?, decode_ident(table)?))
}

/// The key of the data object `number` of one version of a partition.
pub fn data_key(
    schema: &str,
    table: &str,
    partition: &str,
    date: Option<HiveDate>,
    version: u32,
    number: u32,
) -> String {
    let directories = date.map(HiveDate::directories).unwrap_or_default();
    format!("{}{directories}{}.v{version}.{number:05}.parquet", table_prefix(schema, table), encode_ident(partition))
}

/// The key of the data object `number` of a later version of a partition, in the directory of one of an earlier version, `beside`.
pub fn data_key_beside(beside: &str, partition: &str, version: u32, number: u32) -> String {
    let directory = beside.rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{directory}/{}.v{version}.{number:05}.parquet", encode_ident(partition))
}

/// What names a batch of rows: the job that archived it, its number among that job's batches, and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchName<'a> {
    /// The job, as hexadecimal digits.
    pub job: &'a str,
    /// Number of the batch within the job, from 1.
    pub number: u32,
    /// SHA-256 of the object, as hexadecimal digits.
    pub sha256: &'a str,
}

impl BatchName<'_> {
    fn of(self, name: &str) -> String {
        let (job, hash) = (cut(self.job, 8), cut(self.sha256, 16));
        format!("{}.b{job}.{:06}.{hash}", encode_ident(name), self.number)
    }
}

fn cut(digits: &str, length: usize) -> &str {
    digits.get(..length).unwrap_or(digits)
}

/// The key of an object with a batch of rows of a table. Other rows have another key, so that nothing is ever overwritten.
pub fn batch_key(
    schema: &str,
    table: &str,
    date: Option<HiveDate>,
    batch: BatchName<'_>,
    format: ObjectFormat,
) -> String {
    let directories = date.map(HiveDate::directories).unwrap_or_default();
    format!("{}{directories}{}.{}", table_prefix(schema, table), batch.of(table), format.as_str())
}

/// The key of an object in the directory of another, `beside`: it holds rows of the same months.
pub fn batch_key_beside(beside: &str, table: &str, batch: BatchName<'_>, format: ObjectFormat) -> String {
    let directory = beside.rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{directory}/{}.{}", batch.of(table), format.as_str())
}

/// The key of a batch's manifest; `set` is the row set that it belongs to.
pub fn batch_manifest_key(schema: &str, table: &str, set: &str, batch: BatchName<'_>) -> String {
    format!("{}_manifests/{}.json", table_prefix(schema, table), batch.of(set))
}

/// Whether a key is that of a batch's manifest.
pub fn is_batch_manifest(key: &str) -> bool {
    let name = key.rsplit_once("_manifests/").and_then(|(_, name)| name.strip_suffix(".json")).unwrap_or_default();
    let mut parts = name.rsplit('.');
    let (hash, number, job) = (parts.next(), parts.next(), parts.next().and_then(|job| job.strip_prefix('b')));
    let hexadecimal = |text: Option<&str>, length| {
        text.is_some_and(|text| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let numbered = number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()));
    hexadecimal(hash, 16) && hexadecimal(job, 8) && numbered && parts.next().is_some()
}

/// The prefix of the manifests of all versions of a partition, for listing; [`version_of`] tells them from those of a
/// partition with a longer name.
pub fn manifest_prefix(schema: &str, table: &str, partition: &str) -> String {
    format!("{}_manifests/{}.v", table_prefix(schema, table), encode_ident(partition))
}

/// The key of the manifest of one version of a partition.
pub fn manifest_key(schema: &str, table: &str, partition: &str, version: u32) -> String {
    format!("{}{version}.json", manifest_prefix(schema, table, partition))
}

/// The version in a manifest's key, or `None` when the key is no manifest of this partition.
pub fn version_of(manifest_key: &str, partition: &str) -> Option<u32> {
    let (directory, name) = manifest_key.rsplit_once('/')?;
    let digits = name.strip_prefix(&encode_ident(partition))?.strip_prefix(".v")?.strip_suffix(".json")?;
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let in_place = directory == "_manifests" || directory.ends_with("/_manifests");
    if canonical && in_place { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(year: i32, month: u8) -> Moment {
        Moment::date(year, month, 1).unwrap()
    }

    #[test]
    fn keys_of_the_design() {
        let date = Some(HiveDate::new(moment(2022, 1), Granularity::Month));
        assert_eq!(
            data_key("public", "orders", "orders_2022_01", date, 1, 0),
            "public.orders/archive_year=2022/archive_month=01/orders_2022_01.v1.00000.parquet"
        );
        assert_eq!(
            manifest_key("public", "orders", "orders_2022_01", 1),
            "public.orders/_manifests/orders_2022_01.v1.json"
        );
        assert_eq!(data_key("s", "t", "p", None, 2, 7), "s.t/p.v2.00007.parquet");
        let first = data_key("public", "orders", "o.1", date, 1, 0);
        assert_eq!(data_key_beside(&first, "o.1", 2, 3), data_key("public", "orders", "o.1", date, 2, 3));
        assert_eq!(table_of_prefix("s%2Ex.t/p"), Some(("s.x".to_owned(), "t".to_owned())));
    }

    #[test]
    fn batches_tell_job_number_and_content() {
        let batch = BatchName { job: "0123456789abcdef", number: 7, sha256: &"f00d".repeat(16) };
        let date = Some(HiveDate::new(moment(2022, 1), Granularity::Month));
        assert_eq!(
            batch_key("public", "ticket", date, batch, ObjectFormat::Parquet),
            "public.ticket/archive_year=2022/archive_month=01/ticket.b01234567.000007.f00df00df00df00d.parquet"
        );
        for format in ObjectFormat::ALL {
            let key = batch_key("public", "ticket", date, batch, format);
            assert_eq!(batch_key_beside(&key, "ticket", batch, format), key);
            assert_eq!(ObjectFormat::of_key(&key).ok(), Some(format));
        }
        let manifest = batch_manifest_key("public", "ticket", "ticket_rows", batch);
        assert_eq!(manifest, "public.ticket/_manifests/ticket_rows.b01234567.000007.f00df00df00df00d.json");
        assert_eq!(version_of(&manifest, "ticket_rows"), None);
        assert!(is_batch_manifest(&manifest));
        assert!(!is_batch_manifest(&manifest_key("public", "ticket", "ticket_rows", 1)));
        assert!(!is_batch_manifest("public.ticket/_manifests/b01234567.000007.f00df00df00df00d.json"));
    }

    #[test]
    fn months_only_where_a_partition_lies_in_one() {
        let directory = |granularity| HiveDate::new(moment(2022, 4), granularity).directories();
        assert_eq!(directory(Granularity::Quarter), "archive_year=2022/");
        assert_eq!(directory(Granularity::Year), "archive_year=2022/");
        assert_eq!(directory(Granularity::Day), "archive_year=2022/archive_month=04/");
    }

    #[test]
    fn versions() {
        let key = manifest_key("s", "t", "p", 12);
        assert_eq!(version_of(&key, "p"), Some(12));
        assert_eq!(version_of(&key, "q"), None);
        for key in [
            "s.t/_manifests/p.v01.json",
            "s.t/_manifests/p.v+1.json",
            "s.t/_manifests/p.v.json",
            "s.t/_manifests/p.v1.v2.json",
            "s.t/p.v1.json",
            "s.t/_manifests/p.v1.json.bak",
            "p.v1.json",
            "s.t/x_manifests/p.v1.json",
        ] {
            assert_eq!(version_of(key, "p"), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_key_is_valid_and_tells_its_version(
            schema in "\\PC{1,63}", table in "\\PC{1,63}", partition in "\\PC{1,63}", other in "\\PC{1,63}",
            version in 1u32.., number in 0u32..
        ) {
            let date = Some(HiveDate::new(moment(2022, 1), Granularity::Month));
            let data = data_key(&schema, &table, &partition, date, version, number);
            let manifest = manifest_key(&schema, &table, &partition, version);
            prop_assert!(crate::store::validate_key(&data).is_ok());
            prop_assert!(crate::store::validate_key(&manifest).is_ok());
            prop_assert_eq!(version_of(&manifest, &partition), Some(version));
            prop_assert!(manifest.starts_with(&manifest_prefix(&schema, &table, &partition)));
            prop_assert_eq!(version_of(&manifest, &other).is_some(), partition == other);
        }
    }
}
