//! The label that a row gets with its new status, and the name of the partition for it.

use super::{Granularity, Label, Moment, Status};

/// The length of the periods of each status; `None` means labels without a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granularities {
    /// Of LIVE.
    pub live: Option<Granularity>,
    /// Of HOT.
    pub hot: Option<Granularity>,
    /// Of WARM.
    pub warm: Option<Granularity>,
    /// Of ARCHIVED.
    pub archive: Option<Granularity>,
}

impl Default for Granularities {
    /// LIVE per month, one HOT, WARM per year, ARCHIVE per month.
    fn default() -> Self {
        Self {
            live: Some(Granularity::Month),
            hot: None,
            warm: Some(Granularity::Year),
            archive: Some(Granularity::Month),
        }
    }
}

impl Granularities {
    /// Sets that of a status from its name in the policy: `month` or `monthly`, `none` or `bare` for labels without a
    /// period. Anything else changes nothing.
    pub fn set(&mut self, status: Status, name: &str) {
        let granularity = match name.to_ascii_lowercase().as_str() {
            "none" | "bare" | "" => None,
            other => match Granularity::named(other) {
                Some(granularity) => Some(granularity),
                None => return,
            },
        };
        match status {
            Status::Live => self.live = granularity,
            Status::Hot => self.hot = granularity,
            Status::Warm => self.warm = granularity,
            Status::Archived => self.archive = granularity,
        }
    }

    /// That of a status.
    pub fn of(&self, status: Status) -> Option<Granularity> {
        match status {
            Status::Live => self.live,
            Status::Hot => self.hot,
            Status::Warm => self.warm,
            Status::Archived => self.archive,
        }
    }
}

/// The label that a row of `present` gets in status `to`.
///
/// Its period is that of the row's removal time for ARCHIVED, else that of its present label. A label without a period
/// tells no time, nor does ARCHIVE, whose period is the removal's: then `at` does, the row's own time. A present period
/// that is longer than those of the new status stays as it is. `None` when `at` is needed and missing.
pub fn relabel(present: Label, to: Status, granularities: &Granularities, at: Option<Moment>) -> Option<Label> {
    let Some(granularity) = granularities.of(to) else { return Some(Label::new(to, None)) };
    let own = present.period.filter(|_| present.status != Status::Archived && to != Status::Archived);
    let period = match own {
        Some(period) if period.granularity() > granularity => period,
        Some(period) => period.begin().period(granularity),
        None => at?.period(granularity),
    };
    Some(Label::new(to, Some(period)))
}

/// The name of the partition for `label`: made like those of the partitions there are, each given with the label it is
/// for, and `<table>_<label>` when none of them bears its label.
pub fn partition_name(table: &str, label: &Label, existing: &[(String, Label)]) -> String {
    let new = label.to_string();
    let patterned = existing.iter().find_map(|(name, label)| {
        spellings(label).into_iter().find_map(|spelling| Some(replace(name, name.rfind(&spelling)?, &spelling, &new)))
    });
    patterned.unwrap_or_else(|| format!("{table}_{}", new.to_lowercase()))
}

/// A label as names of partitions bear it, longest first.
fn spellings(label: &Label) -> Vec<String> {
    let short = label.to_string();
    let long = short.replacen("ARCHIVE", "ARCHIVED", 1);
    [long, short].into_iter().flat_map(|text| [text.to_lowercase(), text]).collect()
}

fn replace(name: &str, at: usize, spelling: &str, new: &str) -> String {
    let lower = spelling.chars().any(|c| c.is_ascii_lowercase());
    let new = if lower { new.to_lowercase() } else { new.to_owned() };
    format!("{}{new}{}", &name[..at], &name[at + spelling.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moved(present: &str, to: Status, at: Option<Moment>) -> Option<String> {
        relabel(present.parse().unwrap(), to, &Granularities::default(), at).map(|label| label.to_string())
    }

    #[test]
    fn the_walk_of_a_ticket() {
        let opened = Moment::date(2024, 12, 17);
        let removal = Moment::date(2025, 9, 1);
        assert_eq!(moved("LIVE_202412", Status::Hot, None).as_deref(), Some("HOT"));
        assert_eq!(moved("HOT", Status::Warm, opened).as_deref(), Some("WARM_2024"));
        assert_eq!(moved("LIVE_202412", Status::Warm, removal).as_deref(), Some("WARM_2024"));
        assert_eq!(moved("WARM_2024", Status::Archived, removal).as_deref(), Some("ARCHIVE_202509"));
        assert_eq!(moved("ARCHIVE_202509", Status::Warm, opened).as_deref(), Some("WARM_2024"));
    }

    #[test]
    fn what_tells_no_time_needs_one() {
        assert_eq!(moved("HOT", Status::Warm, None), None);
        assert_eq!(moved("WARM_2024", Status::Archived, None), None);
        assert_eq!(moved("ARCHIVE_202509", Status::Warm, None), None);
        assert_eq!(moved("ARCHIVE_202509", Status::Hot, None).as_deref(), Some("HOT"));
    }

    #[test]
    fn no_precision_is_invented() {
        let hot_months = Granularities { hot: Some(Granularity::Month), ..Granularities::default() };
        let label = |present: &str| relabel(present.parse().unwrap(), Status::Hot, &hot_months, None);
        assert_eq!(label("LIVE_2024Q4").map(|label| label.to_string()).as_deref(), Some("HOT_2024Q4"));
        assert_eq!(label("LIVE_20241231").map(|label| label.to_string()).as_deref(), Some("HOT_202412"));
    }

    #[test]
    fn names_follow_the_partitions_there_are() {
        let existing = |name: &str, label: &str| vec![(name.to_owned(), label.parse().unwrap())];
        let warm = "WARM_2024".parse().unwrap();
        let name = |existing: &[(String, Label)]| partition_name("ticket", &warm, existing);
        assert_eq!(name(&existing("ticket_live_202412", "LIVE_202412")), "ticket_warm_2024");
        assert_eq!(name(&existing("T_LIVE_202412_x", "LIVE_202412")), "T_WARM_2024_x");
        assert_eq!(name(&existing("hot_hot", "HOT")), "hot_warm_2024");
        assert_eq!(name(&existing("p_archived_202509", "ARCHIVE_202509")), "p_warm_2024");
        assert_eq!(name(&existing("p1", "LIVE_202412")), "ticket_warm_2024");
        assert_eq!(name(&[]), "ticket_warm_2024");
    }

    proptest! {
        #[test]
        fn naming_never_panics(name in "\\PC{0,30}", table in "\\PC{0,10}") {
            let label: Label = "LIVE_2024".parse().unwrap();
            let made = partition_name(&table, &label, &[(name, "HOT".parse().unwrap())]);
            prop_assert!(!made.is_empty());
        }
    }
}
