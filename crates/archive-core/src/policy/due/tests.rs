use super::*;
use proptest::prelude::*;

fn at(year: i32, month: u8, day: u8) -> i64 {
    let seconds = Moment::date(year, month, day).unwrap().seconds() - Moment::date(2000, 1, 1).unwrap().seconds();
    seconds * MICROS_PER_SECOND
}

fn after(year: i32, month: u8, age: Option<Age>) -> Option<i64> {
    let months = i32::from(month) - 1 + age?.months;
    Some(at(year + months / 12, u8::try_from(months % 12 + 1).unwrap(), 1) + i64::from(age?.days) * MICROS_PER_DAY)
}

/// The partition of a month, as the database would show it.
fn month(policy: &Policy, year: i32, month: u8, status: Status) -> Observed {
    let (end_year, end) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    Observed {
        name: format!("orders_{year}_{month:02}"),
        status,
        span: Some((Moment::date(year, month, 1).unwrap(), Moment::date(end_year, end, 1).unwrap())),
        upper: Some(format!("{end_year}-{end:02}-01")),
        ends_at: Some(at(end_year, end, 1)),
        hot_at: after(end_year, end, policy.hot_after),
        warm_at: after(end_year, end, policy.warm_after),
        archive_at: after(end_year, end, policy.archive_after),
        bytes: 100,
        access: Access::Unknown,
        reattached: false,
        keep_until: None,
        held: None,
    }
}

fn held(reason: &str) -> Held {
    Held { reason: reason.to_owned(), freed_by: "somebody".to_owned() }
}

fn months(count: i32) -> Option<Age> {
    Some(Age::new(count, 0, 0))
}

fn policy() -> Policy {
    Policy { hot_after: months(1), warm_after: months(3), archive_after: months(12), ..Policy::default() }
}

fn said(outlook: &Outlook, partitions: &[Observed]) -> Vec<String> {
    let name = |at: &usize| partitions[*at].name.trim_start_matches("orders_").to_owned();
    let due = outlook.due.iter().map(|planned| {
        let names: Vec<_> = planned.partitions.iter().map(name).collect();
        format!("{} {}: {}", planned.action.operation(), names.join("+"), planned.reason)
    });
    let waiting = outlook.waiting.iter().map(|waiting| {
        let until = waiting.until.map_or_else(|| "?".to_owned(), instant);
        format!("wait {}: {} ({until})", name(&waiting.partition), waiting.reason)
    });
    due.chain(waiting).collect()
}

fn look(policy: &Policy, partitions: &[Observed], now: i64) -> Vec<String> {
    said(&due(policy, &Table::default(), partitions, now), partitions)
}

#[test]
fn each_partition_goes_to_the_furthest_status_its_age_allows() {
    let policy = policy();
    let partitions: Vec<_> = [(2023, 11), (2024, 9), (2024, 10), (2024, 11), (2024, 12), (2025, 1)]
        .map(|(year, number)| month(&policy, year, number, Status::Live))
        .to_vec();
    assert_eq!(
        look(&policy, &partitions, at(2025, 1, 10)),
        [
            "hot 2024_10: upper bound 2024-11-01 is older than hot_after 1 mon",
            "hot 2024_11: upper bound 2024-12-01 is older than hot_after 1 mon",
            "warm 2024_09: upper bound 2024-10-01 is older than warm_after 3 mons",
            "archive 2023_11: upper bound 2023-12-01 is older than archive_after 1 year",
            "wait 2024_12: upper bound 2025-01-01 is not yet older than hot_after 1 mon (2025-02-01 00:00 UTC)",
            "wait 2025_01: upper bound 2025-02-01 is not yet older than hot_after 1 mon (2025-03-01 00:00 UTC)",
        ]
    );
}

#[test]
fn a_partition_that_still_grows_is_never_due() {
    let policy = Policy { hot_after: months(0), max_hot_bytes: Some(0), ..Policy::default() };
    let partitions = [month(&policy, 2025, 1, Status::Live)];
    assert!(due(&policy, &Table::default(), &partitions, at(2025, 1, 31)).due.is_empty());
    assert_eq!(due(&policy, &Table::default(), &partitions, at(2025, 2, 1)).due.len(), 1);
}

