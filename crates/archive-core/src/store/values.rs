//! Values of single options: booleans, durations, encryption, object lock.

use std::fmt;
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

/// How strictly a retention is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Users with a special permission may shorten it.
    Governance,
    /// Nobody may shorten it.
    Compliance,
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

/// `object_lock`: how long new objects cannot be deleted.
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
        let mode = match words.next()?.to_ascii_uppercase().as_str() {
            "GOVERNANCE" => LockMode::Governance,
            "COMPLIANCE" => LockMode::Compliance,
            _ => return None,
        };
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
        let mode = match self.mode {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        };
        let unit = match self.unit {
            RetentionUnit::Days => "days",
            RetentionUnit::Months => "months",
            RetentionUnit::Years => "years",
        };
        write!(f, "{mode} {} {unit}", self.amount)
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
    use proptest::prelude::*;

    #[test]
    fn object_lock() {
        let lock = ObjectLock::parse("governance 10 Years").unwrap();
        assert_eq!(lock.to_string(), "GOVERNANCE 10 years");
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
    fn durations() {
        assert_eq!(duration("30"), Some(Duration::from_secs(30)));
        assert_eq!(duration("500 ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("2min"), Some(Duration::from_secs(120)));
        for bad in ["", "s", "0", "-1", "1.5 s", "2 h", "3601", "99999999999999999999"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn civil_days_round_trip(days in -1_000_000i64..1_000_000) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(days_of(year, month, day), days);
        }
    }
}
