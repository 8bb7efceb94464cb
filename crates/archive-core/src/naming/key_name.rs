//! What a key below a storage's prefix is, by its name alone: for audits and for the removal of what nobody needs.

use crate::chain::REMOVAL_PREFIX;
use crate::codec::ObjectFormat;

/// A key, taken apart. The parts are as they are in the key, encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyName<'a> {
    /// The owner marker, or a probe of `check_storage`.
    Own,
    /// An object of one version of a partition.
    Data(Version<'a>),
    /// The manifest of one version of a partition or row set.
    Manifest(Version<'a>),
    /// An object of rows that were archived one by one.
    Batch(Batch<'a>),
    /// The manifest of such objects.
    BatchManifest(Batch<'a>),
    /// What says that manifests were deleted by right.
    Removal,
    /// Nothing of ours.
    Foreign,
}

/// One version of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version<'a> {
    /// `<schema>.<table>`.
    pub table: &'a str,
    /// The partition.
    pub partition: &'a str,
    /// Its version.
    pub version: u32,
}

/// What one job wrote for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch<'a> {
    /// `<schema>.<table>`.
    pub table: &'a str,
    /// The first eight hexadecimal digits of the job.
    pub job: &'a str,
}

impl<'a> KeyName<'a> {
    /// Takes a key apart.
    pub fn of(key: &'a str) -> Self {
        if key.starts_with(REMOVAL_PREFIX) {
            return Self::Removal;
        }
        if key.starts_with("_archive_ext/") {
            return Self::Own;
        }
        let Some((table, rest)) = key.split_once('/').filter(|(table, _)| is_table(table)) else {
            return Self::Foreign;
        };
        if let Some(name) = rest.strip_prefix("_manifests/") {
            let Some(stem) = name.strip_suffix(".json") else { return Self::Foreign };
            return version(table, stem)
                .map(Self::Manifest)
                .or_else(|| batch(table, stem).map(Self::BatchManifest))
                .unwrap_or(Self::Foreign);
        }
        let Some((stem, format)) = without_directories(rest).and_then(ObjectFormat::split) else {
            return Self::Foreign;
        };
        let numbered = stem.rsplit_once('.').filter(|(_, number)| is_digits(number, 5));
        // Partitions are archived as Parquet.
        numbered
            .filter(|_| format == ObjectFormat::Parquet)
            .and_then(|(stem, _)| version(table, stem))
            .map(Self::Data)
            .or_else(|| batch(table, stem).map(Self::Batch))
            .unwrap_or(Self::Foreign)
    }

    /// `<schema>.<table>`, of what belongs to a table.
    pub fn table(&self) -> Option<&'a str> {
        match self {
            Self::Data(of) | Self::Manifest(of) => Some(of.table),
            Self::Batch(of) | Self::BatchManifest(of) => Some(of.table),
            Self::Own | Self::Removal | Self::Foreign => None,
        }
    }

    /// Whether it is a link of the chain.
    pub fn is_link(&self) -> bool {
        self.is_manifest() || *self == Self::Removal
    }

    /// Whether it is a manifest.
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::Manifest(_) | Self::BatchManifest(_))
    }

    /// What runs that could write this very key have in common, and none that could not: versions of one partition, or
    /// what one job writes. `None` for what no run writes.
    pub fn family(&self) -> Option<String> {
        match self {
            Self::Data(of) | Self::Manifest(of) => Some(version_family(of.table, of.partition)),
            Self::Batch(of) | Self::BatchManifest(of) => Some(job_family(of.job)),
            Self::Own | Self::Removal | Self::Foreign => None,
        }
    }

    /// The word for it in results.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Own => "probe",
            Self::Data(_) | Self::Batch(_) => "object",
            Self::Manifest(_) | Self::BatchManifest(_) => "manifest",
            Self::Removal => "removal",
            Self::Foreign => "foreign",
        }
    }
}

/// The family of all versions of a partition: the key of a manifest that is never written.
pub fn version_family(table: &str, partition: &str) -> String {
    format!("{table}/_manifests/{partition}.v0.json")
}

/// The family of what a job writes row by row; of its digits the first eight count.
pub fn job_family(job: &str) -> String {
    format!("batches of job {}", job.get(..8).unwrap_or(job))
}

fn is_table(segment: &str) -> bool {
    let mut parts = segment.split('.');
    let named = |part: Option<&str>| part.is_some_and(is_ident);
    named(parts.next()) && named(parts.next()) && parts.next().is_none()
}

/// Whether it can be an identifier as keys have them.
fn is_ident(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with('_')
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-%~".contains(&byte))
}

