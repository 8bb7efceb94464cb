//! What a policy has the store lock: whether the storage can, and whether what is locked is to expire before.

use super::{Age, Finding, Policy};
use crate::store::{ObjectLock, StorageOptions};

const SETTING: &str = "object_lock";

/// The storage that new objects of a table are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: StorageOptions,
}

/// What is wrong with the policy's own lock.
pub(super) fn faults(policy: &Policy, target: Option<&Target>) -> Vec<Finding> {
    let Some(text) = &policy.object_lock else { return Vec::new() };
    let Some(lock) = ObjectLock::parse(text) else {
        let problem = format!("\"{text}\" is no mode and period");
        return vec![finding(problem, "write 'GOVERNANCE 90 days' or 'COMPLIANCE 7 years', 100 years at most")];
    };
    let unable = target.and_then(|target| Some((&target.name, target.options.cannot_lock()?)));
    let unable = unable.map(|(name, (why, remedy))| {
        finding(format!("storage \"{name}\" {why}"), format!("{remedy}, or clear object_lock"))
    });
    let early = policy.expire_after.filter(|age| is_shorter(*age, lock)).map(|age| Finding {
        setting: "expire_after",
        problem: format!("{age} after it was archived S3 still refuses to delete what object_lock {lock} locks"),
        remedy: "make it at least as long, or object_lock shorter".to_owned(),
    });
    unable.into_iter().chain(early).collect()
}

/// What comes otherwise than the policy says because the storage locks objects, too.
pub fn advise_lock(policy: &Policy, target: &Target, now: i64) -> Vec<Finding> {
    let (Ok(wanted), Some(own)) = (policy.object_lock(), target.options.object_lock) else { return Vec::new() };
    let name = &target.name;
    let both = wanted.map_or(own, |wanted| wanted.and(own, now));
    let more = wanted.filter(|wanted| *wanted != both).map(|_| {
        finding(
            format!("storage \"{name}\" asks for {own}, so that objects are locked as {both}"),
            "name a storage that asks for less, or ask for as much",
        )
    });
    // Where the policy's own lock is why, it is refused.
    let early = policy.expire_after.filter(|age| is_shorter(*age, both)).map(|age| Finding {
        setting: "expire_after",
        problem: format!(
            "{age} after it was archived S3 still refuses to delete what storage \"{name}\" locks as {both}"
        ),
        remedy: "make it at least as long; until then the job that is to delete it waits".to_owned(),
    });
    more.into_iter().chain(early).collect()
}

fn finding(problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { setting: SETTING, problem: problem.into(), remedy: remedy.into() }
}

/// Whether an age is over while what was locked at its beginning is locked still, whatever the calendar.
fn is_shorter(age: Age, lock: ObjectLock) -> bool {
    let months = i64::from(age.months);
    let days = i64::from(age.days) + i64::from(age.micros > 0);
    months / 12 * 366 + months % 12 * 31 + days < lock.least_days()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(options: &[(&str, &str)]) -> Target {
        Target { name: "cold".to_owned(), options: StorageOptions::parse(options.iter().copied()).unwrap() }
    }

    fn policy(lock: Option<&str>, expire_after: Option<&str>) -> Policy {
        Policy {
            object_lock: lock.map(str::to_owned),
            expire_after: expire_after.map(|age| age.parse().unwrap()),
            ..Policy::default()
        }
    }

    fn said(findings: Vec<Finding>) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    const S3: (&str, &str) = ("location", "s3://bucket/prefix");

    #[test]
    fn a_lock_needs_a_mode_a_period_and_a_storage_that_can() {
        let of = |lock: &str, options: &[(&str, &str)]| said(faults(&policy(Some(lock), None), Some(&target(options))));
        assert_eq!(of("compliance 7 years", &[S3]), Vec::<String>::new());
        assert_eq!(
            of("FOREVER", &[S3]),
            [
                "object_lock: \"FOREVER\" is no mode and period; write 'GOVERNANCE 90 days' or 'COMPLIANCE 7 years', 100 years at most"
            ]
        );
        assert_eq!(
            of("GOVERNANCE 1 day", &[("location", "file:///archive")]),
            [
                "object_lock: storage \"cold\" is a directory, which locks no objects; name an S3 storage, or clear object_lock"
            ]
        );
        assert_eq!(
            of("GOVERNANCE 1 day", &[S3, ("checksum", "none")]),
            [
                "object_lock: storage \"cold\" has checksum 'none', and S3 takes locked objects only with one; take that option off the server, or clear object_lock"
            ]
        );
        assert_eq!(said(faults(&policy(Some("GOVERNANCE 1 day"), None), None)), Vec::<String>::new());
    }

    #[test]
    fn what_expires_is_not_locked_for_longer() {
        let of = |lock: &str, age: &str| said(faults(&policy(Some(lock), Some(age)), None));
        for (lock, age) in [
            ("COMPLIANCE 7 years", "7 years"),
            ("COMPLIANCE 365 days", "1 year"),
            ("COMPLIANCE 1 year", "365 days"),
            ("GOVERNANCE 30 days", "1 month"),
        ] {
            assert_eq!(of(lock, age), Vec::<String>::new(), "{lock}, {age}");
        }
        assert_eq!(
            of("COMPLIANCE 7 years", "6 years"),
            [
                "expire_after: 6 years after it was archived S3 still refuses to delete what object_lock COMPLIANCE 7 years locks; make it at least as long, or object_lock shorter"
            ]
        );
        assert_eq!(of("GOVERNANCE 2 days", "1 day").len(), 1);
    }

    #[test]
    fn a_storage_that_asks_for_more_is_told() {
        let strict = target(&[S3, ("object_lock", "GOVERNANCE 10 years")]);
        let of =
            |lock: Option<&str>, age: Option<&str>, target: &Target| said(advise_lock(&policy(lock, age), target, 0));
        assert_eq!(of(Some("COMPLIANCE 12 years"), Some("12 years"), &strict), Vec::<String>::new());
        assert_eq!(of(Some("COMPLIANCE 7 years"), Some("7 years"), &target(&[S3])), Vec::<String>::new());
        assert_eq!(of(None, None, &strict), Vec::<String>::new());
        assert_eq!(
            of(Some("COMPLIANCE 7 years"), Some("7 years"), &strict),
            [
                "object_lock: storage \"cold\" asks for GOVERNANCE 10 years, so that objects are locked as COMPLIANCE 10 years; name a storage that asks for less, or ask for as much",
                "expire_after: 7 years after it was archived S3 still refuses to delete what storage \"cold\" locks as COMPLIANCE 10 years; make it at least as long; until then the job that is to delete it waits",
            ]
        );
        assert_eq!(of(None, Some("1 day"), &strict).len(), 1);
    }
}
