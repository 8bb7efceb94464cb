//! When a job waits so that others get through: limits, what is observed, and the decision. Pure.

use std::fmt;
use std::time::Duration;

/// What a cluster may be busy with before jobs wait; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Time a standby may be behind.
    pub replication_lag: Option<Duration>,
    /// Bytes of WAL a standby may be behind.
    pub replication_lag_bytes: Option<u64>,
    /// Bytes of WAL that the cluster writes per second.
    pub wal_rate: Option<u64>,
    /// Transactions that the oldest snapshot may be behind.
    pub xmin_age: Option<u64>,
    /// Sessions that wait for locks.
    pub lock_waits: Option<u64>,
    /// Load average of one minute.
    pub load: Option<f64>,
}

/// What was seen; `None` is unknown, or not there, and holds nothing up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Time the slowest standby is behind.
    pub replication_lag: Option<Duration>,
    /// Bytes the slowest standby is behind.
    pub replication_lag_bytes: Option<u64>,
    /// Bytes of WAL per second since the last look.
    pub wal_rate: Option<u64>,
    /// Transactions that the oldest snapshot of another session, slot or prepared transaction is behind.
    pub xmin_age: Option<u64>,
    /// Sessions that wait for locks.
    pub lock_waits: Option<u64>,
    /// Load average of one minute.
    pub load: Option<f64>,
}

/// Why jobs wait: what was seen and the setting it is above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hold {
    /// A standby is behind in time.
    ReplicationLag(Duration, Duration),
    /// A standby is behind in bytes.
    ReplicationLagBytes(u64, u64),
    /// Much WAL is written.
    WalRate(u64, u64),
    /// An old snapshot keeps dead rows.
    XminAge(u64, u64),
    /// Sessions wait for locks.
    LockWaits(u64, u64),
    /// The machine is busy.
    Load(f64, f64),
}

impl Hold {
    /// The setting that is exceeded.
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::ReplicationLag(..) => "archive_ext.max_replication_lag",
            Self::ReplicationLagBytes(..) => "archive_ext.max_replication_lag_size",
            Self::WalRate(..) => "archive_ext.max_wal_rate",
            Self::XminAge(..) => "archive_ext.max_xmin_age",
            Self::LockWaits(..) => "archive_ext.max_lock_waits",
            Self::Load(..) => "archive_ext.max_load",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ReplicationLag(seen, limit) => write!(
                f,
                "a standby is {:.1} s behind (archive_ext.max_replication_lag is {} s)",
                seen.as_secs_f64(),
                limit.as_secs_f64()
            ),
            Self::ReplicationLagBytes(seen, limit) => write!(
                f,
                "a standby is {} behind (archive_ext.max_replication_lag_size is {})",
                megabytes(seen),
                megabytes(limit)
            ),
            Self::WalRate(seen, limit) => write!(
                f,
                "{}/s of WAL are written (archive_ext.max_wal_rate is {}/s)",
                megabytes(seen),
                megabytes(limit)
            ),
            Self::XminAge(seen, limit) => {
                write!(f, "the oldest snapshot is {seen} transactions old (archive_ext.max_xmin_age is {limit})")
            }
            Self::LockWaits(seen, limit) => {
                write!(f, "{seen} sessions wait for locks (archive_ext.max_lock_waits is {limit})")
            }
            Self::Load(seen, limit) => write!(f, "the load average is {seen:.2} (archive_ext.max_load is {limit})"),
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / f64::from(1 << 20))
}

/// The first limit that is passed, if any.
pub fn decide(limits: &Limits, seen: &Pressure) -> Option<Hold> {
    let lag = above(limits.replication_lag, seen.replication_lag, Hold::ReplicationLag);
    let bytes = || above(limits.replication_lag_bytes, seen.replication_lag_bytes, Hold::ReplicationLagBytes);
    let wal = || above(limits.wal_rate, seen.wal_rate, Hold::WalRate);
    let xmin = || above(limits.xmin_age, seen.xmin_age, Hold::XminAge);
    let locks = || above(limits.lock_waits, seen.lock_waits, Hold::LockWaits);
    let load = || above(limits.load, seen.load, Hold::Load);
    lag.or_else(bytes).or_else(wal).or_else(xmin).or_else(locks).or_else(load)
}

fn above<T: PartialOrd + Copy>(limit: Option<T>, seen: Option<T>, hold: impl Fn(T, T) -> Hold) -> Option<Hold> {
    limit.zip(seen).filter(|(limit, seen)| seen > limit).map(|(limit, seen)| hold(seen, limit))
}

/// A rate of bytes: a second's worth may be taken at once, and what is taken beyond is waited for afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenBucket {
    rate: f64,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket at time `now` (of any clock that does not go back).
    pub fn new(bytes_per_second: u64, now: Duration) -> Self {
        let rate = bytes_per_second.max(1) as f64;
        Self { rate, tokens: rate, at: now }
    }

    /// Takes `bytes` and tells how long to wait before the next are taken.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.rate).min(self.rate) - bytes as f64;
        Duration::from_secs_f64((-self.tokens / self.rate).clamp(0.0, 86_400.0))
    }

    /// The rate, in bytes per second.
    pub fn rate(&self) -> u64 {
        self.rate as u64
    }
}

/// The rate at which a counter grows, averaged from the last mark to now.
///
/// While a hold lasts the mark stays where it is, so that a burst of our own is averaged away by waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    value: u64,
    at: Duration,
}

/// Rates over less than this say nothing.
const SHORTEST: Duration = Duration::from_millis(500);

