//! The labels of partitions of the hot table, from their bounds and what the catalog knows of them.

use super::{Granularity, Kind, Label, Moment, Period, Status, range_bounds};

/// A partition on the way from the table's root to a leaf.
#[derive(Debug, Clone)]
pub struct Level {
    /// Its bounds as `pg_get_expr(relpartbound)` prints them, with dates in ISO style.
    pub bounds: String,
    /// Whether its parent is partitioned by RANGE of a date or timestamp.
    pub by_time: bool,
}

/// The labels of the leaf at the end of `path`; none when nobody can tell which labels its rows have, as in a DEFAULT
/// partition. `recorded` is the status in the catalog, with the label if there is one; a partition without is LIVE.
pub fn local_labels(kind: Kind, path: &[Level], recorded: Option<(Status, Option<String>)>) -> Vec<String> {
    if path.iter().any(|level| level.bounds == "DEFAULT") {
        return Vec::new();
    }
    if kind == Kind::Lifecycle {
        return path.first().map(|level| list_values(&level.bounds)).unwrap_or_default();
    }
    let (status, label) = recorded.unwrap_or((Status::Live, None));
    let period = || path.iter().rev().find_map(period_of);
    vec![label.unwrap_or_else(|| Label::new(status, period()).to_string())]
}

/// The period of a RANGE partition; `None` without two finite dates.
fn period_of(level: &Level) -> Option<Period> {
    if !level.by_time {
        return None;
    }
    let (lower, upper) = range_bounds(&level.bounds);
    let (lower, upper) = (moment(&lower?)?, moment(&upper?)?);
    let granularity = Granularity::between(lower, upper)?;
    Some(Period::new(lower.on_calendar(granularity), granularity))
}

/// A date or timestamp in ISO style; the offset, which is that of UTC, and fractions of a second are dropped.
fn moment(text: &str) -> Option<Moment> {
    let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    if time.contains("BC") {
        return None;
    }
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let mut time = time.get(..8)?.split(':');
    let (hour, minute, second) = (time.next()?, time.next()?, time.next()?);
    Moment::new(
        year.parse().ok()?,
        month.parse().ok()?,
        day.parse().ok()?,
        hour.parse().ok()?,
        minute.parse().ok()?,
        second.parse().ok()?,
    )
}

/// The values of `FOR VALUES IN (…)` without NULL.
fn list_values(bounds: &str) -> Vec<String> {
    let Some(mut rest) = bounds.strip_prefix("FOR VALUES IN (") else { return Vec::new() };
    let mut values = Vec::new();
    while let Some(at) = rest.find('\'') {
        let mut value = String::new();
        let mut chars = rest[at + 1..].char_indices().peekable();
        let mut end = rest.len();
        while let Some((here, c)) = chars.next() {
            match (c, chars.peek()) {
                ('\'', Some((_, '\''))) => {
                    value.push('\'');
                    chars.next();
                }
                ('\'', _) => {
                    end = at + 1 + here + 1;
                    break;
                }
                _ => value.push(c),
            }
        }
        values.push(value);
        rest = &rest[end..];
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn level(bounds: &str, by_time: bool) -> Level {
        Level { bounds: bounds.to_owned(), by_time }
    }

    fn labels(bounds: &str) -> Vec<String> {
        local_labels(Kind::Time, &[level(bounds, true)], None)
    }

    #[test]
    fn a_partition_that_nobody_moved_is_live_in_its_period() {
        assert_eq!(labels("FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')"), ["LIVE_202401"]);
        assert_eq!(labels("FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2025-01-01 00:00:00+00')"), ["LIVE_2024"]);
        assert_eq!(labels("FOR VALUES FROM ('2023-12-31 23:00:00+00') TO ('2024-01-31 23:00:00+00')"), ["LIVE_202401"]);
        assert_eq!(labels("FOR VALUES FROM ('2024-01-01 05:00:00') TO ('2024-01-01 06:00:00')"), ["LIVE_2024010105"]);
        for bounds in [
            "FOR VALUES FROM (MINVALUE) TO ('2024-02-01')",
            "FOR VALUES FROM ('-infinity') TO ('2024-02-01')",
            "FOR VALUES FROM ('0044-03-15 BC') TO ('0001-01-01')",
            "FOR VALUES FROM (1) TO (7)",
            "FOR VALUES IN (2024)",
        ] {
            assert_eq!(labels(bounds), ["LIVE"], "{bounds}");
        }
    }

    #[test]
    fn what_the_catalog_says_goes_first() {
        let path =
            [level("FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')", true), level("FOR VALUES IN ('eu')", false)];
        assert_eq!(local_labels(Kind::Time, &path, None), ["LIVE_2024"]);
        assert_eq!(local_labels(Kind::Time, &path, Some((Status::Warm, None))), ["WARM_2024"]);
        assert_eq!(local_labels(Kind::Time, &path, Some((Status::Hot, Some("HOT".into())))), ["HOT"]);
    }

    #[test]
    fn the_labels_of_a_list_table_are_its_values() {
        let path =
            [level("FOR VALUES IN ('HOT', 'it''s, it', NULL, 'WARM_2024')", false), level("FOR VALUES IN (1)", false)];
        assert_eq!(local_labels(Kind::Lifecycle, &path, None), ["HOT", "it's, it", "WARM_2024"]);
        assert!(local_labels(Kind::Lifecycle, &[level("FOR VALUES IN (NULL)", false)], None).is_empty());
    }

    #[test]
    fn nobody_knows_the_labels_in_a_default_partition() {
        let path = [level("FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')", true), level("DEFAULT", false)];
        assert!(local_labels(Kind::Time, &path, None).is_empty());
        assert!(labels("DEFAULT").is_empty());
    }

    proptest! {
        #[test]
        fn bounds_of_any_text_are_read(bounds in "(FOR VALUES (IN|FROM) \\()?\\PC{0,40}") {
            let _ = labels(&bounds);
            let _ = list_values(&bounds);
        }
    }
}
