use super::*;
use crate::lifecycle::{Granularity, Label, Moment, Period, Status};
use proptest::prelude::*;

fn selection(text: &str) -> Selection {
    Selection::parse(text).unwrap()
}

fn reads(text: &str, schema: &str, table: &str, label: &str) -> bool {
    selection(text).patterns(schema, table).is_none_or(|patterns| patterns.matches(label))
}

fn refused(text: &str) -> String {
    let error = Selection::parse(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{text}");
    error.message().to_owned()
}

#[test]
fn one_list_is_for_all_tables() {
    assert!(reads("LIVE*,HOT*", "public", "orders", "LIVE_202401"));
    assert!(reads(" live* , hot ", "public", "orders", "HOT"));
    assert!(!reads("LIVE*,HOT*", "public", "orders", "WARM_2024"));
    assert!(!reads("HOT", "public", "orders", "HOT_2024"));
    assert!(reads("*", "public", "orders", "anything"));
    assert!(reads("LIVE_2024*01", "public", "orders", "LIVE_20240101"));
}

#[test]
fn a_table_of_its_own_list_and_the_rest() {
    let text = "ticket=LIVE*; Sales.Order = HOT*,WARM_2024; order=LIVE; ";
    assert!(reads(text, "public", "TICKET", "LIVE_2024") && !reads(text, "public", "ticket", "HOT"));
    assert!(reads(text, "sales", "order", "WARM_2024") && !reads(text, "sales", "order", "LIVE"));
    assert!(reads(text, "public", "order", "LIVE") && !reads(text, "public", "order", "HOT"));
    assert!(reads(text, "public", "others", "WARM_2020"));
    assert!(!reads("HOT; ticket=LIVE*", "public", "others", "LIVE_2024"));
}

#[test]
fn names_may_be_quoted() {
    let text = "\"a.b;c=\"\"d\".\"X Y\"=HOT";
    assert!(!reads(text, "A.B;C=\"D", "x y", "LIVE"));
    assert_eq!(selection(text).to_string(), "\"a.b;c=\"\"d\".\"x y\"=HOT");
}

#[test]
fn nothing_selects_everything() {
    for text in ["", "  ", ";", " ; ;"] {
        assert!(selection(text).is_everything(), "{text:?}");
        assert_eq!(selection(text).to_string(), "");
    }
    assert!(!selection("*").is_everything());
}

#[test]
fn what_no_label_can_match_is_refused() {
    for (text, says) in [
        ("COLD*", "no label matches \"COLD*\""),
        ("LIV", "no label matches \"LIV\""),
        ("LIVE_2024_1", "no label matches"),
        ("LIVEX*", "no label matches"),
        ("HOT%", "holds \"%\""),
        ("HOT?", "holds \"?\""),
        ("HOT,", "an empty pattern"),
        ("t=", "an empty pattern"),
        ("HOT; WARM", "two lists for all other tables"),
        ("t=HOT; T=WARM", "two lists for table t"),
        ("t=u=HOT", "more than one \"=\""),
        ("a.b.c=HOT", "no name of a table"),
        ("=HOT", "no name of a table"),
        ("\"t=HOT", "not closed"),
        ("t\"\"=HOT", "no name of a table"),
    ] {
        assert!(refused(text).contains(says), "{text}: {}", refused(text));
    }
    for text in ["L*", "*_2024", "ARCHIVED*", "ARCHIVE_2024Q1", "A*", "warm_2024*"] {
        selection(text);
    }
}

#[test]
fn both_spellings_of_archive() {
    for pattern in ["ARCHIVE_2025*", "ARCHIVED_2025*", "archived_202509", "A*09"] {
        for label in ["ARCHIVE_202509", "ARCHIVED_202509"] {
            assert!(reads(pattern, "s", "t", label), "{pattern} {label}");
        }
    }
    assert!(!reads("ARCHIVE", "s", "t", "ARCHIVE_2024") && reads("ARCHIVED", "s", "t", "ARCHIVE"));
    assert!(selection("HOT,arch*").patterns("s", "t").unwrap().names_archive());
    assert!(!selection("*,HOT").patterns("s", "t").unwrap().names_archive());
}

#[test]
fn headers_in_any_case() {
    let from = |headers: &[(&str, &str)]| Selection::from_headers(headers.iter().copied()).map(|s| s.to_string());
    assert_eq!(
        from(&[("x-data-partition", "HOT*"), ("X-Data-Partition-Ticket", "LIVE*")]).unwrap(),
        "HOT*; ticket=LIVE*"
    );
    assert_eq!(from(&[("X-DATA-PARTITION", "LIVE; order=HOT")]).unwrap(), "LIVE; order=HOT");
    assert_eq!(from(&[("accept", "*/*"), ("x-data-partitions", "?"), ("x-data-partition", " ")]).unwrap(), "");
    assert_eq!(from(&[("x-data-partition-app.order", "WARM_2024")]).unwrap(), "app.order=WARM_2024");
    assert!(from(&[("x-data-partition-t", "HOT; u=LIVE")]).is_err());
    assert!(from(&[("x-data-partition", "HOT"), ("X-Data-Partition", "LIVE")]).is_err());
    assert!(from(&[("x-data-partition-", "HOT")]).is_err());
}

#[test]
fn a_hostile_pattern_takes_no_time() {
    let pattern = format!("L{}", "*1".repeat(5_000));
    let label = format!("LIVE_{}", "1".repeat(4_000));
    assert!(!reads(&pattern, "s", "t", &label));
}

fn label() -> impl Strategy<Value = Label> {
    (1i32..=9999, 1u8..=12, 1u8..=28, 0u8..24, 0usize..7, 0usize..4).prop_map(
        |(year, month, day, hour, which, status)| {
            let granularity = [
                Granularity::Hour,
                Granularity::Day,
                Granularity::Week,
                Granularity::Month,
                Granularity::Quarter,
                Granularity::Year,
            ];
            let at = Moment::new(year, month, day, hour, 0, 0).unwrap();
            Label::new(Status::ALL[status], granularity.get(which).map(|granularity| Period::new(at, *granularity)))
        },
    )
}

/// The obvious way to match, which may take forever.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
        [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn a_label_and_each_of_its_beginnings_match_it(label in label(), cut in 0usize..20) {
        let text = label.to_string();
        prop_assert!(reads(&text.to_lowercase(), "s", "t", &text));
        let cut = cut.min(text.len());
        let (begin, end) = (format!("{}*", &text[..cut]), format!("*{}", &text[cut..]));
        prop_assert!(reads(&begin, "s", "t", &text));
        prop_assert!(reads(&end, "s", "t", &text));
    }

    #[test]
    fn matching_is_what_the_obvious_way_says(pattern in "[AB*]{0,8}", text in "[AB]{0,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(glob(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
    }

    #[test]
    fn what_is_printed_is_read_as_the_same(
        others in proptest::option::of("(LIVE|HOT|WARM|ARCHIVE)\\*(,\\*){0,2}"),
        names in proptest::collection::btree_set("[a-z .;=\",é]{1,6}", 0..4),
    ) {
        let others = others.map(|list| Patterns::parse(&list).unwrap());
        let mut given = Selection { others, ..Selection::default() };
        for name in names.into_iter().filter(|name| name.trim() == name && !name.is_empty()) {
            given.entities.push((Entity { schema: None, table: name }, Patterns::parse("HOT").unwrap()));
        }
        prop_assert_eq!(Selection::parse(&given.to_string()).unwrap(), given);
    }

    #[test]
    fn reading_never_panics(text in "\\PC{0,40}", name in "(x-data-partition)?\\PC{0,10}") {
        let _ = Selection::parse(&text);
        let _ = Selection::from_headers([(name.as_str(), text.as_str())]);
    }
}
