//! S3 Object Lock: what is asked for new objects, and what keeps one that is there.

use std::fmt;

/// How strictly a retention is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Users with a special permission may shorten it.
    Governance,
    /// Nobody may shorten it.
    Compliance,
}

impl LockMode {
    /// As S3 spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }

    pub(super) fn named(text: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance].into_iter().find(|mode| text.eq_ignore_ascii_case(mode.as_str()))
    }
}

/// The unit of a retention period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionUnit {
    /// 24 hours.
    Days,
    /// Calendar months.
    Months,
    /// Calendar years.
    Years,
}

/// `object_lock` of a storage or a policy: how long new objects cannot be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// How strictly.
    pub mode: LockMode,
    /// How many units.
    pub amount: u32,
    /// The unit.
    pub unit: RetentionUnit,
}

impl ObjectLock {
    /// Reads `GOVERNANCE 10 years`; the period is at most 100 years, as in S3.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mode = LockMode::named(words.next()?)?;
        let amount: u32 = words.next()?.parse().ok()?;
        let (unit, most) = match words.next()?.to_ascii_lowercase().as_str() {
            "day" | "days" => (RetentionUnit::Days, 36_500),
            "month" | "months" => (RetentionUnit::Months, 1_200),
            "year" | "years" => (RetentionUnit::Years, 100),
            _ => return None,
        };
        let complete = words.next().is_none() && (1..=most).contains(&amount);
        complete.then_some(Self { mode, amount, unit })
    }

    /// What both ask for of an object written at `now` (seconds since 1970): the stricter mode, and the longer period.
    #[must_use]
    pub fn and(self, other: Self, now: i64) -> Self {
        let longer = if other.retain_until(now) > self.retain_until(now) { other } else { self };
        Self { mode: self.mode.max(other.mode), ..longer }
    }

    /// Days that the period has at the least, whenever it begins.
    pub fn least_days(&self) -> i64 {
        let amount = i64::from(self.amount);
        match self.unit {
            RetentionUnit::Days => amount,
            RetentionUnit::Months => amount / 12 * 365 + amount % 12 * 28,
            RetentionUnit::Years => amount * 365,
        }
    }

    /// When an object written at `now` (seconds since 1970) may be deleted.
    pub fn retain_until(&self, now: i64) -> i64 {
        let (days, seconds) = (now.div_euclid(86_400), now.rem_euclid(86_400));
        let until = match self.unit {
            RetentionUnit::Days => days + i64::from(self.amount),
            RetentionUnit::Months => add_months(days, i64::from(self.amount)),
            RetentionUnit::Years => add_months(days, i64::from(self.amount) * 12),
        };
        until * 86_400 + seconds
    }
}

impl fmt::Display for ObjectLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RetentionUnit::Days => "day",
            RetentionUnit::Months => "month",
            RetentionUnit::Years => "year",
        };
        let plural = if self.amount == 1 { "" } else { "s" };
        write!(f, "{} {} {unit}{plural}", self.mode.as_str(), self.amount)
    }
}

/// What keeps a store from deleting an object, for whomever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The mode of its retention, and until when that lasts, in seconds since 1970.
    pub retention: Option<(LockMode, i64)>,
    /// Whether it is under a legal hold of the store's own.
    pub held: bool,
}

impl Kept {
    /// Whether something keeps it at `now`.
    pub fn lasts(&self, now: i64) -> bool {
        self.held || self.retention.is_some_and(|(_, until)| until > now)
    }
}

/// A day past the end of the month becomes the first of the next, so that a retention is never too short.
fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = civil(days);
    let total = year * 12 + (month - 1) + months;
    days_of(total.div_euclid(12), total.rem_euclid(12) + 1, 1) + day - 1
}

/// Days since 1970 to the proleptic Gregorian calendar (Hinnant).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn object_lock() {
        let lock = ObjectLock::parse("governance 10 Years").unwrap();
        assert_eq!(lock.to_string(), "GOVERNANCE 10 years");
        assert_eq!(ObjectLock::parse("Compliance 1 months").unwrap().to_string(), "COMPLIANCE 1 month");
        for bad in [
            "",
            "GOVERNANCE",
            "GOVERNANCE 10",
            "GOVERNANCE 0 days",
            "HOLD 1 day",
            "COMPLIANCE 101 years",
            "COMPLIANCE -1 days",
            "COMPLIANCE 1 day or so",
        ] {
            assert_eq!(ObjectLock::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn retention_follows_the_calendar() {
        let at = |text: &str, year, month, day| {
            ObjectLock::parse(text).unwrap().retain_until(days_of(year, month, day) * 86_400 + 7) - 7
        };
        assert_eq!(at("GOVERNANCE 10 years", 2024, 2, 29), days_of(2034, 3, 1) * 86_400);
        assert_eq!(at("GOVERNANCE 1 month", 2023, 12, 15), days_of(2024, 1, 15) * 86_400);
        assert_eq!(at("COMPLIANCE 30 days", 2024, 1, 1), days_of(2024, 1, 31) * 86_400);
    }

    #[test]
    fn of_two_the_stricter_counts() {
        let both = |one: &str, other: &str| {
            let (one, other) = (ObjectLock::parse(one).unwrap(), ObjectLock::parse(other).unwrap());
            let now = days_of(2024, 3, 1) * 86_400;
            assert_eq!(one.and(other, now).retain_until(now), other.and(one, now).retain_until(now));
            one.and(other, now).to_string()
        };
        assert_eq!(both("COMPLIANCE 7 years", "GOVERNANCE 1 day"), "COMPLIANCE 7 years");
        assert_eq!(both("COMPLIANCE 7 years", "GOVERNANCE 10 years"), "COMPLIANCE 10 years");
        assert_eq!(both("GOVERNANCE 31 days", "GOVERNANCE 1 month"), "GOVERNANCE 31 days");
        assert_eq!(both("GOVERNANCE 2 months", "GOVERNANCE 60 days"), "GOVERNANCE 2 months");
    }

    #[test]
    fn a_retention_that_is_over_keeps_nothing() {
        let kept = Kept { retention: Some((LockMode::Compliance, 10)), held: false };
        assert!(kept.lasts(9) && !kept.lasts(10));
        assert!(Kept { held: true, ..kept }.lasts(10) && !Kept::default().lasts(0));
    }

    proptest! {
        #[test]
        fn civil_days_round_trip(days in -1_000_000i64..1_000_000) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(days_of(year, month, day), days);
        }

        #[test]
        fn no_period_is_shorter_than_its_least_days(day in 0i64..60_000, amount in 1u32..100, unit in 0usize..3) {
            let unit = [RetentionUnit::Days, RetentionUnit::Months, RetentionUnit::Years][unit];
            let lock = ObjectLock { mode: LockMode::Governance, amount, unit };
            prop_assert!(lock.retain_until(day * 86_400) >= (day + lock.least_days()) * 86_400);
        }
    }
}