#[test]
fn the_oldest_leave_until_the_rest_fits() {
    let policy = Policy { max_hot_bytes: Some(250), storage: Some("cold".to_owned()), ..Policy::default() };
    let mut partitions: Vec<_> = (1..=4).map(|number| month(&policy, 2024, number, Status::Hot)).collect();
    partitions[1].held = Some(held("archiving"));
    partitions.push(month(&policy, 2023, 1, Status::Warm));
    let lines = look(&policy, &partitions, at(2025, 1, 1));
    assert_eq!(
        lines[..2],
        [
            "archive 2024_01: LIVE and HOT partitions take 400 bytes, more than max_hot_bytes 250",
            "archive 2024_03: LIVE and HOT partitions take 400 bytes, more than max_hot_bytes 250",
        ]
    );
    assert_eq!(lines.len(), 5);
    assert!(lines[2].starts_with("wait 2024_02: archiving"));
}

#[test]
fn partitions_in_use_wait_and_unknown_means_wait() {
    let policy = Policy { idle_for: Some(Age::new(0, 30, 0)), ..policy() };
    let mut partitions: Vec<_> = (1..=3).map(|number| month(&policy, 2023, number, Status::Warm)).collect();
    partitions[1].access = Access::At(at(2025, 1, 1));
    partitions[2].access = Access::At(at(2024, 12, 1));
    assert_eq!(
        look(&policy, &partitions, at(2025, 1, 10)),
        [
            "archive 2023_03: upper bound 2023-04-01 is older than archive_after 1 year",
            "wait 2023_01: nobody knows when it was read or written last (?)",
            "wait 2023_02: it was in use at 2025-01-01 00:00 UTC, less than idle_for 30 days ago (2025-01-31 00:00 UTC)",
        ]
    );
}

#[test]
fn months_become_a_year_when_the_last_is_due() {
    let policy = Policy { warm_granularity: Some("year".to_owned()), archive_after: None, ..policy() };
    let partitions: Vec<_> = (1..=12).map(|number| month(&policy, 2024, number, Status::Hot)).collect();
    let early = look(&policy, &partitions, at(2025, 3, 31));
    assert_eq!(early.len(), 12);
    assert_eq!(
        early[0],
        "wait 2024_01: all of 2024 become one WARM partition, and orders_2024_12 is not due yet (2025-04-01 00:00 UTC)"
    );
    let due = look(&policy, &partitions, at(2025, 4, 1));
    assert_eq!(due.len(), 1);
    assert!(due[0].starts_with("merge 2024_01+2024_02+"), "{}", due[0]);
    assert!(due[0].ends_with("upper bound 2025-01-01 of the last of 2024 is older than warm_after 3 mons"));
}

#[test]
fn months_that_are_archived_before_their_year_is_warm_stay_apart() {
    let policy = Policy { warm_granularity: Some("year".to_owned()), archive_after: months(6), ..policy() };
    let partitions: Vec<_> = (1..=12).map(|number| month(&policy, 2024, number, Status::Hot)).collect();
    let apart = "it stays apart, for archive_after 6 mons takes the first month of 2024 before all of it is WARM";
    let lines = look(&policy, &partitions, at(2024, 10, 10));
    assert_eq!(
        lines[..5],
        [
            format!("warm 2024_04: upper bound 2024-05-01 is older than warm_after 3 mons; {apart}"),
            format!("warm 2024_05: upper bound 2024-06-01 is older than warm_after 3 mons; {apart}"),
            format!("warm 2024_06: upper bound 2024-07-01 is older than warm_after 3 mons; {apart}"),
            "archive 2024_01: upper bound 2024-02-01 is older than archive_after 6 mons".to_owned(),
            "archive 2024_02: upper bound 2024-03-01 is older than archive_after 6 mons".to_owned(),
        ]
    );
    assert!(lines[6].starts_with("wait 2024_07") && lines[6].contains(apart), "{}", lines[6]);
    // Nor are those merged that are left when the others have gone.
    let rest = look(&policy, &partitions[8..], at(2025, 4, 2));
    assert!(rest.iter().all(|line| !line.starts_with("merge")), "{rest:?}");
}

