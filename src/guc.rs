//! The settings. Statics are private; typed accessors read them on the main thread.

use std::ffi::CString;
use std::time::Duration;

use archive_core::lifecycle::{Limits, Selection};
use archive_core::store::AllowedEndpoints;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::guc as settings;

static DEFAULT_STORAGE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DROP_AFTER: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 3600);
static VERIFY_AFTER: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 3600);
static GARBAGE_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(14 * 24 * 3600);
static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static MAX_SWAP_TIME: GucSetting<i32> = GucSetting::<i32>::new(100);
static OBJECT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(512);
static ROW_GROUP_SIZE: GucSetting<i32> = GucSetting::<i32>::new(128);
static ROW_GROUP_ROWS: GucSetting<i32> = GucSetting::<i32>::new(1_000_000);
static NOW: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DATA_PARTITION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DATA_PARTITION_DML: GucSetting<bool> = GucSetting::<bool>::new(false);
static PROGRESS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5);
static WORKER_ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static NAPTIME: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static COMPACT_OBJECTS: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_RATE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_REPLICATION_LAG: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_REPLICATION_LAG_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_WAL_RATE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_XMIN_AGE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_LOCK_WAITS: GucSetting<i32> = GucSetting::<i32>::new(0);
static LAG_STANDBYS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static MAX_LOAD: GucSetting<f64> = GucSetting::<f64>::new(0.0);
static ALLOWED_ENDPOINTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ALLOW_SUBSCRIBED: GucSetting<bool> = GucSetting::<bool>::new(false);
static EXPIRE_GRACE: GucSetting<i32> = GucSetting::<i32>::new(7 * 86_400);
static METADATA_CACHE: GucSetting<i32> = GucSetting::<i32>::new(16);
static ENABLE_CATALOG_ANSWERS: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Registers every `archive_ext.*` setting and reserves the prefix.
pub fn register() {
    GucRegistry::define_string_guc(
        c"archive_ext.default_storage",
        c"Storage (a foreign server of archive_fdw) used when neither call nor policy names one.",
        c"",
        &DEFAULT_STORAGE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"archive_ext.now",
        c"The time by which policies are applied; empty for the clock's. For tests and rehearsals.",
        c"",
        &NOW,
        GucContext::Userset,
        GucFlags::default(),
    );
    int(
        c"archive_ext.drop_after",
        c"How long the local copy of an archived partition is kept.",
        &DROP_AFTER,
        0..=i32::MAX,
        GucFlags::UNIT_S,
    );
    int_of(
        GucContext::Suset,
        c"archive_ext.garbage_retention",
        c"How long objects that nothing needs stay at least: point-in-time recovery and forks may need them.",
        &GARBAGE_RETENTION,
        0..=i32::MAX,
        GucFlags::UNIT_S,
    );
    int_of(
        GucContext::Suset,
        c"archive_ext.expire_grace",
        c"How long after it was announced an archive that has expired is deleted.",
        &EXPIRE_GRACE,
        0..=i32::MAX,
        GucFlags::UNIT_S,
    );
    int(
        c"archive_ext.verify_after",
        c"How long after archiving a partition with a local copy is verified again.",
        &VERIFY_AFTER,
        0..=i32::MAX,
        GucFlags::UNIT_S,
    );
    int(
        c"archive_ext.lock_timeout",
        c"Longest wait for a lock on the partitioned table or the partition.",
        &LOCK_TIMEOUT,
        1..=i32::MAX,
        GucFlags::UNIT_MS,
    );
    int(
        c"archive_ext.max_swap_time",
        c"Refuse a swap whose foreign key checks would hold the parent's lock longer; 0 never refuses.",
        &MAX_SWAP_TIME,
        0..=i32::MAX,
        GucFlags::UNIT_MS,
    );
    int(
        c"archive_ext.object_size",
        c"Size at which a new Parquet object is begun.",
        &OBJECT_SIZE,
        1..=4096,
        GucFlags::UNIT_MB,
    );
    int(
        c"archive_ext.row_group_size",
        c"Uncompressed size at which a new Parquet row group is begun.",
        &ROW_GROUP_SIZE,
        1..=1024,
        GucFlags::UNIT_MB,
    );
    int(
        c"archive_ext.row_group_rows",
        c"Number of rows at which a new Parquet row group is begun.",
        &ROW_GROUP_ROWS,
        1_000..=100_000_000,
        GucFlags::default(),
    );
    int(
        c"archive_ext.progress_interval",
        c"Seconds between progress notices of a running archive call; 0 for none.",
        &PROGRESS_INTERVAL,
        0..=3_600,
        GucFlags::UNIT_S,
    );
    register_worker();
    register_throttles();
    register_guards();
    settings::define_checked_text(
        c"archive_ext.data_partition",
        c"Which partitions of managed tables are read, by label: 'HOT*,WARM_2024; orders=LIVE*'; empty for all.",
        &DATA_PARTITION,
        |text| Selection::parse(text).map(|_| ()),
    );
    settings::define_plan_flag(
        c"archive_ext.data_partition_dml",
        c"Let UPDATE, DELETE and MERGE change rows in the partitions that archive_ext.data_partition names.",
        &DATA_PARTITION_DML,
    );
    settings::reserve_prefix(c"archive_ext");
}

