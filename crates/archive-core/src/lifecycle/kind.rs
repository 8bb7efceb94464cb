//! How a managed table ages.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// What decides the age of a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RANGE partitions: a partition ages as a whole, by its upper bound.
    Time,
    /// LIST partitions by a status column that holds labels: rows move between partitions.
    Lifecycle,
    /// LIST partitions by anything else: no age of their own, moved by hand.
    List,
    /// Hash partitions: no age; single rows are archived.
    Hash,
    /// Not partitioned: rows age one by one.
    Plain,
    /// Registered as never to be archived.
    Static,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Time, Self::Lifecycle, Self::List, Self::Hash, Self::Plain, Self::Static];

    /// Whether rows are archived one by one, as they leave the table, and not partition by partition.
    pub const fn is_archived_by_rows(self) -> bool {
        matches!(self, Self::Hash | Self::Plain)
    }

    /// The name stored in the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Lifecycle => "lifecycle",
            Self::List => "list",
            Self::Hash => "hash",
            Self::Plain => "plain",
            Self::Static => "static",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| Error::new(ErrorKind::InvalidParameter, format!("unknown kind of table \"{text}\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        assert!("TIME".parse::<Kind>().is_err());
    }
}
