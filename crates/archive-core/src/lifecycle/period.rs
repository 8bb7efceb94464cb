//! Calendar periods of partitions, from their lower bounds.

use std::fmt;

/// A point of the proleptic Gregorian calendar, without a time zone: a partition's bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// 1 to 9999; others have no label.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl Moment {
    /// Midnight of a day, if it exists.
    pub fn date(year: i32, month: u8, day: u8) -> Option<Self> {
        Self::new(year, month, day, 0, 0, 0)
    }

    /// A point in time, if it exists.
    pub fn new(year: i32, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        let exists = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        exists.then_some(Self { year, month, day, hour, minute, second })
    }

    /// The moment so many seconds after 2000-01-01, where PostgreSQL counts from; `None` outside the years 1 to 9999.
    pub fn after_2000(seconds: i64) -> Option<Self> {
        const FAR: i64 = 400_000_000_000;
        Self::date(2000, 1, 1)?.plus(seconds.clamp(-FAR, FAR))
    }

    /// The moment so many seconds later; `None` outside the years that have labels.
    pub(crate) fn plus(self, seconds: i64) -> Option<Self> {
        let total = self.seconds() + seconds;
        let (days, rest) = (total.div_euclid(86_400), total.rem_euclid(86_400));
        // The reverse of `seconds`: eras of 400 years, years from March on.
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |value: i64| u8::try_from(value).ok();
        Self::new(
            i32::try_from(year).ok()?,
            small(month)?,
            small(day_of_year - (153 * shifted + 2) / 5 + 1)?,
            small(rest / 3_600)?,
            small(rest / 60 % 60)?,
            small(rest % 60)?,
        )
    }

    /// Seconds from an earlier moment to this one.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        self.seconds() - earlier.seconds()
    }

    /// Days since the Monday on or before; 0000-03-01 was a Wednesday.
    fn weekday(self) -> i64 {
        (self.seconds().div_euclid(86_400) + 2).rem_euclid(7)
    }

    fn is_monday(self) -> bool {
        self.weekday() == 0
    }

    /// The Monday on or before this day, at midnight; the day itself where that is in no year that has labels.
    fn week_begin(self) -> Self {
        let midnight = Self { hour: 0, minute: 0, second: 0, ..self };
        midnight.plus(-self.weekday() * 86_400).unwrap_or(midnight)
    }

    /// The period of this length that the moment is in.
    pub fn period(self, granularity: Granularity) -> Period {
        let begin = if granularity == Granularity::Week { self.week_begin() } else { self };
        Period::new(begin, granularity)
    }

    fn is_midnight(self) -> bool {
        (self.hour, self.minute, self.second) == (0, 0, 0)
    }

    /// Whether a period of this length can begin here.
    pub fn begins(self, granularity: Granularity) -> bool {
        match granularity {
            Granularity::Hour => (self.minute, self.second) == (0, 0),
            Granularity::Day | Granularity::Week => self.is_midnight(),
            Granularity::Month => self.is_midnight() && self.day == 1,
            Granularity::Quarter => self.is_midnight() && self.day == 1 && self.month % 3 == 1,
            Granularity::Year => self.is_midnight() && self.day == 1 && self.month == 1,
        }
    }

    /// Where a period that begins at this moment of UTC begins on the calendar of those who made the partitions. Bounds
    /// of another time zone are no midnights in UTC: `2023-12-31 23:00` is the beginning of January in Berlin. The
    /// nearest begin within the offsets of the world's time zones is taken, the moment itself where it is one.
    pub fn on_calendar(self, granularity: Granularity) -> Self {
        const QUARTER_HOUR: i64 = 900;
        const FARTHEST: i64 = 14 * 4;
        let offsets = (0..=FARTHEST).flat_map(|quarters| [quarters * QUARTER_HOUR, -quarters * QUARTER_HOUR]);
        let mut candidates = offsets.filter_map(|offset| self.plus(offset));
        candidates.find(|moment| moment.begins(granularity)).unwrap_or(self)
    }

    /// Seconds since 0000-03-01, for differences.
    pub(crate) fn seconds(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let shifted = i64::from((self.month + 9) % 12);
        let day_of_year = (153 * shifted + 2) / 5 + i64::from(self.day) - 1;
        let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
        let hours = days * 24 + i64::from(self.hour);
        (hours * 60 + i64::from(self.minute)) * 60 + i64::from(self.second)
    }
}

fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The length of a partition, as far as labels tell lengths apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granularity {
    /// Up to an hour.
    Hour,
    /// Up to a day.
    Day,
    /// Up to a week.
    Week,
    /// Up to a month.
    Month,
    /// Up to a quarter.
    Quarter,
    /// A year or more.
    Year,
}

impl Granularity {
    /// The granularity of the range `[lower, upper)`, `None` when it is empty. Odd lengths get the next greater one.
    pub fn between(lower: Moment, upper: Moment) -> Option<Self> {
        // The longest of each in seconds; a day, a week and a month have one more hour where clocks change.
        const LONGEST: [(i64, Granularity); 5] = [
            (3_600, Granularity::Hour),
            (25 * 3_600, Granularity::Day),
            (169 * 3_600, Granularity::Week),
            (745 * 3_600, Granularity::Month),
            ((92 * 24 + 1) * 3_600, Granularity::Quarter),
        ];
        let seconds = upper.seconds() - lower.seconds();
        let fitting =
            LONGEST.iter().find(|(longest, _)| seconds <= *longest).map_or(Self::Year, |(_, fitting)| *fitting);
        (seconds > 0).then_some(fitting)
    }
}

/// A period as labels print it. The order of two of one granularity is the calendar's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// `2024`
    Year(i32),
    /// `2024Q1`
    Quarter(i32, u8),
    /// `202401`
    Month(i32, u8),
    /// `202401W1`: the week of the month in which the week's lower bound lies.
    Week(i32, u8, u8),
    /// `20240101`
    Day(i32, u8, u8),
    /// `2024010105`
    Hour(i32, u8, u8, u8),
}

impl Period {
    /// The period of a partition that begins at `lower`.
    pub fn new(lower: Moment, granularity: Granularity) -> Self {
        let Moment { year, month, day, hour, .. } = lower;
        match granularity {
            Granularity::Year => Self::Year(year),
            Granularity::Quarter => Self::Quarter(year, (month - 1) / 3 + 1),
            Granularity::Month => Self::Month(year, month),
            Granularity::Week => Self::Week(year, month, (day - 1) / 7 + 1),
            Granularity::Day => Self::Day(year, month, day),
            Granularity::Hour => Self::Hour(year, month, day, hour),
        }
    }

    /// Its granularity.
    pub fn granularity(self) -> Granularity {
        match self {
            Self::Year(..) => Granularity::Year,
            Self::Quarter(..) => Granularity::Quarter,
            Self::Month(..) => Granularity::Month,
            Self::Week(..) => Granularity::Week,
            Self::Day(..) => Granularity::Day,
            Self::Hour(..) => Granularity::Hour,
        }
    }

    /// Where it begins. A week begins on the Monday that its number means; one that names no Monday of its month, on the
    /// first of its days.
    pub fn begin(self) -> Moment {
        let (year, month, day, hour) = match self {
            Self::Year(year) => (year, 1, 1, 0),
            Self::Quarter(year, quarter) => (year, quarter * 3 - 2, 1, 0),
            Self::Month(year, month) => (year, month, 1, 0),
            Self::Week(year, month, week) => (year, month, monday_of(year, month, week), 0),
            Self::Day(year, month, day) => (year, month, day, 0),
            Self::Hour(year, month, day, hour) => (year, month, day, hour),
        };
        Moment { year, month, day, hour, minute: 0, second: 0 }
    }

    /// Where the next one begins; `None` after the last year that has labels.
    pub fn end(self) -> Option<Moment> {
        self.begin().next(self.granularity())
    }