fn register_worker() {
    GucRegistry::define_bool_guc(
        c"archive_ext.worker_enabled",
        c"Whether the background worker looks for due work (needs shared_preload_libraries).",
        c"",
        &WORKER_ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int_of(
        GucContext::Sighup,
        c"archive_ext.naptime",
        c"Time between the launcher's rounds through the databases.",
        &NAPTIME,
        1..=86_400,
        GucFlags::UNIT_S,
    );
    int_of(
        GucContext::Sighup,
        c"archive_ext.max_workers",
        c"Most job workers at the same time, one for each database and policy owner.",
        &MAX_WORKERS,
        1..=crate::pg::worker_table::MAX_WORKERS as i32,
        GucFlags::default(),
    );
    int(
        c"archive_ext.compact_objects",
        c"Small objects of one month that run_lifecycle and the worker merge; 0 for none.",
        &COMPACT_OBJECTS,
        0..=i32::MAX,
        GucFlags::default(),
    );
}

/// Only superusers set these: they protect the cluster from its tables' owners.
fn register_throttles() {
    let limit = |name, description, setting, flags| {
        int_of(GucContext::Suset, name, description, setting, 0..=i32::MAX, flags);
    };
    limit(
        c"archive_ext.max_rate",
        c"Most bytes per second that an archive run writes to or reads from the storage; 0 for no limit.",
        &MAX_RATE,
        GucFlags::UNIT_KB,
    );
    limit(
        c"archive_ext.max_replication_lag",
        c"Jobs wait while a standby is further behind than this; 0 for no limit.",
        &MAX_REPLICATION_LAG,
        GucFlags::UNIT_S,
    );
    limit(
        c"archive_ext.max_replication_lag_size",
        c"Jobs wait while a standby lacks more WAL than this; 0 for no limit.",
        &MAX_REPLICATION_LAG_SIZE,
        GucFlags::UNIT_MB,
    );
    limit(
        c"archive_ext.max_wal_rate",
        c"Jobs wait while the cluster writes more WAL per second than this; 0 for no limit.",
        &MAX_WAL_RATE,
        GucFlags::UNIT_KB,
    );
    limit(
        c"archive_ext.max_xmin_age",
        c"Jobs wait while a snapshot is older than this many transactions; 0 for no limit.",
        &MAX_XMIN_AGE,
        GucFlags::default(),
    );
    limit(
        c"archive_ext.max_lock_waits",
        c"Jobs wait while more sessions than this wait for locks; 0 for no limit.",
        &MAX_LOCK_WAITS,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"archive_ext.lag_standbys",
        c"Standbys whose lag makes jobs wait, by application_name, separated by commas; empty for all.",
        c"",
        &LAG_STANDBYS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_float_guc(
        c"archive_ext.max_load",
        c"Jobs wait while the load average of one minute is above this; 0 for no limit.",
        c"",
        &MAX_LOAD,
        0.0,
        1e6,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// What keeps owners of storages and tables from harming others, or themselves.
fn register_guards() {
    GucRegistry::define_string_guc(
        c"archive_ext.allowed_endpoints",
        c"Hosts that S3 storages may be at, as host or host:port with * for any part; empty for all but metadata services.",
        c"",
        &ALLOWED_ENDPOINTS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"archive_ext.allow_subscribed",
        c"Freeze partitions that a subscription of logical replication writes to, which a late row then stops.",
        c"",
        &ALLOW_SUBSCRIBED,
        GucContext::Userset,
        GucFlags::default(),
    );
    int(
        c"archive_ext.metadata_cache",
        c"Footers and page indexes of archived objects that a session remembers for its next queries; 0 for none.",
        &METADATA_CACHE,
        0..=4096,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_bool_guc(
        c"archive_ext.enable_catalog_answers",
        c"Plan count, min and max of archived rows to be answered by the catalog, without reading objects.",
        c"",
        &ENABLE_CATALOG_ANSWERS,
        GucContext::Userset,
        GucFlags::EXPLAIN,
    );
}

fn int(
    name: &'static std::ffi::CStr,
    description: &'static std::ffi::CStr,
    setting: &'static GucSetting<i32>,
    range: std::ops::RangeInclusive<i32>,
    flags: GucFlags,
) {
    int_of(GucContext::Userset, name, description, setting, range, flags);
}

fn int_of(
    context: GucContext,
    name: &'static std::ffi::CStr,
    description: &'static std::ffi::CStr,
    setting: &'static GucSetting<i32>,
    range: std::ops::RangeInclusive<i32>,
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(name, description, c"", setting, *range.start(), *range.end(), context, flags);
}

/// `archive_ext.worker_enabled`.
pub fn worker_enabled() -> bool {
    WORKER_ENABLED.get()
}

/// `archive_ext.naptime`.
pub fn naptime() -> Duration {
    Duration::from_secs(NAPTIME.get().unsigned_abs().into())
}

/// `archive_ext.max_workers`.
pub fn max_workers() -> usize {
    MAX_WORKERS.get().unsigned_abs() as usize
}

/// `archive_ext.compact_objects`; `None` when nothing is merged.
pub fn compact_objects() -> Option<u64> {
    positive(&COMPACT_OBJECTS)
}

/// `archive_ext.max_rate` in bytes per second.
pub fn max_rate() -> Option<u64> {
    positive(&MAX_RATE).map(|kilobytes| kilobytes << 10)
}

/// What the throttles allow.
pub fn limits() -> Limits {
    Limits {
        replication_lag: positive(&MAX_REPLICATION_LAG).map(Duration::from_secs),
        replication_lag_bytes: positive(&MAX_REPLICATION_LAG_SIZE).map(|megabytes| megabytes << 20),
        wal_rate: positive(&MAX_WAL_RATE).map(|kilobytes| kilobytes << 10),
        xmin_age: positive(&MAX_XMIN_AGE),
        lock_waits: positive(&MAX_LOCK_WAITS),
        load: Some(MAX_LOAD.get()).filter(|load| *load > 0.0),
    }
}

/// `archive_ext.lag_standbys`: names, none for all.
pub fn lag_standbys() -> Vec<String> {
    let names = settings::text(&LAG_STANDBYS);
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn positive(setting: &GucSetting<i32>) -> Option<u64> {
    u64::try_from(setting.get()).ok().filter(|value| *value > 0)
}

/// `archive_ext.default_storage`, if set to something.
pub fn default_storage() -> Option<String> {
    DEFAULT_STORAGE.get().and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty())
}

/// `archive_ext.now`, if set to something.
pub fn now() -> Option<String> {
    NOW.get().and_then(|time| time.into_string().ok()).filter(|time| !time.is_empty())
}

/// Whether `archive_ext.data_partition` is set to something.
pub fn has_data_partition() -> bool {
    DATA_PARTITION.get().is_some_and(|text| !text.is_empty())
}

/// `archive_ext.data_partition`; empty when it is not set.
pub fn data_partition() -> String {
    settings::text(&DATA_PARTITION)
}

/// `archive_ext.data_partition_dml`.
pub fn data_partition_dml() -> bool {
    DATA_PARTITION_DML.get()
}

/// `archive_ext.allowed_endpoints`. What cannot be read allows nothing (22023).
pub fn allowed_endpoints() -> crate::error::Result<AllowedEndpoints> {
    Ok(AllowedEndpoints::parse(&settings::text(&ALLOWED_ENDPOINTS))?)
}

/// `archive_ext.allow_subscribed`.
pub fn allow_subscribed() -> bool {
    ALLOW_SUBSCRIBED.get()
}

/// `archive_ext.metadata_cache` in bytes.
pub fn metadata_cache_bytes() -> usize {
    usize::try_from(METADATA_CACHE.get()).unwrap_or(0) << 20
}

/// `archive_ext.enable_catalog_answers`.
pub fn enable_catalog_answers() -> bool {
    ENABLE_CATALOG_ANSWERS.get()
}

/// `archive_ext.drop_after` in seconds.
pub fn drop_after_seconds() -> i32 {
    DROP_AFTER.get()
}

/// `archive_ext.expire_grace` in seconds.
pub fn expire_grace_seconds() -> i32 {
    EXPIRE_GRACE.get()
}

/// `archive_ext.verify_after` in seconds.
pub fn verify_after_seconds() -> i32 {
    VERIFY_AFTER.get()
}

/// `archive_ext.garbage_retention` in seconds.
pub fn garbage_retention_seconds() -> i64 {
    GARBAGE_RETENTION.get().into()
}

/// `archive_ext.lock_timeout` in milliseconds.
pub fn lock_timeout_ms() -> i32 {
    LOCK_TIMEOUT.get()
}

/// `archive_ext.max_swap_time`; `None` when it never refuses.
pub fn max_swap_time() -> Option<Duration> {
    match MAX_SWAP_TIME.get() {
        0 => None,
        ms => Some(Duration::from_millis(ms.unsigned_abs().into())),
    }
}

/// Size in bytes at which a new object is begun.
pub fn object_bytes() -> u64 {
    u64::from(OBJECT_SIZE.get().unsigned_abs()) << 20
}

/// Uncompressed bytes at which a new row group is begun.
pub fn row_group_bytes() -> usize {
    (ROW_GROUP_SIZE.get().unsigned_abs() as usize) << 20
}

/// Rows at which a new row group is begun.
pub fn row_group_rows() -> usize {
    ROW_GROUP_ROWS.get().unsigned_abs() as usize
}

/// Time between progress notices; `None` for none.
pub fn progress_interval() -> Option<Duration> {
    match PROGRESS_INTERVAL.get() {
        0 => None,
        seconds => Some(Duration::from_secs(seconds.unsigned_abs().into())),
    }
}
