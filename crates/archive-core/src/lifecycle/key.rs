//! What a partition key tells the time by: times themselves, and ids that begin with one.

use super::{Granularity, Moment, range_bounds};
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Bits of a snowflake below its milliseconds: machine and sequence.
const SNOWFLAKE_SHIFT: u32 = 22;
const MILLIS_PER_SECOND: i64 = 1_000;
const MILLIS_PER_HOUR: i64 = 3_600 * MILLIS_PER_SECOND;
/// 2000-01-01, which PostgreSQL counts from, in milliseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800 * MILLIS_PER_SECOND;

/// The kinds of ids that a policy can name in `key_kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// UUID of version 7: milliseconds since 1970 in its first 48 bits.
    Uuidv7,
    /// 64 bits: milliseconds since an epoch, then 22 bits of machine and sequence.
    Snowflake,
}

impl IdKind {
    /// The name in the policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uuidv7 => "uuidv7",
            Self::Snowflake => "snowflake",
        }
    }

    /// The kind of this name, in any case.
    pub fn named(text: &str) -> Option<Self> {
        [Self::Uuidv7, Self::Snowflake].into_iter().find(|kind| text.eq_ignore_ascii_case(kind.as_str()))
    }

    /// The type of columns that hold such ids.
    pub const fn column_type(self) -> &'static str {
        match self {
            Self::Uuidv7 => "uuid",
            Self::Snowflake => "bigint",
        }
    }
}

/// Since when the ids of a snowflake column count milliseconds. Twitter's is `2010-11-04T01:42:54.657Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(i64);

impl Epoch {
    /// So many milliseconds after 1970-01-01 UTC.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// So many microseconds after 2000-01-01 UTC, as PostgreSQL counts; what is less than a millisecond is dropped.
    pub const fn from_postgres_micros(micros: i64) -> Self {
        Self(POSTGRES_EPOCH + micros.div_euclid(1_000))
    }

    /// Milliseconds after 1970-01-01 UTC.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// The lowest id made at this moment of UTC or later; `None` where 64 bits do not reach.
    pub fn id_at(self, at: Moment) -> Option<i64> {
        let millis = at.unix_seconds().checked_mul(MILLIS_PER_SECOND)?.checked_sub(self.0)?;
        millis.checked_mul(1 << SNOWFLAKE_SHIFT)
    }

    /// When an id was made, in milliseconds since 1970.
    fn millis_of(self, id: i64) -> Option<i64> {
        (id >> SNOWFLAKE_SHIFT).checked_add(self.0)
    }
}

/// RFC 3339 in UTC, to the millisecond.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = Moment::from_unix_seconds(self.0.div_euclid(MILLIS_PER_SECOND)) else {
            return write!(f, "{} ms", self.0);
        };
        let Moment { year, month, day, hour, minute, second } = at;
        let millis = self.0.rem_euclid(MILLIS_PER_SECOND);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl FromStr for Epoch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_epoch(text.trim()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("invalid epoch \"{text}\""))
                .hint("Write it in UTC, as in '2010-11-04T01:42:54.657Z'.")
        })
    }
}

/// `2010-11-04T01:42:54.657Z`, also with a blank for the T, without the milliseconds, and with `+00` for the Z.
fn parse_epoch(text: &str) -> Option<Epoch> {
    let local = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).or_else(|| text.strip_suffix("+00"))?;
    let (whole, fraction) = local.split_once('.').unwrap_or((local, ""));
    let at = iso_moment(&whole.replacen('T', " ", 1)).filter(|_| whole.len() == 19)?;
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let millis: i64 = format!("{fraction:0<3}").parse().ok().filter(|_| digits)?;
    Some(Epoch(at.unix_seconds().checked_mul(MILLIS_PER_SECOND)? + millis))
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

/// What the bounds of a partition, or the values of a column, tell the time by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeKey {
    /// `date`, `timestamp`, `timestamptz`: their text begins with it.
    Time,
    /// `uuid`: version 7.
    Uuid,
    /// `bigint`: snowflake ids.
    Snowflake(Epoch),
}

impl TimeKey {
    /// That of a column of this type, as `format_type` prints it; `epoch` is that of the policy, if it has one. `None` for
    /// what tells no time.
    pub fn of_type(type_sql: &str, epoch: Option<Epoch>) -> Option<Self> {
        match type_sql {
            "date" | "timestamp without time zone" | "timestamp with time zone" => Some(Self::Time),
            "uuid" => Some(Self::Uuid),
            "bigint" => epoch.map(Self::Snowflake),
            _ => None,
        }
    }