fn is_digits(text: &str, least: usize) -> bool {
    text.len() >= least && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is left behind `archive_year=…/archive_month=…/`, if that is all there is.
fn without_directories(rest: &str) -> Option<&str> {
    let Some((year, after)) = rest.split_once('/') else { return Some(rest) };
    let year = year.strip_prefix("archive_year=")?;
    if !is_digits(year.strip_prefix('-').unwrap_or(year), 3) {
        return None;
    }
    let Some((month, name)) = after.split_once('/') else { return Some(after) };
    let is_month = month.strip_prefix("archive_month=").is_some_and(|month| is_digits(month, 2) && month.len() == 2);
    (is_month && !name.contains('/')).then_some(name)
}

fn version<'a>(table: &'a str, stem: &'a str) -> Option<Version<'a>> {
    let (partition, digits) = stem.split_once('.')?;
    let digits = digits.strip_prefix('v')?;
    let canonical = is_digits(digits, 1) && !digits.starts_with('0') && is_ident(partition);
    Some(Version { table, partition, version: canonical.then(|| digits.parse().ok()).flatten()? })
}

fn batch<'a>(table: &'a str, stem: &'a str) -> Option<Batch<'a>> {
    let mut parts = stem.split('.');
    let (name, job, number, hash) = (parts.next()?, parts.next()?.strip_prefix('b')?, parts.next()?, parts.next()?);
    let ours = is_ident(name) && is_hex(job, 8) && is_digits(number, 6) && is_hex(hash, 16) && parts.next().is_none();
    ours.then_some(Batch { table, job })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Granularity, Moment};
    use crate::naming::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_ours_is_foreign() {
        for key in [
            "notes.txt",
            "public.orders/readme.md",
            "public.orders/orders.v1.00000.parquet.bak",
            "public.orders/orders.v0.00000.parquet",
            "public.orders/orders.v1.00000.ndjson",
            "public.orders/orders.v1.0.parquet",
            "public.orders/other/orders.v1.00000.parquet",
            "public.orders/archive_year=2024/archive_month=1/orders.v1.00000.parquet",
            "public.orders/archive_year=2024/archive_month=01/x/orders.v1.00000.parquet",
            "public.orders/_manifests/orders.json",
            "public.orders/_manifests/orders.v1.json/x",
            "public.orders.more/_manifests/orders.v1.json",
            "orders/_manifests/orders.v1.json",
            "public.orders/_manifests/orders.v99999999999.json",
            "",
        ] {
            assert_eq!(KeyName::of(key), KeyName::Foreign, "{key}");
        }
        assert_eq!(KeyName::of(crate::store::OWNER_KEY), KeyName::Own);
        let removal = KeyName::of("_archive_ext/removed/20260102T030405Z.abababababababab.json");
        assert!(removal == KeyName::Removal && removal.is_link() && removal.family().is_none());
    }

    #[test]
    fn versions_of_a_partition_are_one_family_and_so_is_what_a_job_wrote() {
        let (data, manifest) = (data_key("s", "t", "p", None, 2, 7), manifest_key("s", "t", "p", 3));
        assert_eq!(KeyName::of(&data), KeyName::Data(Version { table: "s.t", partition: "p", version: 2 }));
        assert_eq!(KeyName::of(&data).family(), KeyName::of(&manifest).family());
        assert_eq!(KeyName::of(&data).family(), Some(manifest_key("s", "t", "p", 0)));
        let batch = BatchName { job: "0123456789abcdef", number: 7, sha256: &"f00d".repeat(16) };
        let manifest = batch_manifest_key("s", "t", "t_rows", batch);
        for format in ObjectFormat::ALL {
            let object = batch_key("s", "t", None, batch, format);
            assert_eq!(KeyName::of(&object), KeyName::Batch(Batch { table: "s.t", job: "01234567" }));
            assert_eq!(KeyName::of(&object).family(), Some(job_family("0123456789abcdef")));
            assert_eq!(KeyName::of(&object).family(), KeyName::of(&manifest).family());
            assert!(KeyName::of(&manifest).is_manifest() && !KeyName::of(&object).is_manifest());
        }
    }

    proptest! {
        #[test]
        fn every_key_that_is_written_is_told_for_what_it_is(
            schema in "\\PC{1,63}", table in "\\PC{1,63}", partition in "\\PC{1,63}", version in 1u32.., number in 0u32..,
            year in -4712i32..294276, month in 1u8..=12, granularity in prop_oneof![Just(Granularity::Month), Just(Granularity::Year)],
            job in "[0-9a-f]{32}", sha256 in "[0-9a-f]{64}", format in prop::sample::select(ObjectFormat::ALL.to_vec()),
        ) {
            let date = Moment::date(year, month, 1).map(|lower| HiveDate::new(lower, granularity));
            let data = data_key(&schema, &table, &partition, date, version, number);
            let encoded = encode_ident(&partition);
            let of = Version { table: data.split('/').next().unwrap(), partition: &encoded, version };
            prop_assert_eq!(KeyName::of(&data), KeyName::Data(of));
            let manifest = manifest_key(&schema, &table, &partition, version);
            prop_assert_eq!(KeyName::of(&manifest), KeyName::Manifest(of));
            prop_assert_eq!(version_family(of.table, of.partition), manifest_key(&schema, &table, &partition, 0));
            let name = BatchName { job: &job, number, sha256: &sha256 };
            let of = Batch { table: of.table, job: &job[..8] };
            let object = batch_key(&schema, &table, date, name, format);
            let manifest = batch_manifest_key(&schema, &table, &partition, name);
            prop_assert_eq!(KeyName::of(&object), KeyName::Batch(of));
            prop_assert_eq!(KeyName::of(&manifest), KeyName::BatchManifest(of));
        }

        #[test]
        fn any_text_is_taken_apart_without_a_panic(key in "\\PC{0,80}", path in "[a-z._/=0-9v%~-]{0,60}") {
            let _ = (KeyName::of(&key), KeyName::of(&path));
        }
    }
}
