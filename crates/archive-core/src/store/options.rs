//! The options of a foreign server of `archive_fdw`, typed and validated.

use super::values::{boolean, duration};
use super::{Endpoint, Location, ObjectLock, Sse, is_frozen};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where the credentials of an S3 storage come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// The user mapping of the foreign table's owner.
    UserMapping,
    /// `AWS_ACCESS_KEY_ID` and friends in the server's environment; only a superuser may choose it.
    Environment,
    /// A file of mode 0600; only a superuser may choose it.
    File(PathBuf),
}

/// The checksum sent with each upload; a server that does not know it ignores the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-32C, the default.
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-256.
    Sha256,
    /// None, also none validated on download.
    None,
}

/// Everything a server's OPTIONS say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageOptions {
    /// Where objects are kept.
    pub location: Location,
    /// The region requests are signed for; `us-east-1` when nothing names one.
    pub region: Option<String>,
    /// The URL of an S3 server other than AWS.
    pub endpoint: Option<String>,
    /// `http://host/bucket/key` instead of `http://bucket.host/key`; the default is true when `endpoint` is set.
    pub path_style: bool,
    /// The storage class of data objects; small metadata stays in the bucket's default class.
    pub storage_class: Option<String>,
    /// Server-side encryption.
    pub sse: Option<Sse>,
    /// The KMS key.
    pub kms_key_id: Option<String>,
    /// Retention of data objects and manifests.
    pub object_lock: Option<ObjectLock>,
    /// Where credentials come from.
    pub credentials: CredentialSource,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long one attempt may go without an answer, and a body without a byte.
    pub request_timeout: Duration,
    /// How often a request is tried.
    pub max_attempts: u32,
    /// The longest random wait before the second attempt; it doubles with each further one, up to 20 s.
    pub retry_backoff: Duration,
    /// The checksum of uploads.
    pub checksum: Checksum,
    /// The file with the key that signs manifests; only a superuser may choose it.
    pub signing_key: Option<PathBuf>,
}

const STORAGE_CLASSES: &[&str] =
    &["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY"];

impl StorageOptions {
    /// Every option a server may have, with what it is for.
    pub const SERVER_OPTIONS: &[(&str, &str)] = &[
        ("location", "s3://bucket/prefix or file:///directory"),
        ("region", "region of the bucket"),
        ("endpoint", "URL of an S3 server other than AWS"),
        (
            "path_style",
            "true: the bucket is in the path of the URL, not in the host name (default: true with endpoint)",
        ),
        ("storage_class", "S3 storage class of archived data"),
        ("sse", "server-side encryption: AES256, aws:kms or aws:kms:dsse"),
        ("kms_key_id", "KMS key of sse 'aws:kms'"),
        ("object_lock", "retention of archived objects, such as 'GOVERNANCE 10 years'"),
        ("credentials", "user_mapping, environment or file:/path"),
        ("connect_timeout", "limit for a connection attempt (5 s)"),
        ("request_timeout", "limit for an attempt without an answer (30 s)"),
        ("max_attempts", "how often a request is tried (5)"),
        ("retry_backoff", "longest random wait before the second attempt (500 ms)"),
        ("checksum", "checksum of uploads: crc32c, crc64nvme, sha256 or none"),
        ("signing_key", "file:/path with an Ed25519 key that signs manifests"),
    ];

    /// Reads the options of a server and refuses unknown, malformed and contradictory ones.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let given = Given::collect(options)?;
        let parsed = given.typed()?;
        given.check_combinations(&parsed)?;
        Ok(parsed)
    }

    /// What the storage is that cannot lock objects, and what helps; `None` where it can.
    pub fn cannot_lock(&self) -> Option<(&'static str, &'static str)> {
        match (self.location.is_file(), self.checksum) {
            (true, _) => Some(("is a directory, which locks no objects", "name an S3 storage")),
            (false, Checksum::None) => Some((
                "has checksum 'none', and S3 takes locked objects only with one",
                "take that option off the server",
            )),
            _ => None,
        }
    }

    /// The same for objects that a policy wants locked, written at `now` (seconds since 1970): at least as the storage wants it, so the
    /// stricter of both modes and the longer of both periods. Errors: `Unsupported` where objects cannot be locked.
    pub fn locking(self, wanted: Option<ObjectLock>, now: i64) -> Result<Self> {
        let Some(wanted) = wanted else { return Ok(self) };
        if let Some((why, remedy)) = self.cannot_lock() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("objects cannot be locked as {wanted}, as the policy wants"),
            )
            .detail(format!("The storage {why}."))
            .hint(format!("Either {remedy}, or set_archive_policy(table, clear => '{{object_lock}}').")));
        }
        let lock = self.object_lock.map_or(wanted, |own| wanted.and(own, now));
        Ok(Self { object_lock: Some(lock), ..self })
    }

    /// The region requests are signed for; with the environment's credentials goes its region.
    pub(super) fn region_used(&self, from_environment: bool) -> String {
        let variable = |name| std::env::var(name).ok().filter(|value| from_environment && !value.is_empty());
        self.region
            .clone()
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| "us-east-1".to_owned())
    }
}

