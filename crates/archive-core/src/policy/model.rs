//! The settings of a policy.

use super::{Age, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::lifecycle::Epoch;
use crate::store::ObjectLock;
use serde::{Deserialize, Serialize};

/// Attempts after which a job is given up where the policy does not say.
pub const DEFAULT_ATTEMPTS: i32 = 5;
/// The storage class of `glacier_after` where the policy does not say.
pub const DEFAULT_GLACIER_CLASS: &str = "GLACIER";

/// How a table ages: the columns of `archive_ext.archive_policy`. What is absent is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Whether jobs are made; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Age at which a partition becomes HOT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_after: Option<Age>,
    /// Age at which it becomes WARM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_after: Option<Age>,
    /// Age at which it is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_after: Option<Age>,
    /// Age at which its objects go to an archive class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glacier_after: Option<Age>,
    /// The archive class that they go to; default [`DEFAULT_GLACIER_CLASS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glacier_class: Option<String>,
    /// Age at which it is removed for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<Age>,
    /// How long after archiving objects are read back a second time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_after: Option<Age>,
    /// How long local copies stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_after: Option<Age>,
    /// Bytes that LIVE and HOT partitions may take together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hot_bytes: Option<i64>,
    /// A partition that was read or written more recently waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_for: Option<Age>,
    /// Length of LIVE partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_granularity: Option<String>,
    /// Length of HOT partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_granularity: Option<String>,
    /// Length of WARM partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_granularity: Option<String>,
    /// Length of archived partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_granularity: Option<String>,
    /// Coming partitions to make ahead of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub premake: Option<i32>,
    /// Storage for new archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// A second storage, in which each object is, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_storage: Option<String>,
    /// How objects are locked that are written from now on; see [`ObjectLock`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<String>,
    /// File format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Compression of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Tablespace of HOT partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_tablespace: Option<String>,
    /// Tablespace of WARM partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_tablespace: Option<String>,
    /// When jobs may run; see [`Window`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<String>,
    /// Column that says until when a row is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal_column: Option<String>,
    /// Column with the time of a row of its own; found by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_column: Option<String>,
    /// What kind of ids the key, or the time column, holds; see [`crate::lifecycle::IdKind`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_kind: Option<String>,
    /// Since when snowflake ids count milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<Epoch>,
    /// Attempts after which a job is given up; default [`DEFAULT_ATTEMPTS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i32>,
    /// Schema of the archive relations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_schema: Option<String>,
    /// Name of the archive parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_name: Option<String>,
}

impl Policy {
    /// The names of all settings, in the order they are told.
    pub const SETTINGS: [&'static str; 31] = [
        "enabled",
        "hot_after",
        "warm_after",
        "archive_after",
        "glacier_after",
        "glacier_class",
        "expire_after",
        "verify_after",
        "drop_after",
        "max_hot_bytes",
        "idle_for",
        "live_granularity",
        "hot_granularity",
        "warm_granularity",
        "archive_granularity",
        "premake",
        "storage",
        "copy_storage",
        "object_lock",
        "format",
        "compression",
        "hot_tablespace",
        "warm_tablespace",
        "maintenance_window",
        "removal_column",
        "time_column",
        "key_kind",
        "key_epoch",
        "max_attempts",
        "archive_schema",
        "archive_name",
    ];

    /// Whether jobs are made.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Attempts after which a job is given up.
    pub fn attempts(&self) -> i32 {
        self.max_attempts.unwrap_or(DEFAULT_ATTEMPTS)
    }

    /// The storage class of `glacier_after`.
    pub fn glacier_class(&self) -> &str {
        self.glacier_class.as_deref().unwrap_or(DEFAULT_GLACIER_CLASS)
    }

