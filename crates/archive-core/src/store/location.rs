//! The `location` option: `s3://bucket/prefix` or `file:///directory`.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Where a storage keeps its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory, absolute.
    File(PathBuf),
    /// A bucket and a prefix without slashes at its ends, possibly empty.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix below which all keys are.
        prefix: String,
    },
}

impl Location {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            return file(url, path);
        }
        match url.strip_prefix("s3://") {
            Some(rest) => s3(url, rest),
            None => Err(invalid(url, "The URL must begin with s3:// or file://.")),
        }
    }

    /// The URL of one object.
    pub fn url_of(&self, key: &str) -> String {
        format!("{self}/{key}")
    }

    /// Whether this is a directory.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

fn invalid(url: &str, detail: &str) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("invalid storage location \"{}\"", without_userinfo(url)))
        .detail(detail)
        .hint("Write location 's3://bucket/prefix' or location 'file:///absolute/directory'.")
}

/// A password somebody wrote into a URL must not come back in the error.
fn without_userinfo(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

fn file(url: &str, path: &str) -> Result<Location> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(invalid(url, "The directory must be absolute: three slashes follow file:."));
    }
    if path.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(invalid(url, "The directory must not contain \"..\"."));
    }
    if url.contains('\0') || path.components().count() < 2 {
        return Err(invalid(url, "The root directory cannot be a storage."));
    }
    Ok(Location::File(path.components().collect()))
}

fn s3(url: &str, rest: &str) -> Result<Location> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    if !valid_bucket(bucket) {
        return Err(invalid(
            url,
            "A bucket name has 3 to 63 letters, digits, dots and hyphens, and begins with a letter or digit.",
        ));
    }
    if !prefix.is_empty() && super::validate_key(prefix).is_err() {
        return Err(invalid(
            url,
            "The prefix must not contain empty segments, \".\", \"..\" or control characters, nor be long.",
        ));
    }
    if prefix.contains(['?', '#']) {
        return Err(invalid(url, "The location has no query or fragment; use the other options."));
    }
    Ok(Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn valid_bucket(bucket: &str) -> bool {
    (3..=63).contains(&bucket.len())
        && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bucket.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_written() {
        for url in ["s3://bucket", "s3://bucket/a/b", "file:///var/lib/archive"] {
            assert_eq!(Location::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Location::parse("s3://bucket/a/").unwrap().to_string(), "s3://bucket/a");
        assert_eq!(Location::parse("file:///a//b/").unwrap().to_string(), "file:///a/b");
    }

    #[test]
    fn what_is_no_location_is_refused() {
        let bad = [
            "",
            "/tmp",
            "http://b/x",
            "s3://",
            "s3://ab",
            "s3://b b",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://bucket/a?b",
            "file://tmp",
            "file:///",
            "file:///a/../b",
            "file://host/tmp",
        ];
        for url in bad {
            assert_eq!(Location::parse(url).unwrap_err().kind(), ErrorKind::InvalidParameter, "{url}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let error = Location::parse("s3://AKIA:sEcReT@bucket/x").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("sEcReT"));
    }
}
