//! Names of new partitions, after those that are there. Names decide nothing (P10): they are for people.

use super::{Granularity, Moment, Period};

/// How periods are written in names, the longest first: a day's name holds that of its month.
const HOURS: &[&str] =
    &["Y_M_D_H0000", "YMD_H0000", "Y_M_D_H00", "YMD_H00", "Y_M_D_H", "Y-M-D-H", "YMD_H", "YMDtH", "YMDTH", "YMDH"];
const DAYS: &[&str] = &["Y_M_D", "Y-M-D", "YMD"];
const WEEKS: &[&str] = &["G_wV", "G_WV", "GwV", "GWV", "YMwK", "YMWK"];
const MONTHS: &[&str] = &["Y_mM", "YmM", "Y_M", "Y-M", "YM"];
const QUARTERS: &[&str] = &["Y_qQ", "Y_QQ", "YqQ"];
const YEARS: &[&str] = &["Y"];

fn templates(granularity: Granularity) -> &'static [&'static [&'static str]] {
    match granularity {
        Granularity::Hour => &[HOURS],
        Granularity::Day => &[DAYS],
        Granularity::Week => &[WEEKS, DAYS],
        Granularity::Month => &[DAYS, MONTHS],
        Granularity::Quarter => &[QUARTERS, DAYS, MONTHS],
        Granularity::Year => &[DAYS, MONTHS, YEARS],
    }
}

/// The name of the partition that begins at `lower`, made like `example`, which begins at `example_lower`; `None` where the
/// example's name does not tell its period.
pub fn like_example(example: &str, example_lower: Moment, lower: Moment, granularity: Granularity) -> Option<String> {
    templates(granularity).iter().copied().flatten().find_map(|template| {
        let written = render(template, example_lower);
        let at = example.rfind(&written)?;
        let (before, after) = (&example[..at], &example[at + written.len()..]);
        let apart = !before.ends_with(|c: char| c.is_ascii_digit()) && !after.starts_with(|c: char| c.is_ascii_digit());
        apart.then(|| format!("{before}{}{after}", render(template, lower)))
    })
}

/// `<table>_<period>`, such as `orders_202402` or `orders_2024q1`; the table's name is cut where the whole would not fit.
pub fn of_table(table: &str, lower: Moment, granularity: Granularity) -> String {
    let period = Period::new(lower, granularity).to_string().to_lowercase();
    let mut length = table.len().min(crate::naming::MAX_IDENTIFIER - 1 - period.len());
    while !table.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}_{period}", &table[..length])
}

fn render(template: &str, at: Moment) -> String {
    let (iso_year, iso_week) = iso_week(at);
    let mut text = String::new();
    for token in template.chars() {
        match token {
            'Y' => text.push_str(&format!("{:04}", at.year)),
            'G' => text.push_str(&format!("{iso_year:04}")),
            'M' => text.push_str(&format!("{:02}", at.month)),
            'D' => text.push_str(&format!("{:02}", at.day)),
            'H' => text.push_str(&format!("{:02}", at.hour)),
            'V' => text.push_str(&format!("{iso_week:02}")),
            'K' => text.push_str(&((at.day - 1) / 7 + 1).to_string()),
            'Q' => text.push_str(&((at.month - 1) / 3 + 1).to_string()),
            other => text.push(other),
        }
    }
    text
}

/// Year and week of ISO 8601: the week belongs to the year of its Thursday.
fn iso_week(at: Moment) -> (i32, i64) {
    const DAY: i64 = 86_400;
    let thursday = at.begin_of(Granularity::Week).unix_seconds() + 3 * DAY;
    let Some(thursday) = Moment::from_unix_seconds(thursday) else { return (at.year, 1) };
    let first = thursday.begin_of(Granularity::Year).unix_seconds();
    (thursday.year, (thursday.unix_seconds() - first) / (7 * DAY) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(year: i32, month: u8, day: u8) -> Moment {
        Moment::date(year, month, day).unwrap()
    }

    #[test]
    fn names_go_on_as_they_began() {
        let next = |example, lower: Moment, granularity: Granularity| {
            like_example(example, lower, lower.next(granularity).unwrap(), granularity)
        };
        for (example, lower, granularity, expected) in [
            ("orders_2024_01", date(2024, 1, 1), Granularity::Month, "orders_2024_02"),
            ("orders_p20240101", date(2024, 1, 1), Granularity::Month, "orders_p20240201"),
            ("orders_2024_01_01", date(2024, 1, 1), Granularity::Day, "orders_2024_01_02"),
            ("o_202412_part", date(2024, 12, 1), Granularity::Month, "o_202501_part"),
            ("o_y2024m12", date(2024, 12, 1), Granularity::Month, "o_y2025m01"),
            ("o_2024q4", date(2024, 10, 1), Granularity::Quarter, "o_2025q1"),
            ("orders_2024", date(2024, 1, 1), Granularity::Year, "orders_2025"),
            ("log_2024_w52", date(2024, 12, 23), Granularity::Week, "log_2025_w01"),
            ("log_20240103", date(2024, 1, 3), Granularity::Week, "log_20240110"),
            ("log_2024010123", Moment::new(2024, 1, 1, 23, 0, 0).unwrap(), Granularity::Hour, "log_2024010200"),
            ("2024_2024_01", date(2024, 1, 1), Granularity::Month, "2024_2024_02"),
        ] {
            assert_eq!(next(example, lower, granularity).as_deref(), Some(expected), "{example}");
        }
        for example in ["orders_jan", "orders_2023_12", "orders_12024_01", "orders_2024_011"] {
            assert_eq!(next(example, date(2024, 1, 1), Granularity::Month), None, "{example}");
        }
    }

    #[test]
    fn names_of_tables_that_have_no_partition_yet() {
        assert_eq!(of_table("orders", date(2024, 2, 1), Granularity::Month), "orders_202402");
        assert_eq!(of_table("orders", date(2024, 4, 1), Granularity::Quarter), "orders_2024q2");
        let long = of_table(&"é".repeat(40), date(2024, 2, 1), Granularity::Month);
        assert!(long.len() <= crate::naming::MAX_IDENTIFIER && long.ends_with("_202402"), "{long}");
    }

    #[test]
    fn iso_weeks_of_the_turn_of_the_year() {
        assert_eq!(iso_week(date(2021, 1, 3)), (2020, 53));
        assert_eq!(iso_week(date(2024, 12, 30)), (2025, 1));
        assert_eq!(iso_week(date(2024, 1, 1)), (2024, 1));
    }

    proptest! {
        #[test]
        fn a_name_leads_to_another_and_back(
            prefix in "[a-z_]{0,8}[a-z_]", suffix in "([a-z_][a-z]{0,4})?", year in 1000i32..9000, month in 1u8..=12, later in 1u8..20,
            which in 0usize..6, template in 0usize..20
        ) {
            let granularity = Granularity::ALL[which];
            let at = date(year, month, 1).begin_of(granularity);
            let mut other = at;
            for _ in 0..later {
                other = other.next(granularity).unwrap();
            }
            let all: Vec<_> = templates(granularity).iter().copied().flatten().copied().collect();
            let name = format!("{prefix}{}{suffix}", render(all[template % all.len()], at));
            let made = like_example(&name, at, other, granularity).unwrap();
            prop_assert_ne!(&made, &name);
            prop_assert_eq!(like_example(&made, other, at, granularity).unwrap(), name);
        }
    }
}
