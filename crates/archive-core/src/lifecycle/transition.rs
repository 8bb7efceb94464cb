//! Which status may follow which.
//!
//! Data ages LIVE → HOT → WARM → ARCHIVED, and may skip stages on its way. Back it goes as far as HOT, where it may be
//! written: LIVE is where data is born, and nothing returns to it.

use super::Status;
use crate::error::{Error, ErrorKind, Result};

/// The statuses that may follow `from`, youngest first.
pub const fn targets(from: Status) -> &'static [Status] {
    match from {
        Status::Live => &[Status::Hot, Status::Warm, Status::Archived],
        Status::Hot => &[Status::Warm, Status::Archived],
        Status::Warm => &[Status::Hot, Status::Archived],
        Status::Archived => &[Status::Hot, Status::Warm],
    }
}

/// Whether `from` may become `to`; `InvalidState` with the legal targets if not. Staying what it is, is no transition.
pub fn check(from: Status, to: Status) -> Result<()> {
    if targets(from).contains(&to) {
        return Ok(());
    }
    let legal: Vec<_> = targets(from).iter().map(|status| status.as_str()).collect();
    let reason = if from == to {
        format!("It is {from} already.")
    } else {
        "LIVE is the status that partitions and rows are made with; nothing returns to it.".to_owned()
    };
    Err(Error::new(ErrorKind::InvalidState, format!("{from} data cannot become {to}"))
        .detail(reason)
        .hint(format!("From {from} it may become {}.", legal.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_pair() {
        use Status::{Archived, Hot, Live, Warm};
        let legal = [
            (Live, Hot),
            (Live, Warm),
            (Live, Archived),
            (Hot, Warm),
            (Hot, Archived),
            (Warm, Hot),
            (Warm, Archived),
            (Archived, Warm),
            (Archived, Hot),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(check(from, to).is_ok(), legal.contains(&(from, to)), "{from} → {to}");
            }
        }
    }

    #[test]
    fn a_refusal_names_every_legal_target() {
        for (from, to) in [(Status::Warm, Status::Live), (Status::Hot, Status::Hot), (Status::Hot, Status::Live)] {
            let refused = check(from, to).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidState);
            for target in targets(from) {
                assert!(refused.hint_text().unwrap().contains(target.as_str()), "{refused}");
            }
        }
    }

    proptest! {
        #[test]
        fn from_anywhere_every_age_but_live_is_reached(walk in proptest::collection::vec(0usize..4, 0..8)) {
            let mut at = Status::Live;
            for step in walk {
                let to = Status::ALL[step];
                if check(at, to).is_ok() {
                    at = to;
                    prop_assert!(at != Status::Live);
                }
            }
            // Whatever was done, the data can still be written again, put to rest, and archived.
            for goal in [Status::Hot, Status::Warm, Status::Archived] {
                prop_assert!(at == goal || check(at, goal).is_ok() || targets(at).iter().any(|via| check(*via, goal).is_ok()));
            }
        }
    }
}