#[test]
fn a_merge_that_nobody_ran_in_time_goes_before_the_archive() {
    let policy = Policy { warm_granularity: Some("year".to_owned()), archive_after: months(14), ..policy() };
    let partitions: Vec<_> = (1..=12).map(|number| month(&policy, 2024, number, Status::Hot)).collect();
    for now in [at(2025, 4, 1), at(2025, 6, 10), at(2030, 1, 1)] {
        let due = look(&policy, &partitions, now);
        assert_eq!(due.len(), 1, "{due:?}");
        assert!(due[0].starts_with("merge 2024_01+"), "{}", due[0]);
    }
    // A year that is not complete is archived by its months.
    let due = look(&policy, &partitions[..11], at(2030, 1, 1));
    assert_eq!(due.iter().filter(|line| line.starts_with("archive")).count(), 11, "{due:?}");
}

#[test]
fn a_year_of_another_time_zone_ends_with_its_last_month() {
    let policy = Policy { warm_granularity: Some("year".to_owned()), archive_after: None, ..policy() };
    let mut partitions: Vec<_> = (1..=12).map(|number| month(&policy, 2024, number, Status::Hot)).collect();
    for one in &mut partitions {
        one.span = one.span.map(|(lower, upper)| (lower.plus(-3_600).unwrap(), upper.plus(-3_600).unwrap()));
    }
    let outlook = due(&policy, &Table::default(), &partitions, at(2025, 4, 1));
    assert_eq!(outlook.due.len(), 1);
    assert_eq!(outlook.due[0].action, Action::Merge(Period::Year(2024)));
}

#[test]
fn a_year_whose_end_is_missing_waits_and_a_lone_month_does_not() {
    let policy = Policy { warm_granularity: Some("year".to_owned()), archive_after: None, ..policy() };
    let mut partitions: Vec<_> = [1, 2, 4].map(|number| month(&policy, 2024, number, Status::Hot)).to_vec();
    let lines = look(&policy, &partitions, at(2026, 1, 1));
    assert_eq!(
        lines,
        [
            "warm 2024_04: upper bound 2024-05-01 is older than warm_after 3 mons",
            "wait 2024_01: all of 2024 become one WARM partition, and its end has no partition yet (?)",
            "wait 2024_02: all of 2024 become one WARM partition, and its end has no partition yet (?)",
        ]
    );
    partitions[0].status = Status::Warm;
    partitions[1].status = Status::Warm;
    assert_eq!(due(&policy, &Table::default(), &partitions, at(2026, 1, 1)).due.len(), 1);
}

#[test]
fn a_year_is_split_before_its_months_are_archived() {
    let policy = Policy { archive_granularity: Some("month".to_owned()), ..policy() };
    let mut year = month(&policy, 2023, 1, Status::Warm);
    year.span = Some((Moment::date(2023, 1, 1).unwrap(), Moment::date(2024, 1, 1).unwrap()));
    let outlook = due(&policy, &Table::default(), &[year, month(&policy, 2023, 2, Status::Warm)], at(2026, 1, 1));
    let actions: Vec<_> = outlook.due.into_iter().map(|planned| planned.action).collect();
    assert_eq!(actions, [Action::Split(Granularity::Month), Action::Archive]);
}

#[test]
fn what_was_brought_back_stays_as_long_as_was_asked() {
    let policy = policy();
    let mut partitions: Vec<_> = (1..=3).map(|number| month(&policy, 2023, number, Status::Hot)).collect();
    partitions.iter_mut().for_each(|one| one.reattached = true);
    partitions[0].keep_until = Some(at(2025, 1, 1));
    partitions[1].keep_until = Some(at(2025, 3, 1));
    assert_eq!(
        look(&policy, &partitions, at(2025, 2, 1)),
        [
            "archive 2023_01: it was brought back until 2025-01-01 00:00 UTC",
            "wait 2023_02: it was brought back for a while (2025-03-01 00:00 UTC)",
            "wait 2023_03: it was brought back without keep_for (?)",
        ]
    );
}

#[test]
fn without_an_age_only_what_was_brought_back_goes() {
    let plain = month(&policy(), 2024, 1, Status::Warm);
    let back = Observed { reattached: true, keep_until: Some(at(2024, 6, 1)), ..plain.clone() };
    let stays = Observed { reattached: true, ..plain.clone() };
    let partitions = [plain, back, stays];
    let before = brought_back(&Policy::default(), &partitions, at(2024, 5, 1));
    assert_eq!(before.due, []);
    assert_eq!(
        before.waiting.iter().map(|one| (one.partition, one.until)).collect::<Vec<_>>(),
        [(1, Some(at(2024, 6, 1))), (2, None)]
    );
    let after = brought_back(&Policy::default(), &partitions, at(2024, 6, 1));
    assert_eq!(
        after.due.iter().map(|one| (one.action.clone(), one.partitions.clone())).collect::<Vec<_>>(),
        [(Action::Rearchive, vec![1])]
    );
}