    /// Reads what `Display` prints, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let year: i32 = number(text.get(..4)?)?;
        let rest = text.get(4..)?;
        let period = match rest.len() {
            0 => Self::Year(year),
            2 if rest.starts_with(['Q', 'q']) => Self::Quarter(year, number(&rest[1..])?),
            2 => Self::Month(year, number(rest)?),
            4 if rest.get(2..3).is_some_and(|w| w.eq_ignore_ascii_case("w")) => {
                Self::Week(year, number(rest.get(..2)?)?, number(rest.get(3..)?)?)
            }
            4 => Self::Day(year, number(rest.get(..2)?)?, number(rest.get(2..)?)?),
            6 => Self::Hour(year, number(rest.get(..2)?)?, number(rest.get(2..4)?)?, number(rest.get(4..)?)?),
            _ => return None,
        };
        period.exists().then_some(period)
    }

    fn exists(self) -> bool {
        match self {
            Self::Year(year) => Moment::date(year, 1, 1).is_some(),
            Self::Quarter(year, quarter) => (1..=4).contains(&quarter) && Self::Year(year).exists(),
            Self::Month(year, month) => Moment::date(year, month, 1).is_some(),
            Self::Week(year, month, week) => {
                (1..=5).contains(&week) && Moment::date(year, month, (week - 1) * 7 + 1).is_some()
            }
            Self::Day(year, month, day) => Moment::date(year, month, day).is_some(),
            Self::Hour(year, month, day, hour) => Moment::new(year, month, day, hour, 0, 0).is_some(),
        }
    }
}

/// The Monday among the days that week `week` of a month can begin on.
fn monday_of(year: i32, month: u8, week: u8) -> u8 {
    let first = (week - 1) * 7 + 1;
    let mut days = first..=(first + 6).min(days_in_month(year, month));
    days.find(|day| Moment::date(year, month, *day).is_some_and(Moment::is_monday)).unwrap_or(first)
}

fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Year(year) => write!(f, "{year:04}"),
            Self::Quarter(year, quarter) => write!(f, "{year:04}Q{quarter}"),
            Self::Month(year, month) => write!(f, "{year:04}{month:02}"),
            Self::Week(year, month, week) => write!(f, "{year:04}{month:02}W{week}"),
            Self::Day(year, month, day) => write!(f, "{year:04}{month:02}{day:02}"),
            Self::Hour(year, month, day, hour) => write!(f, "{year:04}{month:02}{day:02}{hour:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(year: i32, month: u8, day: u8) -> Moment {
        Moment::date(year, month, day).unwrap()
    }

    #[test]
    fn bounds_of_other_time_zones_keep_their_calendar() {
        let begin = |text: (i32, u8, u8, u8, u8), granularity| {
            let (year, month, day, hour, minute) = text;
            Moment::new(year, month, day, hour, minute, 0).unwrap().on_calendar(granularity)
        };
        let january = Moment::date(2024, 1, 1).unwrap();
        for utc in [
            (2024, 1, 1, 0, 0),
            (2023, 12, 31, 23, 0),
            (2024, 1, 1, 8, 0),
            (2023, 12, 31, 10, 0),
            (2023, 12, 31, 18, 30),
        ] {
            assert_eq!(begin(utc, Granularity::Month), january, "{utc:?}");
            assert_eq!(begin(utc, Granularity::Year), january, "{utc:?}");
        }
        assert_eq!(begin((2024, 2, 28, 23, 0), Granularity::Day), Moment::date(2024, 2, 29).unwrap());
        assert_eq!(begin((2024, 2, 29, 5, 0), Granularity::Day), Moment::date(2024, 2, 29).unwrap());
        // No calendar has such a month.
        assert_eq!(begin((2024, 1, 15, 3, 0), Granularity::Month), Moment::new(2024, 1, 15, 3, 0, 0).unwrap());
        assert_eq!(begin((2024, 1, 15, 3, 0), Granularity::Hour).hour, 3);
    }

    #[test]
    fn moments_add_up() {
        let mut moment = Moment::date(1999, 12, 30).unwrap();
        for _ in 0..1000 {
            let next = moment.plus(86_400 + 3_661).unwrap();
            assert_eq!(next.seconds() - moment.seconds(), 86_400 + 3_661);
            moment = next;
        }
        assert_eq!(Moment::date(9999, 12, 31).unwrap().plus(86_400), None);
    }

    #[test]
    fn granularity_of_ranges() {
        let between = |a, b| Granularity::between(a, b);
        let begin = date(2024, 1, 1);
        assert_eq!(between(begin, begin), None);
        assert_eq!(between(begin, Moment::new(2024, 1, 1, 1, 0, 0).unwrap()), Some(Granularity::Hour));
        assert_eq!(between(begin, date(2024, 1, 2)), Some(Granularity::Day));
        assert_eq!(between(begin, date(2024, 1, 8)), Some(Granularity::Week));
        assert_eq!(between(date(2023, 2, 1), date(2023, 3, 1)), Some(Granularity::Month));
        assert_eq!(between(begin, date(2024, 2, 1)), Some(Granularity::Month));
        assert_eq!(between(date(2024, 7, 1), date(2024, 10, 1)), Some(Granularity::Quarter));
        assert_eq!(between(begin, date(2025, 1, 1)), Some(Granularity::Year));
        assert_eq!(between(begin, date(2034, 1, 1)), Some(Granularity::Year));
    }

    #[test]
    fn weeks_count_from_the_lower_bound() {
        assert_eq!(Period::new(date(2024, 1, 1), Granularity::Week).to_string(), "202401W1");
        assert_eq!(Period::new(date(2024, 1, 29), Granularity::Week).to_string(), "202401W5");
    }

    #[test]
    fn what_is_no_period() {
        for text in [
            "",
            "24",
            "2024Q0",
            "2024Q5",
            "202413",
            "202400",
            "20230229",
            "2024010124",
            "202402W6",
            "0000",
            "202302W5",
            "2024-01",
            "+024",
            "20240",
            "202401W",
            "２０２４",
        ] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }

    #[test]
    fn weeks_begin_on_mondays() {
        assert!(date(2024, 1, 1).is_monday() && !date(2024, 1, 2).is_monday() && date(2000, 2, 28).is_monday());
        assert_eq!(date(2024, 1, 4).period(Granularity::Week).to_string(), "202401W1");
        assert_eq!(date(2024, 3, 1).period(Granularity::Week).to_string(), "202402W4");
        assert_eq!(Period::Week(2024, 2, 4).begin(), date(2024, 2, 26));
        assert_eq!(Period::Week(2024, 1, 5).begin(), date(2024, 1, 29));
        assert_eq!(Period::Quarter(2024, 4).begin(), date(2024, 10, 1));
    }

    proptest! {
        #[test]
        fn a_moment_is_not_before_the_begin_of_its_period(
            year in 2i32..=9999, month in 1u8..=12, day in 1u8..=28, hour in 0u8..24, which in 0usize..6
        ) {
            let granularity = [Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month,
                Granularity::Quarter, Granularity::Year][which];
            let moment = Moment::new(year, month, day, hour, 0, 0).unwrap();
            let period = moment.period(granularity);
            prop_assert!(period.begin() <= moment);
            prop_assert!(period.end().is_none_or(|end| moment < end && end.begins(granularity)));
            prop_assert_eq!(period.begin().period(granularity), period);
            prop_assert!(period.begin().begins(granularity));
        }

        #[test]
        fn periods_round_trip(
            year in 1i32..=9999, month in 1u8..=12, day in 1u8..=28, hour in 0u8..24, which in 0usize..6
        ) {
            let granularity = [Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month,
                Granularity::Quarter, Granularity::Year][which];
            let period = Period::new(Moment::new(year, month, day, hour, 0, 0).unwrap(), granularity);
            prop_assert_eq!(Period::parse(&period.to_string()), Some(period));
            prop_assert_eq!(period.granularity(), granularity);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}") {
            if let Some(period) = Period::parse(&text) {
                prop_assert_eq!(period.to_string(), text.to_uppercase());
            }
        }
    }
}
