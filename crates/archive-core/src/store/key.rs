//! Which object keys exist: those that mean the same in a bucket and in a directory.

use crate::error::{Error, ErrorKind, Result};

/// Names that begin so are files being written in a directory; no key has such a segment.
pub const TEMP_PREFIX: &str = ".tmp-";

const MAX_KEY: usize = 900;
const MAX_SEGMENT: usize = 255;

/// Refuses keys that escape the prefix, or that a bucket and a directory would read differently.
pub fn validate_key(key: &str) -> Result<()> {
    match problem(key) {
        None => Ok(()),
        Some(problem) => {
            Err(Error::new(ErrorKind::InvalidParameter, format!("invalid object key \"{}\"", key.escape_debug()))
                .detail(format!("The key {problem}.")))
        }
    }
}

fn problem(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("is empty");
    }
    if key.len() > MAX_KEY {
        return Some("is longer than 900 bytes");
    }
    if key.chars().any(|c| c.is_control() || c == '\\') {
        return Some("contains a control character or a backslash");
    }
    key.split('/').find_map(segment_problem)
}

fn segment_problem(segment: &str) -> Option<&'static str> {
    match segment {
        "" => Some("has an empty segment"),
        "." | ".." => Some("has a segment \".\" or \"..\""),
        _ if segment.starts_with(TEMP_PREFIX) => Some("has a segment that names a temporary file"),
        _ if segment.len() > MAX_SEGMENT => Some("has a segment longer than 255 bytes"),
        _ => None,
    }
}

/// Refuses list prefixes that escape; unlike a key, a prefix may be empty, end with a slash or cut a segment.
pub(super) fn validate_prefix(prefix: &str) -> Result<()> {
    match prefix.trim_end_matches('/') {
        "" if prefix.is_empty() => Ok(()),
        trimmed if prefix.len() - trimmed.len() <= 1 => validate_key(trimmed),
        _ => validate_key(prefix),
    }
}

/// 128 random bits in hexadecimal: names of temporary files and probe objects.
pub(super) fn random_suffix() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for key in ["a", "a/b.parquet", "_archive_ext/owner.json", "x=1/ü"] {
            assert!(validate_key(key).is_ok(), "{key}");
        }
        let long = format!("a/{}", "x".repeat(256));
        for key in ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\0b", "a\nb", "a\\b", "a/.tmp-1", &long] {
            assert_eq!(validate_key(key).unwrap_err().kind(), ErrorKind::InvalidParameter, "{key}");
        }
    }

    #[test]
    fn prefixes() {
        for prefix in ["", "a", "a/", "a/b.v"] {
            assert!(validate_prefix(prefix).is_ok(), "{prefix}");
        }
        for prefix in ["/", "a//", "../", "a/../b/"] {
            assert!(validate_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