#[test]
fn what_was_given_up_waits_for_somebody() {
    let policy = Policy { max_hot_bytes: Some(0), ..policy() };
    let mut one = month(&policy, 2023, 1, Status::Hot);
    one.held = Some(held("given up after 5 attempts: no"));
    let outlook = due(&policy, &Table::default(), &[one], at(2025, 1, 1));
    assert!(outlook.due.is_empty());
    assert_eq!(outlook.waiting[0].freed_by.as_deref(), Some("somebody"));
}

#[test]
fn the_table_comes_first() {
    let policy = Policy { premake: Some(3), ..policy() };
    let default_partition = Some(("orders_rest".to_owned(), true));
    let table = Table { coming: 1, default_partition, ..Table::default() };
    let now = at(2025, 1, 10);
    let partitions = [month(&policy, 2020, 1, Status::Live)];
    let outlook = due(&policy, &table, &partitions, now);
    let reasons: Vec<_> = outlook.due.iter().map(|planned| planned.reason.as_str()).collect();
    assert_eq!(reasons[..2], ["1 of 3 coming partitions exist", "DEFAULT partition orders_rest caught rows"]);
    let enough = Table { coming: 3, drained_in_vain_at: Some(now - 1), ..table };
    assert_eq!(due(&policy, &enough, &partitions, now).due.len(), 1);
    let off = Policy { enabled: Some(false), ..policy };
    assert!(due(&off, &enough, &partitions, now).due.is_empty());
}

#[test]
fn periods_are_over_at_their_end() {
    for (text, end) in [
        ("2024", (2025, 1, 1)),
        ("2024Q4", (2025, 1, 1)),
        ("2024Q1", (2024, 4, 1)),
        ("202409", (2024, 10, 1)),
        ("20240229", (2024, 3, 1)),
    ] {
        let (period, end) = (Period::parse(text).unwrap(), at(end.0, end.1, end.2));
        assert!(is_over(period, end) && !is_over(period, end - 1), "{text}");
    }
}

proptest! {
    #[test]
    fn every_partition_is_due_or_waits_once(
        ages in proptest::array::uniform3(proptest::option::of(0i32..24)), yearly in any::<bool>(), limit in proptest::option::of(0i64..900),
        statuses in proptest::collection::vec(0usize..3, 1..24), present in proptest::collection::vec(any::<bool>(), 24), now in 0i64..1500
    ) {
        let mut sorted: Vec<i32> = ages.iter().flatten().copied().collect();
        sorted.sort_unstable();
        let mut sorted = sorted.into_iter();
        let mut age = |set: Option<i32>| set.and_then(|_| sorted.next()).map(|count| Age::new(count, 0, 0));
        let policy = Policy {
            hot_after: age(ages[0]), warm_after: age(ages[1]), archive_after: age(ages[2]), max_hot_bytes: limit,
            warm_granularity: yearly.then(|| "year".to_owned()), ..Policy::default()
        };
        let partitions: Vec<_> = statuses.iter().enumerate().filter(|(at, _)| present[*at]).map(|(at, status)| {
            month(&policy, 2022 + at as i32 / 12, at as u8 % 12 + 1, Status::ALL[*status])
        }).collect();
        let now = at(2022, 1, 1) + now * MICROS_PER_DAY;
        let outlook = due(&policy, &Table::default(), &partitions, now);
        let mut seen = vec![0; partitions.len()];
        outlook.due.iter().flat_map(|planned| &planned.partitions).for_each(|at| seen[*at] += 1);
        outlook.waiting.iter().for_each(|waiting| seen[waiting.partition] += 1);
        prop_assert!(seen.iter().all(|count| *count == 1), "{:?}", seen);
        for planned in &outlook.due {
            prop_assert!(!planned.reason.is_empty());
            // Nobody ages before its time; what was made WARM by hand is merged with those whose time has come.
            let by_hand = |at: &usize| matches!(planned.action, Action::Merge(_)) && partitions[*at].status == Status::Warm;
            prop_assert!(planned.partitions.iter().all(|at| by_hand(at) || partitions[*at].ends_at.unwrap() <= now));
        }
    }
}
