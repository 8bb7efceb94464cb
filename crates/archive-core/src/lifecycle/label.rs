//! Labels: the lifecycle names of partitions, such as `LIVE_202401` or `ARCHIVE_2024Q1`.

use super::{Period, Status};
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// A status and, when the partition has date bounds, its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    /// The status.
    pub status: Status,
    /// The period; none for partitions without a date.
    pub period: Option<Period>,
}

impl Label {
    /// A label.
    pub fn new(status: Status, period: Option<Period>) -> Self {
        Self { status, period }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(printed(self.status))?;
        match self.period {
            Some(period) => write!(f, "_{period}"),
            None => Ok(()),
        }
    }
}

/// Labels say ARCHIVE where the status is ARCHIVED.
fn printed(status: Status) -> &'static str {
    match status {
        Status::Archived => "ARCHIVE",
        other => other.as_str(),
    }
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (status, period) = match text.split_once('_') {
            Some((status, period)) => (status, Some(Period::parse(period).ok_or_else(|| invalid(text))?)),
            None => (text, None),
        };
        let status = match status.eq_ignore_ascii_case("ARCHIVE") {
            true => Status::Archived,
            false => status.parse().map_err(|_| invalid(text))?,
        };
        Ok(Self { status, period })
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("invalid lifecycle label \"{text}\"")).hint(
        "A label is LIVE, HOT, WARM or ARCHIVE, followed by _ and a period such as 2024, 2024Q1, 202401, 202401W1, 20240101 or 2024010105.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Granularity, Moment};
    use proptest::prelude::*;

    #[test]
    fn the_labels_of_the_design() {
        for text in [
            "LIVE_202401",
            "LIVE_20240101",
            "LIVE_2024010105",
            "LIVE_202401W1",
            "LIVE_2024Q1",
            "LIVE_2024",
            "HOT",
            "HOT_2024Q1",
            "WARM_2024",
            "ARCHIVE_202509",
            "ARCHIVE",
        ] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        assert_eq!("ARCHIVED_202509".parse::<Label>().unwrap().to_string(), "ARCHIVE_202509");
        assert_eq!("archived".parse::<Label>().unwrap().to_string(), "ARCHIVE");
        for text in ["", "_2024", "COLD_2024", "LIVE_", "LIVE_2024_1", "LIVE202401", "ARCHIVEX_2024"] {
            assert_eq!(text.parse::<Label>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text}");
        }
    }

    proptest! {
        #[test]
        fn labels_round_trip(
            year in 1i32..=9999, month in 1u8..=12, day in 1u8..=28, hour in 0u8..24, which in 0usize..6, status in 0usize..4
        ) {
            let granularity = [Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month,
                Granularity::Quarter, Granularity::Year][which];
            let period = Period::new(Moment::new(year, month, day, hour, 0, 0).unwrap(), granularity);
            let label = Label::new(Status::ALL[status], Some(period));
            prop_assert_eq!(label.to_string().parse::<Label>().unwrap(), label);
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<Label>();
        }
    }
}