/// The options as written, each known and at most once.
struct Given<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Given<'a> {
    fn collect(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut given = BTreeMap::new();
        for (name, value) in options {
            if !StorageOptions::SERVER_OPTIONS.iter().any(|(known, _)| *known == name) {
                return Err(unknown("storage option", name, StorageOptions::SERVER_OPTIONS));
            }
            if given.insert(name, value).is_some() {
                return Err(Error::new(ErrorKind::InvalidOption, format!("option \"{name}\" is given twice")));
            }
        }
        Ok(Self(given))
    }

    fn typed(&self) -> Result<StorageOptions> {
        let endpoint = self.typed_option("endpoint", endpoint, "http://host:port or https://host:port")?;
        Ok(StorageOptions {
            location: self.location()?,
            region: self.typed_option("region", region, "a region such as eu-west-1")?,
            path_style: self.typed_option("path_style", boolean, "true or false")?.unwrap_or(endpoint.is_some()),
            endpoint,
            storage_class: self.storage_class()?,
            sse: self.typed_option("sse", Sse::parse, Sse::NAMES)?,
            kms_key_id: self.typed_option("kms_key_id", non_empty, "the id or ARN of a KMS key")?,
            object_lock: self.typed_option(
                "object_lock",
                ObjectLock::parse,
                "such as GOVERNANCE 10 years or COMPLIANCE 90 days",
            )?,
            credentials: self
                .typed_option("credentials", source, "user_mapping, environment or file:/absolute/path")?
                .unwrap_or(CredentialSource::UserMapping),
            connect_timeout: self.duration("connect_timeout", Duration::from_secs(5))?,
            request_timeout: self.duration("request_timeout", Duration::from_secs(30))?,
            retry_backoff: self.duration("retry_backoff", Duration::from_millis(500))?,
            max_attempts: self.typed_option("max_attempts", attempts, "a number from 1 to 20")?.unwrap_or(5),
            checksum: self
                .typed_option("checksum", checksum, "crc32c, crc64nvme, sha256 or none")?
                .unwrap_or(Checksum::Crc32c),
            signing_key: self.typed_option("signing_key", key_file, "file:/absolute/path")?,
        })
    }

    fn location(&self) -> Result<Location> {
        match self.0.get("location") {
            Some(url) => Location::parse(url),
            None => Err(Error::new(ErrorKind::InvalidOption, "option \"location\" is missing")
                .hint("Write OPTIONS (location 's3://bucket/prefix') or OPTIONS (location 'file:///directory').")),
        }
    }

    fn typed_option<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Result<Option<T>> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        match parse(text) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::new(ErrorKind::InvalidParameter, format!("invalid value for option \"{name}\""))
                .detail(format!("The value must be {expected}."))),
        }
    }

    fn duration(&self, name: &str, default: Duration) -> Result<Duration> {
        Ok(self.typed_option(name, duration, "a time from 1 ms to 60 min, such as 500 ms or 30 s")?.unwrap_or(default))
    }

    fn storage_class(&self) -> Result<Option<String>> {
        let Some(class) = self.0.get("storage_class") else { return Ok(None) };
        if is_frozen(class) {
            return Err(Error::new(ErrorKind::Unsupported, format!("objects cannot be written in storage_class \"{class}\""))
                .detail("They could not be read back, and nothing is archived without that proof.")
                .hint("Write them in another class, and let a policy move them: glacier_after, with glacier_class. Or use GLACIER_IR, which stays readable at once."));
        }
        if STORAGE_CLASSES.contains(class) {
            return Ok(Some((*class).to_owned()));
        }
        Err(Error::new(ErrorKind::InvalidParameter, format!("invalid value \"{class}\" for option \"storage_class\""))
            .hint(format!("Valid storage classes: {}.", STORAGE_CLASSES.join(", "))))
    }

    fn check_combinations(&self, parsed: &StorageOptions) -> Result<()> {
        if parsed.location.is_file() {
            return self.only_location();
        }
        if parsed.kms_key_id.is_some() && !matches!(parsed.sse, Some(Sse::Kms | Sse::KmsDsse)) {
            return Err(contradiction("kms_key_id", "sse", "A KMS key needs sse 'aws:kms' or 'aws:kms:dsse'."));
        }
        if parsed.object_lock.is_some() && parsed.checksum == Checksum::None {
            return Err(contradiction("object_lock", "checksum", "S3 takes locked objects only with a checksum."));
        }
        Ok(())
    }

    fn only_location(&self) -> Result<()> {
        match self.0.keys().find(|name| !["location", "signing_key"].contains(name)) {
            None => Ok(()),
            Some(name) => Err(contradiction(
                name,
                "location",
                "The option is for s3:// locations, and this is a file:// location.",
            )),
        }
    }
}

