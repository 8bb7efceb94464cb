//! A table's partitions drawn as text: one line each, by tier, with a bar for the size.

use crate::lifecycle::Status;

/// One partition on the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// Its lower and upper bound, or its values.
    pub range: String,
    /// Bytes it takes: local, or in the storage.
    pub bytes: u64,
    /// What comes next, in a few words.
    pub next: String,
}

const BAR: usize = 20;

/// The lines of the map. Places of one status stay in the order given.
pub fn draw(table: &str, places: &[Place]) -> Vec<String> {
    let total: u64 = places.iter().map(|place| place.bytes).sum();
    let mut lines = vec![format!("{table}: {}, {}", counted(places.len()), size(total))];
    let greatest = places.iter().map(|place| place.bytes).max().unwrap_or(0);
    let width = |text: fn(&Place) -> usize| places.iter().map(text).max().unwrap_or(0);
    let (names, ranges) = (width(|place| place.name.chars().count()), width(|place| place.range.chars().count()));
    for status in Status::ALL {
        let tier: Vec<&Place> = places.iter().filter(|place| place.status == status).collect();
        if tier.is_empty() {
            continue;
        }
        let bytes = tier.iter().map(|place| place.bytes).sum();
        lines.push(String::new());
        lines.push(format!("{status}: {}, {}", counted(tier.len()), size(bytes)));
        for place in tier {
            let bar = bar(place.bytes, greatest);
            let line = format!(
                "  {name:names$}  {range:ranges$}  {bar:BAR$}  {size:>10}  {next}",
                name = place.name,
                range = place.range,
                size = size(place.bytes),
                next = place.next,
            );
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

fn counted(count: usize) -> String {
    if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") }
}

/// As many marks of twenty as the size is of the greatest; anything that takes space has one.
fn bar(bytes: u64, greatest: u64) -> String {
    let marks = match greatest {
        0 => 0,
        _ => (u128::from(bytes) * BAR as u128).div_ceil(u128::from(greatest)) as usize,
    };
    "#".repeat(marks)
}

/// Bytes as `pg_size_pretty` prints them, with one digit after the point below ten.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_023.5 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(name: &str, status: Status, range: &str, bytes: u64, next: &str) -> Place {
        Place { name: name.to_owned(), status, range: range.to_owned(), bytes, next: next.to_owned() }
    }

    #[test]
    fn drawn_by_tier() {
        let places = [
            place("orders_2023", Status::Archived, "2023-01-01 to 2024-01-01", 300 << 20, "stays"),
            place("orders_2024_11", Status::Hot, "2024-11-01 to 2024-12-01", 5 << 30, "WARM on 2025-03-01"),
            place("orders_2024_12", Status::Hot, "2024-12-01 to 2025-01-01", 4_500 << 20, "WARM on 2025-04-01"),
            place("orders_2025_01", Status::Live, "2025-01-01 to 2025-02-01", 0, "HOT on 2025-03-01"),
        ];
        assert_eq!(
            draw("public.orders", &places).join("\n"),
            "\
public.orders: 4 partitions, 9.7 GB

LIVE: 1 partition, 0 B
  orders_2025_01  2025-01-01 to 2025-02-01                               0 B  HOT on 2025-03-01

HOT: 2 partitions, 9.4 GB
  orders_2024_11  2024-11-01 to 2024-12-01  ####################      5.0 GB  WARM on 2025-03-01
  orders_2024_12  2024-12-01 to 2025-01-01  ##################        4.4 GB  WARM on 2025-04-01

ARCHIVED: 1 partition, 300 MB
  orders_2023     2023-01-01 to 2024-01-01  ##                        300 MB  stays"
        );
    }

    #[test]
    fn a_table_without_partitions() {
        assert_eq!(draw("public.orders", &[]), ["public.orders: 0 partitions, 0 B"]);
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 kB"),
            (10_200, "10 kB"),
            (1 << 20, "1.0 MB"),
            (u64::MAX, "16 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn every_partition_has_a_line(sizes in proptest::collection::vec((0usize..4, any::<u64>()), 0..20)) {
            let places: Vec<_> = sizes.iter().enumerate().map(|(at, (status, bytes))| {
                place(&format!("p{at}."), Status::ALL[*status], "", *bytes >> 8, "")
            }).collect();
            let lines = draw("t", &places);
            for place in &places {
                prop_assert_eq!(lines.iter().filter(|line| line.contains(&format!("  {} ", place.name))).count(), 1);
            }
        }
    }
}