impl Meter {
    /// Marks where the counter is now.
    pub fn mark(value: u64, now: Duration) -> Self {
        Self { value, at: now }
    }

    /// Whether the mark is older than `age`.
    pub fn older_than(&self, age: Duration, now: Duration) -> bool {
        now.saturating_sub(self.at) > age
    }

    /// Growth per second since the mark; `None` when it is too fresh.
    pub fn rate(&self, value: u64, now: Duration) -> Option<u64> {
        let passed = now.checked_sub(self.at).filter(|passed| *passed >= SHORTEST)?;
        Some((value.saturating_sub(self.value) as f64 / passed.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_limits_nothing_holds() {
        let seen = Pressure {
            replication_lag: Some(SECOND * 1000),
            replication_lag_bytes: Some(u64::MAX),
            wal_rate: Some(u64::MAX),
            xmin_age: Some(u64::MAX),
            lock_waits: Some(u64::MAX),
            load: Some(1e9),
        };
        assert_eq!(decide(&Limits::default(), &seen), None);
    }

    #[test]
    fn what_is_unknown_does_not_hold() {
        let limits = Limits {
            replication_lag: Some(Duration::ZERO),
            replication_lag_bytes: Some(0),
            wal_rate: Some(0),
            xmin_age: Some(0),
            lock_waits: Some(0),
            load: Some(0.0),
        };
        assert_eq!(decide(&limits, &Pressure::default()), None);
    }

    #[test]
    fn each_limit_holds_when_passed_and_not_when_reached() {
        let cases = [
            (
                Limits { replication_lag: Some(SECOND * 10), ..Limits::default() },
                Pressure { replication_lag: Some(SECOND * 10), ..Pressure::default() },
                Pressure { replication_lag: Some(SECOND * 11), ..Pressure::default() },
                "a standby is 11.0 s behind (archive_ext.max_replication_lag is 10 s)",
            ),
            (
                Limits { replication_lag_bytes: Some(1 << 20), ..Limits::default() },
                Pressure { replication_lag_bytes: Some(1 << 20), ..Pressure::default() },
                Pressure { replication_lag_bytes: Some(3 << 20), ..Pressure::default() },
                "a standby is 3.0 MB behind (archive_ext.max_replication_lag_size is 1.0 MB)",
            ),
            (
                Limits { wal_rate: Some(1 << 20), ..Limits::default() },
                Pressure { wal_rate: Some(1 << 20), ..Pressure::default() },
                Pressure { wal_rate: Some(5 << 19), ..Pressure::default() },
                "2.5 MB/s of WAL are written (archive_ext.max_wal_rate is 1.0 MB/s)",
            ),
            (
                Limits { xmin_age: Some(100), ..Limits::default() },
                Pressure { xmin_age: Some(100), ..Pressure::default() },
                Pressure { xmin_age: Some(101), ..Pressure::default() },
                "the oldest snapshot is 101 transactions old (archive_ext.max_xmin_age is 100)",
            ),
            (
                Limits { lock_waits: Some(2), ..Limits::default() },
                Pressure { lock_waits: Some(2), ..Pressure::default() },
                Pressure { lock_waits: Some(3), ..Pressure::default() },
                "3 sessions wait for locks (archive_ext.max_lock_waits is 2)",
            ),
            (
                Limits { load: Some(1.5), ..Limits::default() },
                Pressure { load: Some(1.5), ..Pressure::default() },
                Pressure { load: Some(2.0), ..Pressure::default() },
                "the load average is 2.00 (archive_ext.max_load is 1.5)",
            ),
        ];
        for (limits, reached, passed, text) in cases {
            assert_eq!(decide(&limits, &reached), None);
            assert_eq!(decide(&limits, &passed).map(|hold| hold.to_string()).as_deref(), Some(text));
            assert!(decide(&limits, &passed).is_some_and(|hold| text.contains(&format!("({} is", hold.setting()))));
        }
    }

    #[test]
    fn a_bucket_gives_a_second_at_once_and_then_makes_wait() {
        let mut bucket = TokenBucket::new(1000, Duration::ZERO);
        assert_eq!(bucket.take(1000, Duration::ZERO), Duration::ZERO);
        assert_eq!(bucket.take(500, Duration::ZERO), Duration::from_millis(500));
        assert_eq!(bucket.take(0, Duration::from_millis(500)), Duration::ZERO);
    }

    #[test]
    fn a_meter_averages_from_its_mark() {
        let meter = Meter::mark(1000, SECOND);
        assert_eq!(meter.rate(9000, SECOND), None);
        assert_eq!(meter.rate(3000, SECOND * 3), Some(1000));
        assert_eq!(meter.rate(3000, SECOND * 5), Some(500));
        assert_eq!(meter.rate(0, SECOND * 5), Some(0));
        assert!(meter.older_than(SECOND, SECOND * 3) && !meter.older_than(SECOND, SECOND * 2));
    }

    proptest! {
        #[test]
        fn who_waits_as_told_keeps_the_rate(
            rate in 1u64..1_000_000,
            takes in prop::collection::vec(0u64..3_000_000, 1..50),
        ) {
            let mut bucket = TokenBucket::new(rate, Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut total = 0u64;
            for bytes in takes {
                total += bytes;
                now += bucket.take(bytes, now);
                // A second's worth in advance, and nothing beyond what the time allows.
                prop_assert!(total as f64 <= rate as f64 * (now.as_secs_f64() + 1.0) * 1.000_001 + 1.0 || now.as_secs() >= 86_400);
            }
        }
    }
}
