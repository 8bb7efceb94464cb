//! `lifecycle_status`.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// How far a partition has aged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Written and read as any table.
    Live,
    /// Still written now and then.
    Hot,
    /// Read only, still local.
    Warm,
    /// In the storage.
    Archived,
}

impl Status {
    /// All of them, youngest first.
    pub const ALL: [Self; 4] = [Self::Live, Self::Hot, Self::Warm, Self::Archived];

    /// The name of the enum's value in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Hot => "HOT",
            Self::Warm => "WARM",
            Self::Archived => "ARCHIVED",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("invalid lifecycle status \"{text}\""))
                .hint("Valid statuses: LIVE, HOT, WARM, ARCHIVED.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_round_trip_in_any_case() {
        for status in Status::ALL {
            assert_eq!(status.to_string().parse::<Status>().unwrap(), status);
            assert_eq!(status.to_string().to_lowercase().parse::<Status>().unwrap(), status);
        }
        assert_eq!("COLD".parse::<Status>().unwrap_err().kind(), ErrorKind::InvalidParameter);
        assert!(Status::Live < Status::Hot && Status::Warm < Status::Archived);
    }
}
