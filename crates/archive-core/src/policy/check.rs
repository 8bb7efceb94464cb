//! Whether a policy makes sense: every finding at once, each with what is wrong and how to mend it.

use super::lock::{self, Target};
use super::{Age, Policy, Window, archived_before_merge};
use crate::codec::ObjectFormat;
use crate::lifecycle::{Granularity, IdKind, Kind, TimeKey};
use crate::store::GLACIER_CLASSES;
use std::fmt;

/// Something wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The setting to change.
    pub setting: &'static str,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.setting, self.problem, self.remedy)
    }
}

/// A column a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// It holds times.
    Time,
    /// It holds something else.
    Other(String),
    /// The table has no such column.
    Missing,
}

/// What the database says about the table and the names in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// How the table ages.
    pub kind: Kind,
    /// The first column of the partition key, unless that is an expression.
    pub key_column: Option<String>,
    /// Its type.
    pub key_type: String,
    /// Storages that exist.
    pub storages: Vec<String>,
    /// The storage that new objects are written to, as far as that is known.
    pub target: Option<Target>,
    /// Tablespaces that exist.
    pub tablespaces: Vec<String>,
    /// The removal column, when the policy names one.
    pub removal_column: Option<Column>,
    /// The type of the time column, when the policy names one that exists.
    pub time_column_type: Option<String>,
    /// Whether PostgreSQL knows the zone of the window.
    pub zone_known: bool,
}

/// Everything that is wrong with a policy; empty when it can be used.
pub fn validate(policy: &Policy, facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    findings.ages(policy);
    findings.granularities(policy);
    findings.numbers(policy);
    findings.names(policy, facts);
    findings.glacier_class(policy);
    findings.0.extend(lock::faults(policy, facts.target.as_ref()));
    findings.window(policy, facts);
    findings.kind(policy, facts);
    findings.time_column(policy, facts);
    findings.key(policy, facts);
    findings.0
}

