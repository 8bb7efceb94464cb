//! When jobs wait so that others get through: the limits are settings, what is seen comes from PostgreSQL's views.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use archive_core::lifecycle::{self, Hold, Limits, Meter, Pressure, TokenBucket};

use crate::catalog::pressure;
use crate::error::Result;
use crate::guc;
use crate::pg::{background, user, worker_table};

/// A first look at a rate takes this long.
const SAMPLE: Duration = Duration::from_millis(600);
/// A mark older than this tells nothing about now.
const STALE: Duration = Duration::from_secs(60);

static WAL: Mutex<Option<Meter>> = Mutex::new(None);
static BUCKET: Mutex<Option<TokenBucket>> = Mutex::new(None);

/// Time on a clock that does not go back.
fn clock() -> Duration {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed()
}

/// Why jobs should wait now; `None` to go on. Runs in a transaction.
pub fn hold() -> Result<Option<Hold>> {
    let limits = guc::limits();
    if limits == Limits::default() {
        return Ok(None);
    }
    let seen = observe(&limits)?;
    let hold = lifecycle::decide(&limits, &seen);
    if hold.is_none() && limits.wal_rate.is_some() {
        // While a hold lasts the old mark stays, so that a burst of our own is averaged away.
        mark(pressure::wal_written()?);
    }
    Ok(hold)
}

/// A hold as the current user may know it: how busy the cluster is only readers of all statistics see.
pub fn told(hold: &Hold) -> String {
    if user::reads_all_statistics() { hold.to_string() } else { format!("{} is exceeded", hold.setting()) }
}

fn observe(limits: &Limits) -> Result<Pressure> {
    let mut seen = Pressure { load: limits.load.and_then(|_| load_average()), ..Pressure::default() };
    if limits.replication_lag.is_some() || limits.replication_lag_bytes.is_some() {
        (seen.replication_lag, seen.replication_lag_bytes) = pressure::replication_lag(&guc::lag_standbys())?;
    }
    if limits.xmin_age.is_some() {
        seen.xmin_age = pressure::oldest_xmin_age()?;
    }
    if limits.lock_waits.is_some() {
        seen.lock_waits = Some(pressure::lock_waits()?);
    }
    if limits.wal_rate.is_some() {
        seen.wal_rate = wal_rate()?;
    }
    Ok(seen)
}

fn wal_rate() -> Result<Option<u64>> {
    if meter().is_none_or(|meter| meter.older_than(STALE, clock())) {
        mark(pressure::wal_written()?);
        background::pause(SAMPLE);
    }
    let written = pressure::wal_written()?;
    Ok(meter().and_then(|meter| meter.rate(written, clock())))
}

fn meter() -> Option<Meter> {
    *WAL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mark(written: u64) {
    *WAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(Meter::mark(written, clock()));
}

/// The load average of one minute; unknown where the system does not tell.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Waits until `bytes` more may pass under `archive_ext.max_rate`. Interruptible; a worker notices SIGHUP meanwhile.
pub fn pace(bytes: u64) {
    let Some(rate) = guc::max_rate() else { return };
    let until = clock() + wait_for(rate, bytes);
    while let Some(left) = until.checked_sub(clock()).filter(|left| !left.is_zero()) {
        background::pause(left.min(Duration::from_secs(1)));
        if worker_table::is_worker() {
            background::reload_settings();
        }
        if guc::max_rate() != Some(rate) {
            return;
        }
    }
}

fn wait_for(rate: u64, bytes: u64) -> Duration {
    let mut bucket = BUCKET.lock().unwrap_or_else(PoisonError::into_inner);
    let now = clock();
    let same = bucket.filter(|bucket| bucket.rate() == rate);
    bucket.insert(same.unwrap_or_else(|| TokenBucket::new(rate, now))).take(bytes, now)
}
