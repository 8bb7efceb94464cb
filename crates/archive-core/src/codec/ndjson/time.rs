//! Dates and times as ISO 8601 prints them, of the years that it prints alike everywhere.

use crate::codec::outlier::{EPOCH_DAYS, EPOCH_MICROS};
use crate::lifecycle::Moment;

const DAY_SECONDS: i64 = 86_400;
const SECOND_MICROS: i64 = 1_000_000;

/// `2024-01-31`, from days since 2000; `None` outside the years 1 to 9999.
pub(super) fn date(days: i32) -> Option<String> {
    let days = i64::from(days) + i64::from(EPOCH_DAYS);
    moment(days * DAY_SECONDS).map(|at| format!("{:04}-{:02}-{:02}", at.year, at.month, at.day))
}

/// The reverse of [`date`].
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let at = Moment::date(digits(year, 4)?, small(month)?, small(day)?)?;
    i32::try_from(at.unix_seconds() / DAY_SECONDS)
        .ok()?
        .checked_sub(EPOCH_DAYS)
        .filter(|_| at.unix_seconds() % DAY_SECONDS == 0)
}

/// `23:59:59` or `23:59:59.000001`, from microseconds since midnight; `None` for 24:00:00.
pub(super) fn time(micros: i64) -> Option<String> {
    let (seconds, fraction) = (micros.div_euclid(SECOND_MICROS), micros.rem_euclid(SECOND_MICROS));
    if !(0..DAY_SECONDS).contains(&seconds) {
        return None;
    }
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    Some(if fraction == 0 { clock } else { format!("{clock}.{fraction:06}") })
}

/// The reverse of [`time`].
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, i64::from(digits(fraction, 6)?)),
        None => (text, 0),
    };
    let mut parts = clock.splitn(3, ':').map(small);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = hour < 24 && minute < 60 && second < 60;
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    valid.then_some(seconds * SECOND_MICROS + fraction)
}

/// `2024-01-31T23:59:59.000001`, from microseconds since 2000; `None` outside the years 1 to 9999.
pub(super) fn timestamp(micros: i64) -> Option<String> {
    let micros = micros.checked_add(EPOCH_MICROS)?;
    let day_micros = DAY_SECONDS * SECOND_MICROS;
    let day = i32::try_from(micros.div_euclid(day_micros)).ok()?.checked_sub(EPOCH_DAYS)?;
    Some(format!("{}T{}", date(day)?, time(micros.rem_euclid(day_micros))?))
}

/// The reverse of [`timestamp`].
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let days = i64::from(parse_date(date)?);
    Some(days * DAY_SECONDS * SECOND_MICROS + parse_time(time)?)
}

fn moment(seconds: i64) -> Option<Moment> {
    let (first, last) = (Moment::MIN.unix_seconds(), Moment::MAX.unix_seconds());
    if (first..=last).contains(&seconds) { Moment::from_unix_seconds(seconds) } else { None }
}

/// Exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i32> {
    let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

fn small(text: &str) -> Option<u8> {
    digits(text, 2).and_then(|number| u8::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_iso_8601_prints_them() {
        assert_eq!(date(0).as_deref(), Some("2000-01-01"));
        assert_eq!(time(86_399_999_999).as_deref(), Some("23:59:59.999999"));
        assert_eq!(timestamp(-1).as_deref(), Some("1999-12-31T23:59:59.999999"));
        assert_eq!(timestamp(0).as_deref(), Some("2000-01-01T00:00:00"));
        assert_eq!(parse_timestamp("0001-01-01T00:00:00").and_then(timestamp).as_deref(), Some("0001-01-01T00:00:00"));
        assert_eq!(parse_timestamp("9999-12-31T23:59:59.999999").and_then(|at| timestamp(at + 1)), None);
    }

    #[test]
    fn others_have_none() {
        assert_eq!((date(i32::MIN), date(i32::MAX), time(86_400_000_000), time(-1)), (None, None, None, None));
        assert_eq!((timestamp(i64::MIN), timestamp(i64::MAX)), (None, None));
        for text in ["", "2024-1-1", "2024-13-01", "2023-02-29", "+024-01-01", "2024-01-01-", "-2024-01-01"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in ["24:00:00", "00:00", "00:00:60", "00:00:00.1", "0:00:00", "00:00:00:00"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn they_come_back(days: i32, micros: i64, clock in 0i64..86_400_000_000) {
            if let Some(text) = date(days) {
                prop_assert_eq!(parse_date(&text), Some(days));
            }
            if let Some(text) = timestamp(micros) {
                prop_assert_eq!(parse_timestamp(&text), Some(micros));
            }
            let near = micros % 200_000_000_000_000_000;
            let text = timestamp(near);
            prop_assert_eq!(text.as_deref().and_then(parse_timestamp).or(Some(near)), Some(near));
            prop_assert_eq!(time(clock).as_deref().and_then(parse_time), Some(clock));
        }
    }
}