/// What a policy that can be used does otherwise than it looks: partitions of this length would not be merged.
pub fn advise(policy: &Policy, length: Option<Granularity>) -> Option<Finding> {
    let early = archived_before_merge(policy, length?)?;
    let (fine, coarse) = (early.fine, early.coarse);
    Some(Finding {
        setting: "warm_granularity",
        problem: format!(
            "no {fine} is ever merged into a {coarse}: archive_after {} takes the first before the last is WARM",
            early.archive_after
        ),
        remedy: format!(
            "make archive_after at least {} later than warm_after, or warm_granularity finer",
            early.distance
        ),
    })
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, setting: &'static str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { setting, problem: problem.into(), remedy: remedy.into() });
    }

    fn ages(&mut self, policy: &Policy) {
        let ages = ordered_ages(policy);
        let others =
            [("verify_after", policy.verify_after), ("drop_after", policy.drop_after), ("idle_for", policy.idle_for)];
        for (name, age) in ages.iter().chain(&others) {
            if let Some(age) = age.filter(|age| age.is_negative()) {
                self.add(name, format!("{age} is negative"), "ages count from a partition's upper bound on");
            }
        }
        let set: Vec<(&'static str, Age)> = ages.iter().filter_map(|(name, age)| Some((*name, (*age)?))).collect();
        for pair in set.windows(2) {
            let [(younger, first), (older, second)] = pair else { continue };
            if first > second {
                let problem = format!("{second} comes before {younger} {first}");
                self.add(older, problem, format!("make it at least {first}, or {younger} at most {second}"));
            }
        }
        if policy.idle_for.is_some() && ages.iter().take(3).all(|(_, age)| age.is_none()) {
            self.add("idle_for", "it does nothing alone", "set hot_after, warm_after or archive_after too");
        }
    }

    fn granularities(&mut self, policy: &Policy) {
        let mut known = Vec::new();
        for (name, text) in [
            ("live_granularity", &policy.live_granularity),
            ("hot_granularity", &policy.hot_granularity),
            ("warm_granularity", &policy.warm_granularity),
            ("archive_granularity", &policy.archive_granularity),
        ] {
            let Some(text) = text else { continue };
            match Granularity::named(text) {
                Some(granularity) => known.push((name, granularity, text)),
                None => self.add(
                    name,
                    format!("\"{text}\" is no granularity"),
                    "use hour, day, week, month, quarter or year; unset, HOT is one partition",
                ),
            }
        }
        let coarsening = known.iter().filter(|(name, ..)| *name != "archive_granularity").collect::<Vec<_>>();
        for pair in coarsening.windows(2) {
            let [(younger, first, finer), (older, second, text)] = pair else { continue };
            if second < first {
                let problem = format!("{text} is finer than {younger} {finer}");
                self.add(
                    older,
                    problem,
                    format!("partitions only grow until they are archived: use {finer} or coarser"),
                );
            }
        }
        let archive = known.iter().find(|(name, ..)| *name == "archive_granularity");
        if let (Some((_, last, text)), Some((before, coarsest, finer))) = (archive, coarsening.last())
            && last > coarsest
        {
            let problem = format!("{text} is coarser than {before} {finer}");
            self.add("archive_granularity", problem, format!("use {finer} or finer, or make warm_granularity {text}"));
        }
    }

    fn numbers(&mut self, policy: &Policy) {
        if let Some(bytes) = policy.max_hot_bytes.filter(|bytes| *bytes < 0) {
            self.add("max_hot_bytes", format!("{bytes} is negative"), "give bytes, as in pg_size_bytes('500 GB')");
        }
        if let Some(premake) = policy.premake.filter(|premake| !(0..=1000).contains(premake)) {
            self.add("premake", format!("{premake} is not between 0 and 1000"), "3 or 4 is usual");
        }
        if let Some(attempts) = policy.max_attempts.filter(|attempts| !(1..=100).contains(attempts)) {
            self.add("max_attempts", format!("{attempts} is not between 1 and 100"), "5 is the default");
        }
    }

    fn format(&mut self, policy: &Policy, kind: Kind) {
        let Some(name) = &policy.format else { return };
        let by_rows = matches!(kind, Kind::Plain | Kind::Hash);
        let remedy = match by_rows {
            true => "use parquet, ndjson.gz or ndjson",
            false => "partitions are archived as parquet",
        };
        match ObjectFormat::parse(name) {
            None => self.add("format", format!("\"{name}\" is no archive format"), remedy),
            Some(ObjectFormat::NdjsonGz | ObjectFormat::Ndjson) if !by_rows => {
                self.add("format", format!("\"{name}\" is for rows that are archived one by one"), remedy);
            }
            Some(_) => {}
        }
    }

    fn names(&mut self, policy: &Policy, facts: &Facts) {
        if policy.copy_storage.is_some() && policy.copy_storage == policy.storage {
            self.add("copy_storage", "it is the storage itself", "name one in another region or of another provider");
        }
        for (setting, storage) in [("storage", &policy.storage), ("copy_storage", &policy.copy_storage)] {
            let Some(storage) = storage.as_ref().filter(|name| !facts.storages.contains(name)) else { continue };
            let remedy = match facts.storages.as_slice() {
                [] => "there is none yet: CREATE SERVER … FOREIGN DATA WRAPPER archive_fdw".to_owned(),
                known => format!("storages: {}", known.join(", ")),
            };
            self.add(setting, format!("storage \"{storage}\" does not exist"), remedy);
        }
        for (setting, name) in
            [("hot_tablespace", &policy.hot_tablespace), ("warm_tablespace", &policy.warm_tablespace)]
        {
            if let Some(name) = name.as_ref().filter(|name| !facts.tablespaces.contains(name)) {
                let remedy = format!("tablespaces: {}", facts.tablespaces.join(", "));
                self.add(setting, format!("tablespace \"{name}\" does not exist"), remedy);
            }
        }
        self.format(policy, facts.kind);
        if let Some(compression) = policy.compression.as_ref().filter(|name| !name.eq_ignore_ascii_case("zstd")) {
            self.add("compression", format!("\"{compression}\" is not supported"), "zstd is the only one");
        }
        let Some(column) = &policy.removal_column else { return };
        match &facts.removal_column {
            Some(Column::Missing) => {
                self.add("removal_column", format!("the table has no column \"{column}\""), "name a timestamp column");
            }
            Some(Column::Other(of)) => {
                self.add("removal_column", format!("column \"{column}\" is of type {of}"), "name a timestamp column");
            }
            Some(Column::Time) | None => {}
        }
    }

    fn glacier_class(&mut self, policy: &Policy) {
        let Some(class) = &policy.glacier_class else { return };
        let classes = GLACIER_CLASSES.join(", ");
        if !GLACIER_CLASSES.contains(&class.as_str()) {
            self.add("glacier_class", format!("\"{class}\" is no archive class"), format!("use one of {classes}"));
        } else if policy.glacier_after.is_none() {
            self.add("glacier_class", "it does nothing alone", "set glacier_after too");
        }
    }

    fn window(&mut self, policy: &Policy, facts: &Facts) {
        let Some(text) = &policy.maintenance_window else { return };
        match text.parse::<Window>() {
            Err(error) => {
                let problem = error.message().trim_start_matches("invalid maintenance window ").to_owned();
                self.add(
                    "maintenance_window",
                    problem,
                    "write '22:00-06:00', 'Sat,Sun' or 'Mon-Fri 22:00-06:00 Europe/Berlin'",
                );
            }
            Ok(window) if !facts.zone_known => {
                let zone = window.zone.unwrap_or_default();
                self.add("maintenance_window", format!("time zone \"{zone}\" is unknown"), "see pg_timezone_names");
            }
            Ok(_) => {}
        }
    }

    fn kind(&mut self, policy: &Policy, facts: &Facts) {
        let first_age = ordered_ages(policy).into_iter().take(3).find(|(_, age)| age.is_some()).map(|(name, _)| name);
        let by_time = first_age.or(policy.premake.map(|_| "premake"));
        // What is wrong with the epoch of ids is told there.
        let tells_time = TimeKey::of_type(&facts.key_type, policy.key_epoch).is_some() || policy.key_kind.is_some();
        if let (Kind::Time, false, Some(setting)) = (facts.kind, tells_time, by_time) {
            let remedy = match facts.key_type.as_str() {
                "bigint" => {
                    "if these are snowflake ids, set key_kind => 'snowflake' and key_epoch to what they count from"
                }
                _ => {
                    "ages need a key of type date, timestamp, timestamptz, UUID version 7, or bigint with snowflake ids"
                }
            };
            self.add(
                setting,
                format!("the partition key is of type {}, whose bounds tell no time", facts.key_type),
                remedy,
            );
        }
        if let (Kind::Hash, Some(setting)) = (facts.kind, by_time.or(policy.max_hot_bytes.map(|_| "max_hot_bytes"))) {
            self.add(
                setting,
                "a hash-partitioned table has no age",
                "archive its rows by set_lifecycle_where(table, where_clause, 'ARCHIVED')",
            );
        }
        if let (Kind::List, Some(setting)) = (facts.kind, by_time.or(policy.max_hot_bytes.map(|_| "max_hot_bytes"))) {
            self.add(
                setting,
                "the LIST partitions of this table are not labels, so they have no age",
                "archive them one by one by archive_partition(partition)",
            );
        }
    }
}

