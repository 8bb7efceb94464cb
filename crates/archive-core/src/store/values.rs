//! Values of single options: booleans, durations, encryption.

use std::time::Duration;

/// Server-side encryption of new objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sse {
    /// Keys managed by S3 (`AES256`).
    Aes256,
    /// Keys managed by KMS (`aws:kms`).
    Kms,
    /// Two layers, keys managed by KMS (`aws:kms:dsse`).
    KmsDsse,
}

impl Sse {
    pub(super) const NAMES: &str = "AES256, aws:kms, aws:kms:dsse";

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "AES256" => Some(Self::Aes256),
            "aws:kms" => Some(Self::Kms),
            "aws:kms:dsse" => Some(Self::KmsDsse),
            _ => None,
        }
    }
}

/// PostgreSQL's spellings of a boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" | "t" | "y" => Some(true),
        "false" | "off" | "no" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// `500 ms`, `30s`, `2 min`, or a bare number of seconds; between 1 ms and one hour.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" => number,
        "" | "s" | "sec" | "second" | "seconds" => number.checked_mul(1000)?,
        "min" | "minute" | "minutes" => number.checked_mul(60_000)?,
        _ => return None,
    };
    (1..=3_600_000).contains(&millis).then(|| Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Some(Duration::from_secs(30)));
        assert_eq!(duration("500 ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("2min"), Some(Duration::from_secs(120)));
        for bad in ["", "s", "0", "-1", "1.5 s", "2 h", "3601", "99999999999999999999"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
