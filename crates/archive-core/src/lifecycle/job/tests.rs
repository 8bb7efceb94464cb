use super::*;

/// Every combination of what can be observed.
fn observations() -> impl Iterator<Item = Observed> {
    (0u32..1 << 9).map(|bits| {
        let bit = |n: u32| bits & (1 << n) != 0;
        Observed {
            local_exists: bit(0),
            local_attached: bit(1),
            archive_attached: bit(2),
            guard_present: bit(3),
            unchanged_since_export: bit(4),
            objects_uploaded: u32::from(bit(5)),
            manifest_present: bit(6),
            verified: bit(7),
            drop_due: bit(8),
        }
    })
}

/// What the step changes in the world, and the event it reports.
fn apply(step: Step, seen: &mut Observed) -> Option<Event> {
    match step {
        Step::Freeze => {
            seen.guard_present = true;
            seen.unchanged_since_export = false;
            Some(Event::GuardCommitted)
        }
        Step::Export { .. } => {
            seen.objects_uploaded = 1;
            seen.manifest_present = true;
            seen.unchanged_since_export = true;
            seen.verified = false;
            Some(Event::ManifestWritten)
        }
        Step::Verify => {
            seen.verified = true;
            Some(Event::ReadBackEqual)
        }
        Step::Swap => {
            seen.local_attached = false;
            seen.archive_attached = true;
            Some(Event::SwapCommitted)
        }
        Step::DropLocal => {
            seen.local_exists = false;
            None
        }
        Step::Finish => Some(Event::Finished),
        Step::LiftGuard => {
            seen.guard_present = false;
            None
        }
        Step::Nothing | Step::Stop(_) => None,
    }
}

#[test]
fn names_round_trip() {
    for phase in Phase::ALL {
        assert_eq!(phase.as_str().parse::<Phase>().unwrap(), phase);
    }
    assert!("x".parse::<Phase>().is_err());
}

#[test]
fn the_straight_way() {
    let mut phase = Phase::Planned;
    for event in
        [Event::GuardCommitted, Event::ManifestWritten, Event::ReadBackEqual, Event::SwapCommitted, Event::Finished]
    {
        phase = next(phase, event).unwrap();
    }
    assert_eq!(phase, Phase::Done);
}

#[test]
fn every_other_transition_is_refused() {
    let allowed = Phase::ALL.into_iter().flat_map(|p| Event::ALL.map(|e| next(p, e).is_ok())).filter(|ok| *ok).count();
    assert_eq!(allowed, 5 + 3 + 5 + 4 + 2);
    for event in Event::ALL {
        assert_eq!(next(Phase::Done, event).unwrap_err().kind(), ErrorKind::InvalidState);
    }
    assert!(next(Phase::Swapped, Event::Cancelled).unwrap_err().hint_text().unwrap().contains("reattach"));
    // Nothing but a verified export is ever swapped.
    for phase in Phase::ALL {
        assert_eq!(next(phase, Event::SwapCommitted).is_ok(), phase == Phase::Verified);
    }
}

#[test]
fn dangerous_steps_need_their_evidence_in_every_state() {
    for phase in Phase::ALL {
        for seen in observations() {
            match resume(phase, &seen) {
                Step::Swap => assert!(
                    seen.guard_present
                        && seen.manifest_present
                        && seen.verified
                        && seen.unchanged_since_export
                        && seen.local_exists
                        && seen.local_attached
                        && !seen.archive_attached
                        && !phase.is_over()
                ),
                Step::DropLocal => assert!(seen.archive_attached && !seen.local_attached && seen.drop_due),
                Step::Export { .. } => assert!(seen.guard_present && !seen.archive_attached && !phase.is_over()),
                Step::Verify => assert!(seen.manifest_present && seen.guard_present && !phase.is_over()),
                Step::LiftGuard => assert!(!seen.archive_attached && matches!(phase, Phase::Failed | Phase::Cancelled)),
                Step::Finish => assert!(seen.archive_attached),
                Step::Freeze => assert!(!seen.guard_present && !phase.is_over()),
                Step::Nothing | Step::Stop(_) => {}
            }
        }
    }
}

#[test]
fn from_every_state_the_steps_end() {
    for phase in Phase::ALL {
        for start in observations() {
            let (mut seen, mut steps) = (start, 0);
            loop {
                let step = resume(phase, &seen);
                if matches!(step, Step::Nothing | Step::Finish | Step::Stop(_)) {
                    break;
                }
                apply(step, &mut seen);
                steps += 1;
                assert!(steps <= 6, "{phase} {start:?}");
            }
        }
    }
}

#[test]
fn a_crash_after_any_step_converges_to_the_same_end() {
    // The phase is recorded in the step's own transaction or lost with it; either way the world decides.
    for crash_at in 0..8 {
        let mut seen = Observed { local_exists: true, local_attached: true, drop_due: true, ..Observed::default() };
        let (mut phase, mut steps) = (Phase::Planned, 0);
        while phase != Phase::Done {
            let event = apply(resume(phase, &seen), &mut seen);
            steps += 1;
            assert!(steps < 10);
            match event {
                Some(Event::Finished) => phase = Phase::Done,
                Some(event) if steps != crash_at => phase = next(phase, event).unwrap_or(phase),
                _ => {}
            }
        }
        assert!(seen.archive_attached && !seen.local_exists && seen.verified);
    }
}

#[test]
fn tampering_stops_the_job_with_a_reason() {
    let ready = Observed {
        local_exists: true,
        local_attached: true,
        guard_present: true,
        manifest_present: true,
        unchanged_since_export: true,
        verified: true,
        ..Observed::default()
    };
    assert_eq!(resume(Phase::Verified, &ready), Step::Swap);
    assert_eq!(resume(Phase::Verified, &Observed { guard_present: false, ..ready }), Step::Freeze);
    let rewritten = Observed { unchanged_since_export: false, ..ready };
    assert_eq!(resume(Phase::Verified, &rewritten), Step::Export { new_version: true });
    for tampered in [
        Observed { local_attached: false, ..ready },
        Observed { local_exists: false, ..ready },
        Observed { archive_attached: true, ..ready },
    ] {
        assert!(matches!(resume(Phase::Verified, &tampered), Step::Stop(_)));
    }
    let detached_later = Observed { local_attached: false, ..ready };
    assert!(matches!(resume(Phase::Swapped, &detached_later), Step::Stop(_)));
}
