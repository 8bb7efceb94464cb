//! Maintenance windows: the times of the week at which jobs may run.
//!
//! `'22:00-06:00'`, `'Sat,Sun'`, `'Mon-Fri 22:00-06:00 Europe/Berlin'`. A window that passes midnight belongs to the day
//! on which it begins. Which time of the week it is in the window's zone is PostgreSQL's to say.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const DAY: u32 = 24 * 60;

/// Minutes in a week, over which times of the week are counted.
pub const WEEK: u32 = 7 * DAY;

/// A window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it begins, Monday first.
    days: [bool; 7],
    /// Minute of the day at which it begins.
    from: u32,
    /// Minute at which it ends, counted from the same midnight: beyond 24:00 where it passes midnight.
    to: u32,
    /// The time zone, as PostgreSQL knows it.
    pub zone: Option<String>,
}

impl Window {
    /// The same times in another zone.
    #[must_use]
    pub fn in_zone(self, zone: String) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// Whether the window is open at a minute of the week (0 is Monday 00:00).
    pub fn is_open(&self, minute: u32) -> bool {
        (0..7).filter(|day| self.days[*day as usize]).any(|day| {
            let since = (minute + WEEK - (day * DAY + self.from) % WEEK) % WEEK;
            since < self.to - self.from
        })
    }

    /// Minutes until it opens; 0 while it is open.
    pub fn opens_in(&self, minute: u32) -> u32 {
        (0..WEEK).find(|ahead| self.is_open((minute + ahead) % WEEK)).unwrap_or(0)
    }

    /// Minutes since it closed last; `None` for a window that never does.
    pub fn closed_since(&self, minute: u32) -> Option<u32> {
        (0..WEEK).find(|back| {
            let at = (minute + WEEK - back) % WEEK;
            !self.is_open(at) && self.is_open((at + WEEK - 1) % WEEK)
        })
    }
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|what| {
            Error::new(ErrorKind::InvalidParameter, format!("invalid maintenance window \"{text}\": {what}"))
                .hint("Write it as '22:00-06:00', 'Sat,Sun' or 'Mon-Fri 22:00-06:00 Europe/Berlin'.")
        })
    }
}

fn parse(text: &str) -> Result<Window, String> {
    let mut words = text.split_whitespace().peekable();
    let days = words.peek().copied().and_then(parse_days);
    if days.is_some() {
        words.next();
    }
    let times = match words.peek().copied() {
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => Some(parse_times(word)?),
        _ => None,
    };
    if times.is_some() {
        words.next();
    }
    if days.is_none() && times.is_none() {
        return Err(match words.next() {
            Some(word) => format!("\"{word}\" is neither days nor times"),
            None => "it is empty".to_owned(),
        });
    }
    let zone = words.next().map(str::to_owned);
    if let Some(more) = words.next() {
        return Err(format!("\"{more}\" is too much"));
    }
    if let Some(word) = zone.as_ref().filter(|word| !word.starts_with(|c: char| c.is_ascii_alphabetic())) {
        return Err(format!("\"{word}\" is no time zone"));
    }
    let (from, to) = times.unwrap_or((0, DAY));
    Ok(Window { days: days.unwrap_or([true; 7]), from, to, zone })
}

fn parse_days(word: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for part in word.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (parse_day(first)?, parse_day(last)?),
            None => (parse_day(part)?, parse_day(part)?),
        };
        let count = (last + 7 - first) % 7 + 1;
        (0..count).for_each(|ahead| days[(first + ahead) % 7] = true);
    }
    Some(days)
}

fn parse_day(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    (text.len() >= 3).then(|| LONG_DAYS.iter().position(|day| day.starts_with(&text)))?
}

fn parse_times(word: &str) -> Result<(u32, u32), String> {
    let (from, to) = word.split_once('-').ok_or_else(|| format!("\"{word}\" has no end"))?;
    let time = |text: &str| parse_time(text).ok_or_else(|| format!("\"{text}\" is no time of day"));
    let (from, to) = (time(from)?, time(to)?);
    match () {
        () if from == DAY => Err("it cannot begin at 24:00".to_owned()),
        () if from == to => Err("it ends as it begins".to_owned()),
        () if to < from => Ok((from, to + DAY)),
        () => Ok((from, to)),
    }
}