    /// Whether times hide in ids, which nobody reads.
    pub fn is_id(self) -> bool {
        self != Self::Time
    }

    /// A value as text, times in ISO style and UTC, as a moment of UTC; `None` for what is none, such as infinity, and for
    /// years that have no label.
    pub fn moment(self, value: &str) -> Option<Moment> {
        match self {
            Self::Time => iso_moment(value),
            Self::Uuid => Moment::from_unix_seconds(uuid_millis(value)?.div_euclid(MILLIS_PER_SECOND)),
            Self::Snowflake(epoch) => {
                Moment::from_unix_seconds(epoch.millis_of(value.parse().ok()?)?.div_euclid(MILLIS_PER_SECOND))
            }
        }
    }

    /// Lower bound and length of the RANGE partition with these bounds, on the calendar of those who made it; `None`
    /// without two finite bounds, and where the uuids of the bounds are no times.
    pub fn span(self, bounds: &str) -> Option<(Moment, Granularity)> {
        let (lower, upper) = range_bounds(bounds);
        let (lower, upper) = (lower?, upper?);
        // Any uuid has 48 bits in front. Those that cut the random ones into equal parts are no whole hours.
        if self == Self::Uuid && !(is_whole_hour(&lower) && is_whole_hour(&upper)) {
            return None;
        }
        let (lower, upper) = (self.moment(&lower)?, self.moment(&upper)?);
        let granularity = Granularity::between(lower, upper)?;
        Some((lower.on_calendar(granularity), granularity))
    }
}

/// The first 48 bits of a uuid.
fn uuid_millis(uuid: &str) -> Option<i64> {
    let (high, low) = (uuid.get(..8)?, uuid.get(9..13)?);
    let hex =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| i64::from_str_radix(digits, 16).ok())?;
    Some((hex(high)? << 16) | hex(low)?)
}

fn is_whole_hour(uuid: &str) -> bool {
    uuid_millis(uuid).is_some_and(|millis| millis % MILLIS_PER_HOUR == 0)
}

/// What follows the time in the text of a uuid without version and variant.
pub const ZERO_TAIL: &str = "0000-0000-000000000000";

/// What follows the time in a uuid's text: the bounds of one table all end alike.
pub fn uuid_tail(uuid: &str) -> &str {
    uuid.get(14..).unwrap_or(ZERO_TAIL)
}

/// The uuid of a moment of UTC; `None` before 1970.
pub fn uuid_at(at: Moment, tail: &str) -> Option<String> {
    let millis = u64::try_from(at.unix_seconds()).ok()? * MILLIS_PER_SECOND.unsigned_abs();
    let digits = format!("{millis:012x}");
    Some(format!("{}-{}-{tail}", digits.get(..8)?, digits.get(8..12)?))
}

