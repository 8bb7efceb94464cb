//! What becomes of a partition that is in the storage: it is verified a second time, then its local copy goes, then its objects move to
//! an archive class.

use super::due::{Action, Held, instant};
use super::{Age, Policy};

/// An archived partition, as far as its second and third phase go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// When it is to be verified again; `None` once it was, or where nobody wants it.
    pub verify_at: Option<i64>,
    /// How long after archiving that is.
    pub verify_after: Age,
    /// Until when its local copy stays; `None` without one.
    pub drop_at: Option<i64>,
    /// When its objects move to an archive class; `None` where they are there, or nobody wants it.
    pub glacier_at: Option<i64>,
    /// Whether these are about some objects of a row set, of which each is verified, and moves, by itself.
    pub by_objects: bool,
    /// A job has it, or had it and was given up or cancelled.
    pub held: Option<Held>,
}

/// A step to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStep {
    /// [`Action::Verify`], [`Action::DropLocal`] or [`Action::Glacier`].
    pub action: Action,
    /// Since when it is due, or from when on it will be.
    pub at: i64,
    /// Why, for people.
    pub reason: String,
}

/// What is next for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// To be done now.
    Due(NextStep),
    /// To be done later.
    Later(NextStep),
    /// Something keeps it from what is next.
    Held(Held),
    /// Nothing is left to do.
    Settled,
}

/// What is next for an archived partition at `now`.
///
/// Dropping a local copy reads the archive back itself, right before. So when that is due, no other verification is needed; and
/// one that failed keeps the local copy: its job holds the partition. What can be read no more is not verified any more, so objects
/// move to an archive class after everything else; those of a row set each after its own verification.
pub fn stored(policy: &Policy, one: &Stored, now: i64) -> Fate {
    if one.verify_at.is_none() && one.drop_at.is_none() && one.glacier_at.is_none() {
        return Fate::Settled;
    }
    if let Some(held) = &one.held {
        return Fate::Held(held.clone());
    }
    if !policy.is_enabled() {
        let freed_by = "set_archive_policy(…, enabled => true)".to_owned();
        return Fate::Held(Held { reason: "the policy is not enabled".to_owned(), freed_by });
    }
    let verify = one.verify_at.map(|at| verification(one, at));
    let drop = one.drop_at.map(dropping);
    let moving = one.glacier_at.map(|at| glacier(policy, one.by_objects, at));
    match (verify, drop) {
        (Some(verify), None) if one.by_objects && verify.at > now => {
            let first = moving.filter(|moving| moving.at < verify.at).unwrap_or(verify);
            if first.at <= now { Fate::Due(first) } else { Fate::Later(first) }
        }
        (_, Some(drop)) if drop.at <= now => Fate::Due(drop),
        (Some(verify), _) if verify.at <= now => Fate::Due(verify),
        (Some(verify), Some(drop)) => Fate::Later(if drop.at <= verify.at { drop } else { verify }),
        (Some(step), None) | (None, Some(step)) => Fate::Later(step),
        (None, None) => match moving {
            Some(step) if step.at <= now => Fate::Due(step),
            Some(step) => Fate::Later(step),
            None => Fate::Settled,
        },
    }
}

fn verification(one: &Stored, at: i64) -> NextStep {
    let reason = format!("it is verified again verify_after {} after it was archived", one.verify_after);
    NextStep { action: Action::Verify, at, reason }
}

fn glacier(policy: &Policy, by_objects: bool, at: i64) -> NextStep {
    let after = policy.glacier_after.unwrap_or_default();
    let (from, what) = match by_objects {
        true => ("the last time in each object", "those"),
        false => ("its upper bound", "its objects"),
    };
    let reason = format!("glacier_after {after} counts from {from}; {what} move to {}", policy.glacier_class());
    NextStep { action: Action::Glacier, at, reason }
}