    /// How new objects are locked. An unreadable one, which `validate` refuses, is an error: what was to be locked is not written without
    /// (22023).
    pub fn object_lock(&self) -> Result<Option<ObjectLock>> {
        let parse = |text: &String| {
            ObjectLock::parse(text).ok_or_else(|| {
                Error::new(ErrorKind::InvalidParameter, format!("the policy's object_lock \"{text}\" is unreadable"))
                    .hint("Set it again, as in set_archive_policy(table, object_lock => 'COMPLIANCE 7 years').")
            })
        };
        self.object_lock.as_ref().map(parse).transpose()
    }

    /// How long local copies stay, in seconds.
    pub fn drop_after_seconds(&self) -> Option<i64> {
        self.drop_after.map(Age::seconds)
    }

    /// The maintenance window; an unreadable one, which `validate` refuses, is none.
    pub fn window(&self) -> Option<Window> {
        self.maintenance_window.as_deref().and_then(|text| text.parse().ok())
    }

    /// Whether anything in it makes partitions move.
    pub fn moves_anything(&self) -> bool {
        self.hot_after.is_some()
            || self.warm_after.is_some()
            || self.archive_after.is_some()
            || self.max_hot_bytes.is_some()
            || self.premake.is_some()
    }

    /// The policy with the settings of `changes` that are set, and without those named in `clear` (22023 for a name that
    /// is no setting, or one that is both set and cleared).
    pub fn changed(&self, changes: &Self, clear: &[String]) -> Result<Self> {
        let (mut settings, changes) = (self.settings(), changes.settings());
        for name in clear {
            if !Self::SETTINGS.contains(&name.as_str()) {
                return Err(Error::new(ErrorKind::InvalidParameter, format!("\"{name}\" is no setting of a policy"))
                    .hint(format!("Settings: {}.", Self::SETTINGS.join(", "))));
            }
            if changes.contains_key(name) {
                let message = format!("setting \"{name}\" is both set and cleared");
                return Err(Error::new(ErrorKind::InvalidParameter, message).hint("Name it once."));
            }
            settings.remove(name);
        }
        settings.extend(changes);
        serde_json::from_value(settings.into())
            .map_err(|error| Error::new(ErrorKind::Internal, "could not change the policy").source(error))
    }

    /// The settings that are set, as JSON.
    pub fn settings(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(settings)) => settings,
            _ => serde_json::Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_all_settings() {
        let full = serde_json::json!({
            "enabled": true, "hot_after": "1 mon", "warm_after": "1 mon", "archive_after": "1 mon", "glacier_after": "1 mon", "glacier_class": "x",
            "expire_after": "1 mon", "verify_after": "1 mon", "drop_after": "1 mon", "max_hot_bytes": 1, "idle_for": "1 mon",
            "live_granularity": "x", "hot_granularity": "x", "warm_granularity": "x", "archive_granularity": "x",
            "premake": 1, "storage": "x", "copy_storage": "x", "object_lock": "x", "format": "x", "compression": "x", "hot_tablespace": "x", "warm_tablespace": "x",
            "maintenance_window": "x", "removal_column": "x", "time_column": "x", "key_kind": "x", "key_epoch": "2010-11-04T01:42:54.657Z",
            "max_attempts": 1, "archive_schema": "x", "archive_name": "x",
        });
        let policy: Policy = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(serde_json::Value::from(policy.settings()), full);
        assert!(Policy::SETTINGS.iter().all(|name| full.get(name).is_some()));
        assert_eq!(full.as_object().unwrap().len(), Policy::SETTINGS.len());
    }

    #[test]
    fn settings_are_kept_set_and_cleared() {
        let old = Policy { hot_after: Some(Age::new(1, 0, 0)), premake: Some(3), ..Policy::default() };
        let new = Policy { warm_after: Some(Age::new(3, 0, 0)), ..Policy::default() };
        let changed = old.changed(&new, &["premake".to_owned()]).unwrap();
        assert_eq!(changed, Policy { hot_after: old.hot_after, warm_after: new.warm_after, ..Policy::default() });
        assert!(old.changed(&new, &["hot".to_owned()]).unwrap_err().hint_text().unwrap().contains("hot_after"));
        assert!(old.changed(&new, &["warm_after".to_owned()]).is_err());
    }
}
