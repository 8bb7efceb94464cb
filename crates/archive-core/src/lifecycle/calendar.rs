//! Walking the calendar: names of granularities, where periods begin and end, and which are still missing.

use super::{Granularity, Moment, Period};
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

impl Granularity {
    /// All of them, finest first.
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// The name that settings and functions use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// `hourly`, `daily` and so on.
    pub const fn adverb(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarterly",
            Self::Year => "yearly",
        }
    }

    /// The granularity of this name: `month` or `monthly`, in any case.
    pub fn named(text: &str) -> Option<Self> {
        let is = |granularity: &Self| {
            [granularity.as_str(), granularity.adverb()].iter().any(|name| text.eq_ignore_ascii_case(name))
        };
        Self::ALL.into_iter().find(is)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Granularity {
    type Err = Error;

    /// `month`, `months` or `monthly`, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let word = text.trim().to_lowercase();
        let is = |granularity: &Self| {
            let name = granularity.as_str();
            word == name || word == granularity.adverb() || word.strip_suffix('s') == Some(name)
        };
        Self::ALL.into_iter().find(is).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("unknown granularity \"{text}\""))
                .hint("Valid granularities: hour, day, week, month, quarter, year (or hourly, daily, …).")
        })
    }
}

const DAY: i64 = 86_400;

impl Moment {
    /// The first moment that has a label.
    pub const MIN: Self = Self { year: 1, month: 1, day: 1, hour: 0, minute: 0, second: 0 };
    /// The last moment that has a label.
    pub const MAX: Self = Self { year: 9999, month: 12, day: 31, hour: 23, minute: 59, second: 59 };
    const EPOCH: Self = Self { year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0 };

    /// The moment of UTC so many seconds after 1970.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        Self::EPOCH.plus(seconds)
    }

    /// Seconds after 1970, taking this for UTC.
    pub fn unix_seconds(self) -> i64 {
        self.seconds() - Self::EPOCH.seconds()
    }

    /// Where the period that holds this moment begins. Weeks begin on Mondays.
    #[must_use]
    pub fn begin_of(self, granularity: Granularity) -> Self {
        let midnight = Self { hour: 0, minute: 0, second: 0, ..self };
        match granularity {
            Granularity::Hour => Self { minute: 0, second: 0, ..self },
            Granularity::Day => midnight,
            // 1970-01-01 was a Thursday.
            Granularity::Week => {
                let weekday = (midnight.unix_seconds().div_euclid(DAY) + 3).rem_euclid(7);
                midnight.plus(-weekday * DAY).unwrap_or(midnight)
            }
            Granularity::Month => Self { day: 1, ..midnight },
            Granularity::Quarter => Self { day: 1, month: (self.month - 1) / 3 * 3 + 1, ..midnight },
            Granularity::Year => Self { day: 1, month: 1, ..midnight },
        }
    }

    /// Where the period that follows the one beginning here begins; `None` past the years that have labels.
    pub fn next(self, granularity: Granularity) -> Option<Self> {
        let months = |count: u8| {
            let month = self.month - 1 + count;
            Self::new(self.year + i32::from(month / 12), month % 12 + 1, self.day, self.hour, self.minute, self.second)
        };
        match granularity {
            Granularity::Hour => self.plus(3_600),
            Granularity::Day => self.plus(DAY),
            Granularity::Week => self.plus(7 * DAY),
            Granularity::Month => months(1),
            Granularity::Quarter => months(3),
            Granularity::Year => months(12),
        }
    }

    /// The begin of the week that holds this moment, where weeks begin as `anchor` does.
    fn begin_of_week_like(self, anchor: Self) -> Self {
        let off = (self.seconds() - anchor.seconds()).rem_euclid(7 * DAY);
        self.plus(-off).unwrap_or(self)
    }
}

impl Period {
    /// The period of its granularity that follows.
    pub fn following(self) -> Option<Self> {
        Some(Self::new(self.end()?, self.granularity()))
    }
}

/// `[lower, upper)`.
pub type Range = (Moment, Moment);