impl Findings {
    /// Where a row's own time is: of RANGE partitions only the key tells it.
    fn time_column(&mut self, policy: &Policy, facts: &Facts) {
        let Some(column) = &policy.time_column else { return };
        let setting = "time_column";
        let Some(found) = &facts.time_column_type else {
            return self.add(
                setting,
                format!("the table has no column \"{column}\""),
                "name a column that tells the time",
            );
        };
        match &facts.key_column {
            Some(key) if facts.kind == Kind::Time && key != column => {
                let problem = format!("the table is partitioned by \"{key}\", whose bounds tell the age of its rows");
                return self.add(setting, problem, "name that column, or clear time_column");
            }
            _ => {}
        }
        let key = TimeKey::of_type(found, policy.key_epoch);
        // What is wrong with the epoch of ids is told there.
        let is_id =
            key.is_some_and(TimeKey::is_id) || (IdKind::Snowflake.column_type() == found && policy.key_kind.is_some());
        let (tells_time, remedy) = match facts.kind.is_archived_by_rows() {
            true => (key == Some(TimeKey::Time), "name a date or timestamp"),
            false => (
                key.is_some() || is_id,
                "name a date, timestamp, UUID version 7, or bigint with key_kind and key_epoch",
            ),
        };
        if !tells_time {
            self.add(setting, format!("column \"{column}\" is of type {found}, which tells no time"), remedy);
        }
    }