fn parse_time(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':').unwrap_or((text, "00"));
    let number = |digits: &str| {
        let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.days != [true; 7] {
            parts.push(print_days(&self.days));
        }
        if (self.from, self.to) != (0, DAY) || parts.is_empty() {
            parts.push(format!("{}-{}", print_time(self.from), print_time(self.to)));
        }
        parts.extend(self.zone.clone());
        f.write_str(&parts.join(" "))
    }
}

fn print_time(minute: u32) -> String {
    let minute = if minute > DAY { minute - DAY } else { minute };
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn print_days(days: &[bool; 7]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for day in (0..7).filter(|day| days[*day]) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == day => *last = day,
            _ => runs.push((day, day)),
        }
    }
    let print = |(first, last): &(usize, usize)| match last - first {
        0 => DAYS[*first].to_owned(),
        1 => format!("{},{}", DAYS[*first], DAYS[*last]),
        _ => format!("{}-{}", DAYS[*first], DAYS[*last]),
    };
    runs.iter().map(print).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    fn at(day: u32, hour: u32, minute: u32) -> u32 {
        (day - 1) * DAY + hour * 60 + minute
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_on() {
        let nights = window("Mon-Fri 22:00-06:00 Europe/Berlin");
        assert!(nights.is_open(at(1, 22, 0)) && nights.is_open(at(2, 5, 59)) && nights.is_open(at(6, 3, 0)));
        assert!(!nights.is_open(at(1, 3, 0)) && !nights.is_open(at(2, 6, 0)) && !nights.is_open(at(7, 23, 0)));
        assert_eq!(nights.zone.as_deref(), Some("Europe/Berlin"));
        assert_eq!(nights.opens_in(at(6, 6, 0)), 2 * DAY + 16 * 60);
        assert_eq!(nights.closed_since(at(2, 6, 30)), Some(30));
        assert!(window("Sun 22:00-06:00").is_open(at(1, 5, 0)));
    }

    #[test]
    fn days_alone_are_whole_days() {
        let weekend = window("Sat,Sun");
        assert!(weekend.is_open(at(6, 0, 0)) && weekend.is_open(at(7, 23, 59)) && !weekend.is_open(at(1, 0, 0)));
        assert_eq!(weekend.closed_since(at(1, 0, 0)), Some(0));
        assert_eq!(window("00:00-24:00").closed_since(7), None);
        assert!(window("Fri-Mon").is_open(at(7, 12, 0)) && !window("Fri-Mon").is_open(at(2, 12, 0)));
    }

    #[test]
    fn printed_as_written() {
        for text in
            ["22:00-06:00", "Sat,Sun", "Mon-Fri 22:00-06:00 Europe/Berlin", "Mon,Wed 08:30-24:00", "00:00-24:00"]
        {
            assert_eq!(window(text).to_string(), text);
        }
        assert_eq!(window("monday-wed 8-9").to_string(), "Mon-Wed 08:00-09:00");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("", "it is empty"),
            ("22:00", "\"22:00\" has no end"),
            ("25:00-06:00", "\"25:00\" is no time of day"),
            ("06:00-06:00", "it ends as it begins"),
            ("nights", "\"nights\" is neither days nor times"),
            ("Sat 22:00-06:00 UTC now", "\"now\" is too much"),
            ("Sat 'UTC'", "\"'UTC'\" is no time zone"),
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert!(error.message().ends_with(what), "{}", error.message());
        }
    }

    proptest! {
        #[test]
        fn opening_and_closing_agree(days in proptest::array::uniform7(any::<bool>()), from in 0..DAY, length in 1..=DAY, minute in 0..WEEK) {
            prop_assume!(days.contains(&true));
            let window = Window { days, from, to: from + length, zone: None };
            let ahead = window.opens_in(minute);
            prop_assert!(window.is_open((minute + ahead) % WEEK));
            prop_assert_eq!(ahead == 0, window.is_open(minute));
            if let Some(back) = window.closed_since(minute) {
                prop_assert!(!window.is_open((minute + WEEK - back) % WEEK));
            }
        }

        #[test]
        fn what_is_printed_is_read(days in proptest::array::uniform7(any::<bool>()), from in 0..DAY, length in 1..DAY) {
            prop_assume!(days.contains(&true));
            let window = Window { days, from, to: from + length, zone: Some("UTC".to_owned()) };
            prop_assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = text.parse::<Window>();
        }
    }
}