/// The parts of `wanted` that no range of `taken` covers, in order.
pub fn uncovered(wanted: Range, taken: &[Range]) -> Vec<Range> {
    let mut taken: Vec<_> =
        taken.iter().copied().filter(|(lower, upper)| *upper > wanted.0 && *lower < wanted.1).collect();
    taken.sort_unstable();
    let (mut at, mut free) = (wanted.0, Vec::new());
    for (lower, upper) in taken {
        if lower > at {
            free.push((at, lower));
        }
        at = at.max(upper);
    }
    if at < wanted.1 {
        free.push((at, wanted.1));
    }
    free
}

/// The period that holds `at`. Weeks begin where those that are there begin: `anchor` is the begin or end of one.
pub fn period_of(at: Moment, granularity: Granularity, anchor: Option<Moment>) -> Option<Range> {
    let begin = match (granularity, anchor) {
        (Granularity::Week, Some(anchor)) => at.begin_of_week_like(anchor),
        _ => at.begin_of(granularity),
    };
    Some((begin, begin.next(granularity)?))
}

/// What is missing of the period that holds `now` and of the `ahead` periods after it, beside the ranges that are there.
pub fn coming(existing: &[Range], now: Moment, granularity: Granularity, ahead: u32) -> Vec<Range> {
    let finite = |moment: &Moment| *moment != Moment::MAX && *moment != Moment::MIN;
    let anchor = existing.iter().map(|(_, upper)| *upper).filter(finite).max();
    let (mut missing, mut period) = (Vec::new(), period_of(now, granularity, anchor));
    for _ in 0..=ahead {
        let Some(range) = period else { break };
        missing.extend(uncovered(range, existing));
        period = range.1.next(granularity).map(|end| (range.1, end));
    }
    missing
}