    /// Ids that begin with a time: their kind must be that of the column, and snowflakes need an epoch.
    fn key(&mut self, policy: &Policy, facts: &Facts) {
        let kind = policy.key_kind.as_deref().map(|text| (text, IdKind::named(text)));
        match kind {
            Some((text, None)) => {
                return self.add(
                    "key_kind",
                    format!("\"{text}\" is no kind of ids"),
                    "use uuidv7 or snowflake; a date or timestamp needs none",
                );
            }
            Some((_, Some(kind))) => self.type_of_ids(kind, policy, facts),
            None => {}
        }
        match (kind.and_then(|(_, kind)| kind), policy.key_epoch) {
            (Some(IdKind::Snowflake), None) => self.add(
                "key_epoch",
                "nothing says since when the ids count milliseconds",
                "ask whoever makes them; Twitter's epoch is '2010-11-04 01:42:54.657+00'",
            ),
            (Some(IdKind::Uuidv7) | None, Some(epoch)) => self.add(
                "key_epoch",
                format!("only snowflake ids count from {epoch}"),
                "set key_kind => 'snowflake', or clear key_epoch",
            ),
            _ => {}
        }
    }

    fn type_of_ids(&mut self, kind: IdKind, policy: &Policy, facts: &Facts) {
        let (what, found) = match facts.kind {
            Kind::Time => ("the partition key", Some(&facts.key_type)),
            _ => ("the time column", facts.time_column_type.as_ref()),
        };
        match found {
            Some(found) if found != kind.column_type() => self.add(
                "key_kind",
                format!("{what} is of type {found}, ids of kind {} are {}", kind.as_str(), kind.column_type()),
                "name the kind of its ids, or clear key_kind",
            ),
            None if policy.time_column.is_none() => self.add(
                "key_kind",
                "the table is not partitioned by RANGE of ids, and no time_column holds any",
                "name the column in time_column, or clear key_kind",
            ),
            _ => {}
        }
    }
}

