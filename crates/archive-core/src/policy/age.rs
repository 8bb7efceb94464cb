//! Intervals as PostgreSQL has them: months, days and microseconds apart, because neither months nor days are all of one
//! length. Adding them to a date is PostgreSQL's business; here they are compared, printed and read.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i128 = 86_400 * MICROS_PER_SECOND as i128;

/// An age, as in `hot_after`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Age {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

impl Age {
    /// An age of these parts.
    pub const fn new(months: i32, days: i32, micros: i64) -> Self {
        Self { months, days, micros }
    }

    /// Microseconds by which PostgreSQL compares intervals: a month counts 30 days, a day 24 hours.
    fn span(self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * MICROS_PER_DAY + i128::from(self.micros)
    }

    /// Whether it lies in the past of what it is added to.
    pub fn is_negative(self) -> bool {
        self.span() < 0
    }

    /// Seconds, a month counting 30 days and a day 24 hours; the greatest number where it is longer.
    pub fn seconds(self) -> i64 {
        i64::try_from(self.span() / i128::from(MICROS_PER_SECOND)).unwrap_or(i64::MAX)
    }

    /// Microseconds in the same way.
    pub fn as_micros(self) -> i64 {
        i64::try_from(self.span()).unwrap_or(i64::MAX)
    }
}

impl PartialEq for Age {
    fn eq(&self, other: &Self) -> bool {
        self.span() == other.span()
    }
}

impl Eq for Age {}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.span().cmp(&other.span())
    }
}

/// As `IntervalStyle = postgres` prints it: `1 year 2 mons 3 days 04:05:06`.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: i32| if count == 1 { "" } else { "s" };
        let mut parts = Vec::new();
        for (count, unit) in [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")] {
            if count != 0 {
                parts.push(format!("{count} {unit}{}", plural(count)));
            }
        }
        if self.micros != 0 || parts.is_empty() {
            parts.push(clock(self.micros));
        }
        f.write_str(&parts.join(" "))
    }
}

fn clock(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}").trim_end_matches('0').to_owned() }
}

impl FromStr for Age {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("invalid interval \"{text}\""))
                .hint("Write it as in '1 year 2 mons', '90 days' or '12:00:00'.")
        })
    }
}

fn parse(text: &str) -> Option<Age> {
    let mut age = Age::default();
    let mut words = text.split_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            age.micros = age.micros.checked_add(parse_clock(word)?)?;
            continue;
        }
        let count: i64 = word.parse().ok()?;
        add(&mut age, count, words.next()?)?;
    }
    Some(age)
}

fn add(age: &mut Age, count: i64, unit: &str) -> Option<()> {
    let unit = unit.to_ascii_lowercase();
    let small = i32::try_from(count).ok();
    match unit.strip_suffix('s').unwrap_or(&unit) {
        "year" | "yr" | "y" => age.months = age.months.checked_add(small?.checked_mul(12)?)?,
        "mon" | "month" => age.months = age.months.checked_add(small?)?,
        "week" | "w" => age.days = age.days.checked_add(small?.checked_mul(7)?)?,
        "day" | "d" => age.days = age.days.checked_add(small?)?,
        "hour" | "hr" | "h" => age.micros = age.micros.checked_add(count.checked_mul(3_600 * MICROS_PER_SECOND)?)?,
        "min" | "minute" | "m" => age.micros = age.micros.checked_add(count.checked_mul(60 * MICROS_PER_SECOND)?)?,
        "sec" | "second" | "" => age.micros = age.micros.checked_add(count.checked_mul(MICROS_PER_SECOND)?)?,
        _ => return None,
    }
    Some(())
}

fn parse_clock(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':');
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?;
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let (seconds, fraction) = match parts.next() {
        Some(seconds) => match seconds.split_once('.') {
            Some((whole, fraction)) if fraction.len() <= 6 => (number(whole)?, number(&format!("{fraction:0<6}"))?),
            Some(_) => return None,
            None => (number(seconds)?, 0),
        },
        None => (0, 0),
    };
    let fits = parts.next().is_none() && minutes < 60 && seconds < 60;
    let seconds = hours.checked_mul(3_600)?.checked_add(minutes * 60 + seconds)?;
    fits.then_some(())?;
    Some(sign * seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(fraction)?)
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn printed_as_postgresql_does() {
        for (age, text) in [
            (Age::new(0, 0, 0), "00:00:00"),
            (Age::new(1, 0, 0), "1 mon"),
            (Age::new(14, 3, 0), "1 year 2 mons 3 days"),
            (Age::new(0, -1, 0), "-1 days"),
            (Age::new(0, 1, 3_723_500_000), "1 day 01:02:03.5"),
            (Age::new(0, 0, -60_000_000), "-00:01:00"),
        ] {
            assert_eq!(age.to_string(), text);
        }
    }

    #[test]
    fn read_as_people_write_it() {
        for (text, age) in [
            ("13 months", Age::new(13, 0, 0)),
            ("2 weeks 1 day", Age::new(0, 15, 0)),
            ("36 hours", Age::new(0, 0, 36 * 3_600_000_000)),
            ("1 year 01:30", Age::new(12, 0, 5_400_000_000)),
        ] {
            let read: Age = text.parse().unwrap();
            assert_eq!((read.months, read.days, read.micros), (age.months, age.days, age.micros), "{text}");
        }
        for text in ["", "soon", "1", "1 fortnight", "1 day 25", "1:60", "99999999999 years", "1:2:3:4"] {
            assert_eq!(text.parse::<Age>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text}");
        }
    }

    #[test]
    fn a_month_compares_as_thirty_days() {
        assert_eq!(Age::new(1, 0, 0), Age::new(0, 30, 0));
        assert!(Age::new(12, 0, 0) < Age::new(0, 365, 0));
        assert!(Age::new(0, -1, 0).is_negative() && !Age::new(1, -29, 0).is_negative());
    }

    proptest! {
        #[test]
        fn round_trips(months in -9999i32..9999, days in -99999i32..99999, micros in -1_000_000_000_000i64..1_000_000_000_000) {
            let read: Age = Age::new(months, days, micros).to_string().parse().unwrap();
            prop_assert_eq!((read.months, read.days, read.micros), (months, days, micros));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = text.parse::<Age>();
        }
    }
}
