//! Whether a policy archives partitions before it merges them: a year becomes one WARM partition when its last month is
//! WARM, and by then the first may have reached `archive_after`.

use super::{Age, Policy};
use crate::lifecycle::Granularity;

/// A policy under which partitions of one length reach the archive before all of their period is WARM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    /// The length of the partitions.
    pub fine: Granularity,
    /// The period that they would be merged into.
    pub coarse: Granularity,
    /// `archive_after`.
    pub archive_after: Age,
    /// How much later than `warm_after` it must be, so that they are merged.
    pub distance: Age,
}

/// Whether partitions of length `fine` are archived before they can be merged. Then they stay apart: none of them waits for
/// the others, since `archive_after` is a promise about each.
pub fn archived_before_merge(policy: &Policy, fine: Granularity) -> Option<Early> {
    let coarse = policy.warm_granularity.as_deref().and_then(Granularity::named).filter(|coarse| *coarse > fine)?;
    let (warm, archive_after) = (policy.warm_after?, policy.archive_after?);
    let in_months = months(coarse).zip(months(fine)).map(|(coarse, fine)| coarse - fine);
    let (distance, comes_first) = match in_months {
        Some(distance) if is_of_months(warm) && is_of_months(archive_after) => {
            (Age::new(distance, 0, 0), archive_after.months - warm.months < distance)
        }
        _ => {
            let days = longest(coarse) - shortest(fine);
            let distance = in_months.map_or(Age::new(0, days, 0), |months| Age::new(months, 0, 0));
            (distance, days_of(archive_after) - days_of(warm) < f64::from(days))
        }
    };
    comes_first.then_some(Early { fine, coarse, archive_after, distance })
}

fn is_of_months(age: Age) -> bool {
    age.days == 0 && age.micros == 0
}

const fn months(granularity: Granularity) -> Option<i32> {
    match granularity {
        Granularity::Year => Some(12),
        Granularity::Quarter => Some(3),
        Granularity::Month => Some(1),
        Granularity::Hour | Granularity::Day | Granularity::Week => None,
    }
}

/// Days of the longest period of this kind.
const fn longest(granularity: Granularity) -> i32 {
    match granularity {
        Granularity::Year => 366,
        Granularity::Quarter => 92,
        Granularity::Month => 31,
        Granularity::Week => 7,
        Granularity::Day | Granularity::Hour => 1,
    }
}

/// Days after which the first partition of this kind in a period has ended at least; months are those of January.
const fn shortest(granularity: Granularity) -> i32 {
    match granularity {
        Granularity::Year => 365,
        Granularity::Quarter => 90,
        Granularity::Month => 31,
        Granularity::Week => 7,
        Granularity::Day => 1,
        Granularity::Hour => 0,
    }
}

/// Whole months count as many days as they have at least: twelve 365, one 30.
fn days_of(age: Age) -> f64 {
    let months = (f64::from(age.months) * 365.2425 / 12.0).floor();
    months + f64::from(age.days) + age.micros as f64 / 86_400e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(warm: Age, archive: Age, coarse: &str, fine: Granularity) -> bool {
        let policy = Policy {
            warm_after: Some(warm),
            archive_after: Some(archive),
            warm_granularity: Some(coarse.to_owned()),
            ..Policy::default()
        };
        archived_before_merge(&policy, fine).is_some()
    }

    const fn of_months(months: i32) -> Age {
        Age::new(months, 0, 0)
    }

    const fn of_days(days: i32) -> Age {
        Age::new(0, days, 0)
    }

    #[test]
    fn eleven_months_lie_between_the_first_and_the_last_of_a_year() {
        assert!(early(of_months(1), of_months(11), "year", Granularity::Month));
        assert!(!early(of_months(1), of_months(12), "year", Granularity::Month));
        assert!(early(of_months(1), of_months(9), "year", Granularity::Quarter));
        assert!(!early(of_months(1), of_months(10), "year", Granularity::Quarter));
        assert!(early(of_months(3), of_months(4), "quarter", Granularity::Month));
        assert!(!early(of_months(3), of_months(5), "quarter", Granularity::Month));
    }

    #[test]
    fn ages_in_days_are_compared_by_the_longest_period() {
        assert!(!early(of_days(30), of_months(12), "year", Granularity::Month));
        assert!(!early(of_days(30), of_days(365), "year", Granularity::Month));
        assert!(early(of_days(30), of_days(360), "year", Granularity::Month));
        assert!(early(of_days(7), of_days(36), "month", Granularity::Day));
        assert!(!early(of_days(7), of_days(37), "month", Granularity::Day));
        assert!(!early(of_days(1), of_days(25), "month", Granularity::Week));
    }

    #[test]
    fn nothing_comes_too_early_without_a_merge_or_an_archive() {
        assert!(!early(of_months(1), of_months(2), "month", Granularity::Month));
        let policy =
            Policy { warm_after: Some(of_months(1)), warm_granularity: Some("year".into()), ..Policy::default() };
        assert_eq!(archived_before_merge(&policy, Granularity::Month), None);
        let policy = Policy { warm_after: Some(of_months(1)), archive_after: Some(of_months(2)), ..Policy::default() };
        assert_eq!(archived_before_merge(&policy, Granularity::Month), None);
    }
}