fn dropping(at: i64) -> NextStep {
    NextStep { action: Action::DropLocal, at, reason: format!("its local copy stays until {}", instant(at)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000_000;

    fn one(verify_at: Option<i64>, drop_at: Option<i64>) -> Stored {
        Stored { verify_at, verify_after: Age::new(0, 7, 0), drop_at, glacier_at: None, by_objects: false, held: None }
    }

    fn next(one: &Stored, now: i64) -> Option<(Action, bool)> {
        match stored(&Policy::default(), one, now) {
            Fate::Due(step) => Some((step.action, true)),
            Fate::Later(step) => Some((step.action, false)),
            Fate::Held(_) | Fate::Settled => None,
        }
    }

    #[test]
    fn three_phases_in_order() {
        let fresh = one(Some(7 * DAY), Some(30 * DAY));
        assert_eq!(next(&fresh, 0), Some((Action::Verify, false)));
        assert_eq!(next(&fresh, 7 * DAY), Some((Action::Verify, true)));
        let verified = one(None, Some(30 * DAY));
        assert_eq!(next(&verified, 8 * DAY), Some((Action::DropLocal, false)));
        assert_eq!(next(&verified, 30 * DAY), Some((Action::DropLocal, true)));
        assert_eq!(next(&one(None, None), 99 * DAY), None);
    }

    #[test]
    fn what_cannot_be_read_later_is_settled_before() {
        let frozen = |one: Stored| Stored { glacier_at: Some(2 * DAY), ..one };
        assert_eq!(next(&frozen(one(Some(7 * DAY), Some(30 * DAY))), 5 * DAY), Some((Action::Verify, false)));
        assert_eq!(next(&frozen(one(None, Some(30 * DAY))), 5 * DAY), Some((Action::DropLocal, false)));
        assert_eq!(next(&frozen(one(None, None)), DAY), Some((Action::Glacier, false)));
        assert_eq!(next(&frozen(one(None, None)), 2 * DAY), Some((Action::Glacier, true)));
        let policy = Policy {
            glacier_after: Some(Age::new(12, 0, 0)),
            glacier_class: Some("GLACIER".to_owned()),
            ..Policy::default()
        };
        let Fate::Due(step) = stored(&policy, &frozen(one(None, None)), 2 * DAY) else { unreachable!() };
        assert_eq!(step.reason, "glacier_after 1 year counts from its upper bound; its objects move to GLACIER");
    }

    #[test]
    fn objects_of_a_row_set_move_while_others_wait_for_their_verification() {
        let set = |verify_at, glacier_at| Stored { glacier_at, by_objects: true, ..one(verify_at, None) };
        assert_eq!(next(&set(Some(7 * DAY), Some(2 * DAY)), 3 * DAY), Some((Action::Glacier, true)));
        assert_eq!(next(&set(Some(7 * DAY), Some(2 * DAY)), DAY), Some((Action::Glacier, false)));
        assert_eq!(next(&set(Some(7 * DAY), Some(9 * DAY)), DAY), Some((Action::Verify, false)));
        assert_eq!(next(&set(Some(7 * DAY), Some(2 * DAY)), 8 * DAY), Some((Action::Verify, true)));
        assert_eq!(next(&set(None, Some(2 * DAY)), 8 * DAY), Some((Action::Glacier, true)));
        let Fate::Due(step) = stored(&Policy::default(), &set(None, Some(DAY)), 2 * DAY) else { unreachable!() };
        assert!(step.reason.contains("counts from the last time in each object; those move to"), "{}", step.reason);
    }

    #[test]
    fn a_drop_that_is_due_verifies_by_itself() {
        assert_eq!(next(&one(Some(7 * DAY), Some(30 * DAY)), 31 * DAY), Some((Action::DropLocal, true)));
        assert_eq!(next(&one(Some(7 * DAY), Some(DAY)), 2 * DAY), Some((Action::DropLocal, true)));
        assert_eq!(next(&one(Some(7 * DAY), Some(DAY)), 0), Some((Action::DropLocal, false)));
    }

    #[test]
    fn a_job_or_the_policy_holds_it() {
        let held = Held { reason: "verify was failed".to_owned(), freed_by: "retry_job".to_owned() };
        let failed = Stored { held: Some(held.clone()), ..one(None, Some(DAY)) };
        assert_eq!(stored(&Policy::default(), &failed, 99 * DAY), Fate::Held(held));
        let disabled = Policy { enabled: Some(false), ..Policy::default() };
        assert!(matches!(stored(&disabled, &one(None, Some(DAY)), 99 * DAY), Fate::Held(_)));
        assert_eq!(stored(&disabled, &one(None, None), 99 * DAY), Fate::Settled);
    }

    #[test]
    fn reasons_name_the_setting_and_the_time() {
        let Fate::Due(step) = stored(&Policy::default(), &one(Some(DAY), None), 2 * DAY) else { unreachable!() };
        assert_eq!(step.reason, "it is verified again verify_after 7 days after it was archived");
        let Fate::Due(step) = stored(&Policy::default(), &one(None, Some(DAY)), 2 * DAY) else { unreachable!() };
        assert_eq!(step.reason, "its local copy stays until 2000-01-02 00:00 UTC");
    }

    proptest! {
        #[test]
        fn nothing_is_done_before_its_time(verify in proptest::option::of(-99i64..99), drop in proptest::option::of(-99i64..99),
                                          glacier in proptest::option::of(-99i64..99), now in -99i64..99) {
            let one = Stored { glacier_at: glacier, ..one(verify, drop) };
            match stored(&Policy::default(), &one, now) {
                Fate::Due(NextStep { action: Action::Glacier, at, .. }) => {
                    prop_assert!(verify.is_none() && drop.is_none() && Some(at) == glacier && at <= now);
                }
                Fate::Due(NextStep { action: Action::DropLocal, at, .. }) => prop_assert!(Some(at) == drop && at <= now),
                Fate::Due(NextStep { at, .. }) => prop_assert!(Some(at) == verify && at <= now && drop.is_none_or(|drop| drop > now)),
                Fate::Later(NextStep { at, .. }) => prop_assert!(at > now && [verify, drop, glacier].contains(&Some(at))),
                Fate::Settled => prop_assert!(verify.is_none() && drop.is_none() && glacier.is_none()),
                Fate::Held(_) => prop_assert!(false),
            }
        }
    }
}
