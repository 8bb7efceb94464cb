//! The labels of partitions of the hot table, from their bounds and what the catalog knows of them.

use super::{Kind, Label, Period, Status, TimeKey, list_values};

/// A partition on the way from the table's root to a leaf.
#[derive(Debug, Clone)]
pub struct Level {
    /// Its bounds as `pg_get_expr(relpartbound)` prints them, with dates in ISO style.
    pub bounds: String,
    /// What its parent's key tells the time by, if that is partitioned by RANGE of a time or of ids that begin with one.
    pub key: Option<TimeKey>,
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

/// The period of a RANGE partition; `None` without two finite times.
fn period_of(level: &Level) -> Option<Period> {
    let (lower, granularity) = level.key?.span(&level.bounds)?;
    Some(Period::new(lower, granularity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Epoch;
    use proptest::prelude::*;

    fn level(bounds: &str, by_time: bool) -> Level {
        Level { bounds: bounds.to_owned(), key: by_time.then_some(TimeKey::Time) }
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
    fn ids_that_begin_with_a_time_have_a_period() {
        let of =
            |key, bounds: &str| local_labels(Kind::Time, &[Level { bounds: bounds.to_owned(), key: Some(key) }], None);
        let months =
            "FOR VALUES FROM ('018cc251-f400-0000-0000-000000000000') TO ('018d61f7-1800-0000-0000-000000000000')";
        assert_eq!(of(TimeKey::Uuid, months), ["LIVE_202401"]);
        let twitter = Epoch::from_unix_millis(1_288_834_974_657);
        let ids = "FOR VALUES FROM ('1741610183685046272') TO ('1752844207518646272')";
        assert_eq!(of(TimeKey::Snowflake(twitter), ids), ["LIVE_202401"]);
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
        }
    }
}