fn ordered_ages(policy: &Policy) -> [(&'static str, Option<Age>); 5] {
    [
        ("hot_after", policy.hot_after),
        ("warm_after", policy.warm_after),
        ("archive_after", policy.archive_after),
        ("glacier_after", policy.glacier_after),
        ("expire_after", policy.expire_after),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(kind: Kind) -> Facts {
        Facts {
            kind,
            key_column: Some("day".to_owned()),
            key_type: "date".to_owned(),
            storages: vec!["cold".to_owned()],
            target: None,
            tablespaces: vec!["pg_default".to_owned()],
            removal_column: None,
            time_column_type: None,
            zone_known: true,
        }
    }

    fn said(policy: &Policy, facts: &Facts) -> Vec<String> {
        validate(policy, facts).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sensible_policy_has_no_findings() {
        let policy = Policy {
            hot_after: Some(Age::new(1, 0, 0)),
            warm_after: Some(Age::new(3, 0, 0)),
            archive_after: Some(Age::new(12, 0, 0)),
            live_granularity: Some("monthly".to_owned()),
            warm_granularity: Some("year".to_owned()),
            archive_granularity: Some("month".to_owned()),
            maintenance_window: Some("22:00-06:00".to_owned()),
            storage: Some("cold".to_owned()),
            format: Some("parquet".to_owned()),
            ..Policy::default()
        };
        assert_eq!(said(&policy, &facts(Kind::Time)), Vec::<String>::new());
    }

    #[test]
    fn copies_go_to_another_storage() {
        let of = |storage: &str, copies: &str| Policy {
            storage: Some(storage.to_owned()),
            copy_storage: Some(copies.to_owned()),
            ..Policy::default()
        };
        let facts = Facts { storages: vec!["cold".to_owned(), "far".to_owned()], ..facts(Kind::Time) };
        assert_eq!(said(&of("cold", "far"), &facts), Vec::<String>::new());
        assert_eq!(
            said(&of("cold", "cold"), &facts),
            ["copy_storage: it is the storage itself; name one in another region or of another provider"]
        );
        assert_eq!(
            said(&of("cold", "none"), &facts),
            ["copy_storage: storage \"none\" does not exist; storages: cold, far"]
        );
    }

    #[test]
    fn classes_are_those_of_archives() {
        let of = |class: &str, after: Option<Age>| Policy {
            glacier_after: after,
            glacier_class: Some(class.to_owned()),
            ..Policy::default()
        };
        let year = Some(Age::new(12, 0, 0));
        for class in GLACIER_CLASSES {
            assert_eq!(said(&of(class, year), &facts(Kind::Time)), Vec::<String>::new(), "{class}");
        }
        assert_eq!(
            said(&of("STANDARD_IA", year), &facts(Kind::Time)),
            ["glacier_class: \"STANDARD_IA\" is no archive class; use one of GLACIER_IR, GLACIER, DEEP_ARCHIVE"]
        );
        assert_eq!(
            said(&of("GLACIER", None), &facts(Kind::Time)),
            ["glacier_class: it does nothing alone; set glacier_after too"]
        );
    }

    #[test]
    fn lines_are_for_rows() {
        let of = |format: &str| Policy { format: Some(format.to_owned()), ..Policy::default() };
        for format in ["parquet", "ndjson.gz", "ndjson"] {
            assert_eq!(said(&of(format), &facts(Kind::Plain)), Vec::<String>::new(), "{format}");
        }
        assert_eq!(
            said(&of("csv"), &facts(Kind::Plain)),
            ["format: \"csv\" is no archive format; use parquet, ndjson.gz or ndjson"]
        );
        assert_eq!(
            said(&of("ndjson"), &facts(Kind::Time)),
            ["format: \"ndjson\" is for rows that are archived one by one; partitions are archived as parquet"]
        );
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let policy = Policy {
            hot_after: Some(Age::new(3, 0, 0)),
            warm_after: Some(Age::new(1, 0, 0)),
            archive_after: Some(Age::new(0, -1, 0)),
            live_granularity: Some("month".to_owned()),
            hot_granularity: Some("day".to_owned()),
            warm_granularity: Some("decade".to_owned()),
            archive_granularity: Some("year".to_owned()),
            premake: Some(-1),
            storage: Some("hot".to_owned()),
            format: Some("orc".to_owned()),
            compression: Some("lzma".to_owned()),
            warm_tablespace: Some("slow".to_owned()),
            maintenance_window: Some("nights".to_owned()),
            removal_column: Some("gone_at".to_owned()),
            ..Policy::default()
        };
        let facts = Facts { removal_column: Some(Column::Missing), ..facts(Kind::Time) };
        assert_eq!(
            said(&policy, &facts),
            [
                "archive_after: -1 days is negative; ages count from a partition's upper bound on",
                "warm_after: 1 mon comes before hot_after 3 mons; make it at least 3 mons, or hot_after at most 1 mon",
                "archive_after: -1 days comes before warm_after 1 mon; make it at least 1 mon, or warm_after at most -1 days",
                "warm_granularity: \"decade\" is no granularity; use hour, day, week, month, quarter or year; unset, HOT is one partition",
                "hot_granularity: day is finer than live_granularity month; partitions only grow until they are archived: use month or coarser",
                "archive_granularity: year is coarser than hot_granularity day; use day or finer, or make warm_granularity year",
                "premake: -1 is not between 0 and 1000; 3 or 4 is usual",
                "storage: storage \"hot\" does not exist; storages: cold",
                "warm_tablespace: tablespace \"slow\" does not exist; tablespaces: pg_default",
                "format: \"orc\" is no archive format; partitions are archived as parquet",
                "compression: \"lzma\" is not supported; zstd is the only one",
                "removal_column: the table has no column \"gone_at\"; name a timestamp column",
                "maintenance_window: \"nights\": \"nights\" is neither days nor times; write '22:00-06:00', 'Sat,Sun' or 'Mon-Fri 22:00-06:00 Europe/Berlin'",
            ]
        );
    }

    #[test]
    fn kinds_without_an_age_say_what_to_do() {
        let policy = Policy { archive_after: Some(Age::new(1, 0, 0)), ..Policy::default() };
        assert!(said(&policy, &facts(Kind::Hash))[0].contains("set_lifecycle_where"));
        assert!(said(&policy, &facts(Kind::List))[0].contains("archive_partition"));
        for kind in [Kind::Time, Kind::Lifecycle, Kind::Plain] {
            assert!(said(&policy, &facts(kind)).is_empty(), "{kind}");
        }
        let integer = Facts { key_type: "integer".to_owned(), ..facts(Kind::Time) };
        assert!(said(&policy, &integer)[0].contains("type integer"));
    }

    #[test]
    fn ids_need_their_kind_and_snowflakes_an_epoch() {
        let epoch: Option<crate::lifecycle::Epoch> = "2010-11-04T01:42:54.657Z".parse().ok();
        let of = |kind: Option<&str>, key_epoch, key_type: &str| {
            let policy = Policy {
                archive_after: Some(Age::new(1, 0, 0)),
                key_kind: kind.map(str::to_owned),
                key_epoch,
                ..Policy::default()
            };
            said(&policy, &Facts { key_type: key_type.to_owned(), ..facts(Kind::Time) })
        };
        for (kind, epoch, key_type) in
            [(Some("snowflake"), epoch, "bigint"), (Some("UUIDv7"), None, "uuid"), (None, None, "uuid")]
        {
            assert_eq!(of(kind, epoch, key_type), Vec::<String>::new(), "{key_type}");
        }
        assert_eq!(
            of(None, None, "bigint"),
            [
                "archive_after: the partition key is of type bigint, whose bounds tell no time; if these are snowflake ids, set key_kind => 'snowflake' and key_epoch to what they count from"
            ]
        );
        assert_eq!(
            of(Some("snowflake"), None, "bigint"),
            [
                "key_epoch: nothing says since when the ids count milliseconds; ask whoever makes them; Twitter's epoch is '2010-11-04 01:42:54.657+00'"
            ]
        );
        assert_eq!(
            of(Some("snowflake"), epoch, "date"),
            [
                "key_kind: the partition key is of type date, ids of kind snowflake are bigint; name the kind of its ids, or clear key_kind"
            ]
        );
        assert_eq!(
            of(Some("ulid"), None, "uuid"),
            ["key_kind: \"ulid\" is no kind of ids; use uuidv7 or snowflake; a date or timestamp needs none"]
        );
        assert_eq!(
            of(None, epoch, "date"),
            [
                "key_epoch: only snowflake ids count from 2010-11-04T01:42:54.657Z; set key_kind => 'snowflake', or clear key_epoch"
            ]
        );
    }

    #[test]
    fn a_time_column_tells_the_time() {
        let of = |kind, column: &str, found: Option<&str>| {
            let policy = Policy { time_column: Some(column.to_owned()), ..Policy::default() };
            said(&policy, &Facts { time_column_type: found.map(str::to_owned), ..facts(kind) })
        };
        assert_eq!(of(Kind::Time, "day", Some("date")), Vec::<String>::new());
        assert_eq!(of(Kind::Lifecycle, "opened_at", Some("timestamp with time zone")), Vec::<String>::new());
        assert_eq!(of(Kind::Lifecycle, "id", Some("uuid")), Vec::<String>::new());
        assert_eq!(
            of(Kind::Time, "sent_at", Some("date")),
            [
                "time_column: the table is partitioned by \"day\", whose bounds tell the age of its rows; name that column, or clear time_column"
            ]
        );
        assert_eq!(
            of(Kind::Lifecycle, "gone", None),
            ["time_column: the table has no column \"gone\"; name a column that tells the time"]
        );
        for kind in [Kind::Lifecycle, Kind::Plain, Kind::Hash] {
            assert!(of(kind, "note", Some("text"))[0].contains("is of type text, which tells no time"), "{kind}");
        }
        assert!(of(Kind::Plain, "id", Some("uuid"))[0].ends_with("name a date or timestamp"));
        let ids = Policy {
            time_column: Some("id".to_owned()),
            key_kind: Some("snowflake".to_owned()),
            key_epoch: "2015-01-01T00:00:00Z".parse().ok(),
            ..Policy::default()
        };
        let column = |found: &str| Facts { time_column_type: Some(found.to_owned()), ..facts(Kind::Lifecycle) };
        assert_eq!(said(&ids, &column("bigint")), Vec::<String>::new());
        assert!(said(&ids, &column("uuid"))[0].contains("ids of kind snowflake are bigint"));
        let nowhere = Policy { time_column: None, ..ids };
        assert!(said(&nowhere, &facts(Kind::Lifecycle))[0].contains("no time_column holds any"));
    }

    #[test]
    fn a_merge_that_never_comes_is_advised_against() {
        let policy = Policy {
            warm_after: Some(Age::new(3, 0, 0)),
            archive_after: Some(Age::new(6, 0, 0)),
            warm_granularity: Some("yearly".to_owned()),
            ..Policy::default()
        };
        assert_eq!(said(&policy, &facts(Kind::Time)), Vec::<String>::new());
        let advice = advise(&policy, Some(Granularity::Month)).map(|finding| finding.to_string());
        assert_eq!(
            advice.as_deref(),
            Some(
                "warm_granularity: no month is ever merged into a year: archive_after 6 mons takes the first before the \
                 last is WARM; make archive_after at least 11 mons later than warm_after, or warm_granularity finer"
            )
        );
        let later = Policy { archive_after: Some(Age::new(14, 0, 0)), ..policy };
        assert_eq!(advise(&later, Some(Granularity::Month)), None);
        assert_eq!(advise(&later, None), None);
    }

    proptest! {
        #[test]
        fn ordered_ages_pass_and_others_do_not(ages in proptest::array::uniform5(proptest::option::of(0i32..60))) {
            let age = |at: usize| ages[at].map(|months| Age::new(months, 0, 0));
            let policy = Policy {
                hot_after: age(0), warm_after: age(1), archive_after: age(2), glacier_after: age(3), expire_after: age(4),
                ..Policy::default()
            };
            let set: Vec<i32> = ages.iter().flatten().copied().collect();
            prop_assert_eq!(validate(&policy, &facts(Kind::Time)).is_empty(), set.is_sorted());
        }
    }
}
