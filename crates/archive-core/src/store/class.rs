//! Storage classes of S3: what they are called, which must be restored before they can be read, and how long that takes.
//!
//! Times and names: Amazon S3 User Guide, "Archive retrieval options".

use crate::error::{Error, ErrorKind, Result};
use std::str::FromStr;

/// The classes that `glacier_after` moves objects to.
pub const GLACIER_CLASSES: [&str; 3] = ["GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"];
/// Those of them whose objects cannot be read before they were restored.
pub const FROZEN_CLASSES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// Whether objects of this class must be restored before they can be read.
pub fn is_frozen(class: &str) -> bool {
    FROZEN_CLASSES.contains(&class)
}

/// How fast an object of a frozen class is restored, and at what price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retrieval {
    /// Minutes; not for `DEEP_ARCHIVE`.
    Expedited,
    /// Hours.
    Standard,
    /// The cheapest.
    Bulk,
}

impl Retrieval {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::Expedited, Self::Standard, Self::Bulk];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expedited => "expedited",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
        }
    }

    /// Hours after which objects of this class are readable at the latest, as a rule; `None` where the class has no such option.
    pub fn hours(self, class: &str) -> Option<f64> {
        Some(match (class, self) {
            ("GLACIER", Self::Expedited) => 5.0 / 60.0,
            ("GLACIER", Self::Standard) => 5.0,
            ("GLACIER", Self::Bulk) | ("DEEP_ARCHIVE", Self::Standard) => 12.0,
            ("DEEP_ARCHIVE", Self::Bulk) => 48.0,
            _ => return None,
        })
    }

    /// The same for people.
    pub fn told(self, class: &str) -> Option<&'static str> {
        Some(match (class, self) {
            ("GLACIER", Self::Expedited) => "1 to 5 minutes",
            ("GLACIER", Self::Standard) => "3 to 5 hours",
            ("GLACIER", Self::Bulk) => "5 to 12 hours",
            ("DEEP_ARCHIVE", Self::Standard) => "within 12 hours",
            ("DEEP_ARCHIVE", Self::Bulk) => "within 48 hours",
            _ => return None,
        })
    }
}

impl FromStr for Retrieval {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text.to_ascii_lowercase()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("unknown retrieval tier \"{text}\""))
                .hint("Use 'expedited', 'standard' or 'bulk'.")
        })
    }
}

/// How far the restore of an object of a frozen class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// It goes on.
    Ongoing,
    /// A readable copy is there, until so many seconds since 1970 if the store told.
    Ready(Option<i64>),
}

/// Seconds after which the store is asked again how far a restore is that takes so many hours: soon at first, for it may have been begun
/// long ago, and at most a tenth of that time later.
pub fn poll_seconds(hours: f64, polls: u32) -> i64 {
    const SOON: i64 = 60;
    let most = ((hours * 360.0) as i64).clamp(SOON, 1_800);
    (SOON << polls.min(6)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_and_option() {
        for class in FROZEN_CLASSES {
            assert!(is_frozen(class) && GLACIER_CLASSES.contains(&class));
            for option in Retrieval::ALL {
                assert_eq!(option.hours(class).is_some(), option.told(class).is_some(), "{class} {option:?}");
            }
            assert!(Retrieval::Standard.hours(class) <= Retrieval::Bulk.hours(class));
        }
        assert_eq!(Retrieval::Expedited.hours("DEEP_ARCHIVE"), None);
        assert!(!is_frozen("GLACIER_IR") && Retrieval::Standard.hours("GLACIER_IR").is_none());
    }

    #[test]
    fn polls_slow_down() {
        let waits = |hours: f64| (0..8).map(|polls| poll_seconds(hours, polls)).collect::<Vec<_>>();
        assert_eq!(waits(5.0 / 60.0), [60; 8]);
        assert_eq!(waits(5.0), [60, 120, 240, 480, 960, 1800, 1800, 1800]);
        assert!(waits(48.0).windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn options_are_named() {
        for option in Retrieval::ALL {
            assert_eq!(option.as_str().to_uppercase().parse::<Retrieval>().unwrap(), option);
        }
        assert!("fast".parse::<Retrieval>().unwrap_err().hint_text().unwrap().contains("bulk"));
    }
}