pub(super) fn unknown(what: &str, name: &str, known: &[(&str, &str)]) -> Error {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    Error::new(ErrorKind::InvalidOption, format!("unknown {what} \"{name}\""))
        .hint(format!("Valid options: {}.", names.join(", ")))
}

fn contradiction(one: &str, other: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidOption, format!("option \"{one}\" contradicts option \"{other}\"")).detail(why)
}

fn non_empty(text: &str) -> Option<String> {
    let clean = !text.trim().is_empty() && !text.chars().any(char::is_control);
    clean.then(|| text.to_owned())
}

fn region(text: &str) -> Option<String> {
    let clean = !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    clean.then(|| text.to_owned())
}

fn endpoint(text: &str) -> Option<String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let clean = host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    (clean && Endpoint::parse(text).is_some()).then(|| text.trim_end_matches('/').to_owned())
}

fn source(text: &str) -> Option<CredentialSource> {
    match text {
        "user_mapping" => Some(CredentialSource::UserMapping),
        "environment" => Some(CredentialSource::Environment),
        _ => key_file(text).map(CredentialSource::File),
    }
}

fn key_file(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("file:")?;
    let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
    path.is_absolute().then_some(path)
}

fn attempts(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| (1..=20).contains(n))
}

fn checksum(text: &str) -> Option<Checksum> {
    match text.to_ascii_lowercase().as_str() {
        "crc32c" => Some(Checksum::Crc32c),
        "crc64nvme" => Some(Checksum::Crc64Nvme),
        "sha256" => Some(Checksum::Sha256),
        "none" => Some(Checksum::None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: (&str, &str) = ("location", "s3://bucket/prefix");

    fn refused(options: &[(&str, &str)], kind: ErrorKind, says: &[&str]) {
        let error = StorageOptions::parse(options.iter().copied()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = format!("{error} {:?}", error.hint_text());
        for word in says {
            assert!(text.contains(word), "{text} lacks {word}");
        }
    }

    #[test]
    fn defaults() {
        let options = StorageOptions::parse([S3]).unwrap();
        assert_eq!(options.connect_timeout, Duration::from_secs(5));
        assert_eq!(options.request_timeout, Duration::from_secs(30));
        assert_eq!(options.max_attempts, 5);
        assert_eq!(options.credentials, CredentialSource::UserMapping);
        assert!(!options.path_style);
        assert!(StorageOptions::parse([S3, ("endpoint", "http://127.0.0.1:9000")]).unwrap().path_style);
        assert!(StorageOptions::parse([("location", "file:///var/archive")]).unwrap().location.is_file());
        assert!(StorageOptions::parse([("location", "file:///a"), ("signing_key", "file:/k")]).is_ok());
    }

    #[test]
    fn all_options_together() {
        let options = StorageOptions::parse([
            S3,
            ("region", "eu-west-1"),
            ("endpoint", "https://s3.example.org/"),
            ("path_style", "off"),
            ("storage_class", "STANDARD_IA"),
            ("sse", "aws:kms"),
            ("kms_key_id", "alias/archive"),
            ("object_lock", "GOVERNANCE 10 years"),
            ("credentials", "file:/etc/archive.key"),
            ("connect_timeout", "2 s"),
            ("request_timeout", "1min"),
            ("max_attempts", "3"),
            ("retry_backoff", "10ms"),
            ("checksum", "sha256"),
            ("signing_key", "file:/etc/postgresql/archive.pem"),
        ])
        .unwrap();
        assert_eq!(options.endpoint.as_deref(), Some("https://s3.example.org"));
        assert_eq!(options.credentials, CredentialSource::File("/etc/archive.key".into()));
        assert_eq!(options.sse, Some(Sse::Kms));
        assert_eq!(options.signing_key, Some("/etc/postgresql/archive.pem".into()));
        assert!(!options.path_style);
    }

    #[test]
    fn unknown_options_name_the_valid_ones() {
        refused(&[S3, ("bucket", "x")], ErrorKind::InvalidOption, &["bucket", "location", "kms_key_id", "checksum"]);
        refused(&[S3, S3], ErrorKind::InvalidOption, &["location", "twice"]);
        refused(&[], ErrorKind::InvalidOption, &["location", "missing"]);
    }

    #[test]
    fn contradictions_name_both() {
        refused(&[S3, ("kms_key_id", "k")], ErrorKind::InvalidOption, &["kms_key_id", "sse"]);
        refused(&[S3, ("kms_key_id", "k"), ("sse", "AES256")], ErrorKind::InvalidOption, &["kms_key_id", "sse"]);
        refused(
            &[S3, ("object_lock", "COMPLIANCE 1 day"), ("checksum", "none")],
            ErrorKind::InvalidOption,
            &["object_lock", "checksum"],
        );
        for (name, value) in [("region", "eu-west-1"), ("endpoint", "http://x"), ("credentials", "environment")] {
            refused(&[("location", "file:///a/b"), (name, value)], ErrorKind::InvalidOption, &[name, "file://"]);
        }
    }

    #[test]
    fn a_policy_locks_at_least_as_the_storage_does() {
        let locking = |options: &[(&str, &str)], wanted: &str| {
            let options = StorageOptions::parse(options.iter().copied()).unwrap();
            let locked = options.locking(ObjectLock::parse(wanted), 0)?;
            Ok::<_, Error>(locked.object_lock.map(|lock| lock.to_string()))
        };
        let strict = ("object_lock", "GOVERNANCE 10 years");
        assert_eq!(locking(&[S3], "COMPLIANCE 7 years").unwrap().as_deref(), Some("COMPLIANCE 7 years"));
        assert_eq!(locking(&[S3, strict], "COMPLIANCE 7 years").unwrap().as_deref(), Some("COMPLIANCE 10 years"));
        assert_eq!(locking(&[S3, strict], "").unwrap().as_deref(), Some("GOVERNANCE 10 years"));
        assert_eq!(locking(&[("location", "file:///a")], "").unwrap(), None);
        for (options, why) in
            [(vec![("location", "file:///a")], "directory"), (vec![S3, ("checksum", "none")], "checksum")]
        {
            let error = locking(&options, "GOVERNANCE 1 day").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.detail_text().unwrap().contains(why), "{error}");
            assert!(error.hint_text().unwrap().contains("clear"));
        }
    }

    #[test]
    fn malformed_values() {
        for (name, value) in [
            ("endpoint", "s3.example.org"),
            ("endpoint", "ftp://x"),
            ("endpoint", "http://user:pw@x"),
            ("endpoint", "http://x/path"),
            ("endpoint", "http://x:port"),
            ("endpoint", "http://[::1"),
            ("path_style", "maybe"),
            ("storage_class", "COLD"),
            ("sse", "aes"),
            ("object_lock", "10 years"),
            ("credentials", "file:relative"),
            ("signing_key", "AAAA"),
            ("credentials", "AKIA"),
            ("connect_timeout", "soon"),
            ("max_attempts", "0"),
            ("region", "eu west"),
        ] {
            refused(&[S3, (name, value)], ErrorKind::InvalidParameter, &[name]);
        }
    }

    #[test]
    fn frozen_classes_are_refused_with_the_reason() {
        for class in super::super::FROZEN_CLASSES {
            refused(&[S3, ("storage_class", class)], ErrorKind::Unsupported, &[class, "read back", "glacier_after"]);
        }
    }
}