/// A date or timestamp in ISO style; the offset, which is that of UTC, and fractions of a second are dropped.
fn iso_moment(text: &str) -> Option<Moment> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWITTER: Epoch = Epoch::from_unix_millis(1_288_834_974_657);

    fn date(year: i32, month: u8, day: u8) -> Moment {
        Moment::date(year, month, day).unwrap()
    }

    fn span(key: TimeKey, lower: &str, upper: &str) -> Option<(Moment, Granularity)> {
        key.span(&format!("FOR VALUES FROM ('{lower}') TO ('{upper}')"))
    }

    #[test]
    fn a_known_tweet_and_the_bounds_of_its_month() {
        let key = TimeKey::Snowflake(TWITTER);
        // Wikipedia's example of a snowflake was made at 16:07:40.105.
        assert_eq!(key.moment("1541815603606036480"), Moment::new(2022, 6, 28, 16, 7, 40));
        let lower = TWITTER.id_at(date(2024, 1, 1)).unwrap();
        let upper = TWITTER.id_at(date(2024, 2, 1)).unwrap();
        assert_eq!(lower, (1_704_067_200_000 - 1_288_834_974_657) << 22);
        assert_eq!(key.moment(&lower.to_string()), Some(date(2024, 1, 1)));
        assert_eq!(key.moment(&(lower - 1).to_string()), Some(Moment::new(2023, 12, 31, 23, 59, 59).unwrap()));
        assert_eq!(span(key, &lower.to_string(), &upper.to_string()), Some((date(2024, 1, 1), Granularity::Month)));
        assert_eq!(TWITTER.id_at(date(2090, 1, 1)), None);
    }

    #[test]
    fn uuids_of_month_starts() {
        let bound = |at| uuid_at(at, ZERO_TAIL).unwrap();
        assert_eq!(bound(date(2024, 1, 1)), "018cc251-f400-0000-0000-000000000000");
        assert_eq!(
            span(TimeKey::Uuid, &bound(date(2024, 1, 1)), &bound(date(2024, 2, 1))),
            Some((date(2024, 1, 1), Granularity::Month))
        );
        assert_eq!(uuid_tail("018cc251-f400-7000-8000-000000000000"), "7000-8000-000000000000");
        assert_eq!(uuid_at(date(1969, 1, 1), ZERO_TAIL), None);
    }

    #[test]
    fn random_uuids_cut_into_parts_tell_no_time() {
        let part = |digit: char| format!("{digit}0000000-0000-0000-0000-000000000000");
        for (lower, upper) in [('0', '4'), ('4', '8'), ('8', 'c')] {
            assert_eq!(span(TimeKey::Uuid, &part(lower), &part(upper)), None);
        }
    }

    #[test]
    fn epochs_are_read_as_they_are_printed() {
        assert_eq!(TWITTER.to_string(), "2010-11-04T01:42:54.657Z");
        for text in ["2010-11-04T01:42:54.657Z", "2010-11-04 01:42:54.657+00", "2010-11-04 01:42:54.657+00:00"] {
            assert_eq!(text.parse::<Epoch>().unwrap(), TWITTER, "{text}");
        }
        assert_eq!("2015-01-01T00:00:00Z".parse::<Epoch>().unwrap().unix_millis(), 1_420_070_400_000);
        for text in
            ["", "2010", "2010-11-04", "2010-11-04T01:42:54", "2010-11-04T01:42:54.6571Z", "2010-11-04T01:42:54.65Z+02"]
        {
            assert_eq!(text.parse::<Epoch>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text}");
        }
        assert_eq!(Epoch::from_postgres_micros(0).to_string(), "2000-01-01T00:00:00.000Z");
    }

    #[test]
    fn only_types_that_hold_times_tell_them() {
        assert_eq!(TimeKey::of_type("date", None), Some(TimeKey::Time));
        assert_eq!(TimeKey::of_type("bigint", Some(TWITTER)), Some(TimeKey::Snowflake(TWITTER)));
        for (type_sql, epoch) in [("bigint", None), ("integer", Some(TWITTER)), ("text", None)] {
            assert_eq!(TimeKey::of_type(type_sql, epoch), None, "{type_sql}");
        }
        for value in ["infinity", "-infinity", "0044-03-15 BC", "0044-03-15 00:00:00 BC", "x"] {
            assert_eq!(TimeKey::Time.moment(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn ids_lead_back_to_their_moment(year in 1990i32..2035, month in 1u8..=12, day in 1u8..=28, hour in 0u8..24, epoch in 0i64..2_000_000_000_000) {
            let (at, epoch) = (Moment::new(year, month, day, hour, 0, 0).unwrap(), Epoch::from_unix_millis(epoch));
            let id = epoch.id_at(at).unwrap();
            prop_assert_eq!(TimeKey::Snowflake(epoch).moment(&id.to_string()), Some(at));
            prop_assert_eq!(TimeKey::Uuid.moment(&uuid_at(at, ZERO_TAIL).unwrap()), Some(at));
            prop_assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        }

        #[test]
        fn any_text_is_read_or_not(text in "\\PC{0,40}", epoch in any::<i64>()) {
            for key in [TimeKey::Time, TimeKey::Uuid, TimeKey::Snowflake(Epoch::from_unix_millis(epoch))] {
                let _ = (key.moment(&text), key.span(&text));
            }
            let _ = (text.parse::<Epoch>(), uuid_tail(&text).len(), Epoch::from_unix_millis(epoch).to_string());
        }

        #[test]
        fn any_id_is_read(id in any::<i64>(), epoch in any::<i64>()) {
            let _ = TimeKey::Snowflake(Epoch::from_unix_millis(epoch)).moment(&id.to_string());
        }
    }
}