/// The periods that `range` consists of, the first and last cut to it.
pub fn pieces(range: Range, granularity: Granularity) -> Vec<Range> {
    let (mut found, mut at) = (Vec::new(), range.0);
    while at < range.1 {
        let end = at.begin_of(granularity).next(granularity).unwrap_or(range.1).min(range.1);
        found.push((at, end));
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(year: i32, month: u8, day: u8) -> Moment {
        Moment::date(year, month, day).unwrap()
    }

    fn granularity() -> impl Strategy<Value = Granularity> {
        (0usize..6).prop_map(|which| Granularity::ALL[which])
    }

    fn moment() -> impl Strategy<Value = Moment> {
        (1900i32..2200, 1u8..=12, 1u8..=28, 0u8..24, 0u8..60)
            .prop_map(|(year, month, day, hour, minute)| Moment::new(year, month, day, hour, minute, 0).unwrap())
    }

    #[test]
    fn names_and_synonyms() {
        for granularity in Granularity::ALL {
            let name = granularity.to_string();
            for text in [name.clone(), format!("{name}s"), granularity.adverb().to_uppercase(), format!(" {name} ")] {
                assert_eq!(text.parse::<Granularity>().unwrap(), granularity, "{text}");
            }
        }
        for text in ["", "minute", "yearlys", "decade"] {
            assert_eq!(text.parse::<Granularity>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text}");
        }
    }

    #[test]
    fn begins_and_ends() {
        let at = Moment::new(2024, 8, 15, 13, 45, 59).unwrap();
        assert_eq!(at.begin_of(Granularity::Hour), Moment::new(2024, 8, 15, 13, 0, 0).unwrap());
        assert_eq!(at.begin_of(Granularity::Week), date(2024, 8, 12));
        assert_eq!(at.begin_of(Granularity::Quarter), date(2024, 7, 1));
        assert_eq!(date(2024, 12, 1).next(Granularity::Month), Some(date(2025, 1, 1)));
        assert_eq!(date(2024, 10, 1).next(Granularity::Quarter), Some(date(2025, 1, 1)));
        assert_eq!(date(2024, 2, 29).next(Granularity::Day), Some(date(2024, 3, 1)));
        assert_eq!(date(9999, 12, 1).next(Granularity::Month), None);
        assert_eq!("202412".len(), 6);
        assert_eq!(Period::parse("202412").unwrap().following(), Period::parse("202501"));
        assert_eq!(Period::parse("2024Q4").unwrap().end(), Some(date(2025, 1, 1)));
        assert_eq!(Moment::from_unix_seconds(1_704_067_200), Some(date(2024, 1, 1)));
    }

    #[test]
    fn what_is_missing() {
        let year = [(date(2024, 1, 1), date(2024, 2, 1)), (date(2024, 2, 1), date(2024, 3, 1))];
        let now = date(2024, 2, 10);
        assert_eq!(
            coming(&year, now, Granularity::Month, 2),
            [(date(2024, 3, 1), date(2024, 4, 1)), (date(2024, 4, 1), date(2024, 5, 1))]
        );
        assert_eq!(coming(&year, now, Granularity::Month, 0), []);
        // Nothing there: the present month.
        assert_eq!(coming(&[], now, Granularity::Month, 0), [(date(2024, 2, 1), date(2024, 3, 1))]);
        // A partition in the middle of the quarter: what lies around it.
        assert_eq!(
            coming(&[(date(2024, 2, 1), date(2024, 3, 1))], now, Granularity::Quarter, 0),
            [(date(2024, 1, 1), date(2024, 2, 1)), (date(2024, 3, 1), date(2024, 4, 1))]
        );
        // Everything is covered by what has no end.
        assert_eq!(coming(&[(date(2024, 1, 1), Moment::MAX)], now, Granularity::Month, 3), []);
        // Weeks go on as they began: on Wednesdays.
        let weeks = [(date(2024, 1, 3), date(2024, 1, 10))];
        assert_eq!(coming(&weeks, date(2024, 1, 4), Granularity::Week, 1), [(date(2024, 1, 10), date(2024, 1, 17))]);
    }

    proptest! {
        #[test]
        fn periods_hold_their_moment_and_touch(at in moment(), granularity in granularity()) {
            let (begin, end) = period_of(at, granularity, None).unwrap();
            prop_assert!(begin <= at && at < end);
            prop_assert_eq!(begin.begin_of(granularity), begin);
            prop_assert_eq!(end.begin_of(granularity), end);
            prop_assert_eq!(Granularity::between(begin, end), Some(granularity));
            prop_assert_eq!(Moment::from_unix_seconds(at.unix_seconds()), Some(at));
        }

        #[test]
        fn labels_lead_back_to_their_period(at in moment(), granularity in granularity()) {
            let period = Period::new(at.begin_of(granularity), granularity);
            if granularity != Granularity::Week {
                prop_assert_eq!(period.begin(), at.begin_of(granularity));
                prop_assert!(period < period.following().unwrap());
            }
        }

        #[test]
        fn premade_ranges_never_overlap_and_leave_no_hole(
            existing in proptest::collection::vec((moment(), 1i64..40_000_000), 0..6), now in moment(),
            granularity in granularity(), ahead in 0u32..6
        ) {
            let existing: Vec<Range> =
                existing.into_iter().map(|(lower, length)| (lower, lower.plus(length).unwrap())).collect();
            let made = coming(&existing, now, granularity, ahead);
            for (at, (lower, upper)) in made.iter().enumerate() {
                prop_assert!(lower < upper);
                prop_assert!(existing.iter().chain(&made[..at]).all(|(l, u)| u <= lower || l >= upper));
            }
            prop_assert!(uncovered((now, now.plus(1).unwrap()), &[existing, made].concat()).is_empty());
        }

        #[test]
        fn pieces_make_up_the_whole(lower in moment(), length in 1i64..400_000_000, which in 2usize..6) {
            let range = (lower, lower.plus(length).unwrap());
            let parts = pieces(range, Granularity::ALL[which]);
            prop_assert_eq!((parts[0].0, parts[parts.len() - 1].1), range);
            prop_assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0));
            prop_assert!(parts.iter().all(|(begin, end)| begin < end));
        }
    }
}
