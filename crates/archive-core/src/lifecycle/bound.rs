//! The bounds of a RANGE partition as `pg_get_expr(relpartbound)` prints them.

/// Lower and upper bound of a RANGE partition's first key column, as PostgreSQL text. `None` where there is none.
///
/// Bound expressions are constants; they are taken from the text of the partition bound.
pub fn range_bounds(bounds: &str) -> (Option<String>, Option<String>) {
    let Some(rest) = bounds.strip_prefix("FOR VALUES FROM (") else { return (None, None) };
    let Some((lower, rest)) = first_bound(rest) else { return (None, None) };
    let upper = rest.find(") TO (").and_then(|at| first_bound(&rest[at + 6..])).and_then(|(upper, _)| upper);
    (lower, upper)
}

/// The two bound lists of a RANGE partition as they are printed, all key columns: `'2024-01-01', MINVALUE`.
pub fn range_lists(bounds: &str) -> Option<(&str, &str)> {
    let rest = bounds.strip_prefix("FOR VALUES FROM (")?;
    let mut quoted = false;
    for (at, c) in rest.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            ')' if !quoted => {
                let upper = rest[at..].strip_prefix(") TO (")?.strip_suffix(')')?;
                return Some((&rest[..at], upper));
            }
            _ => {}
        }
    }
    None
}

/// The first value of a bound list and what follows it; `None` inside for MINVALUE and MAXVALUE.
fn first_bound(list: &str) -> Option<(Option<String>, &str)> {
    if let Some(quoted) = list.strip_prefix('\'') {
        let mut value = String::new();
        let mut chars = quoted.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match (c, chars.peek()) {
                ('\'', Some((_, '\''))) => {
                    value.push('\'');
                    chars.next();
                }
                ('\'', _) => return Some((Some(value), &quoted[at + 1..])),
                _ => value.push(c),
            }
        }
        return None;
    }
    let end = list.find([',', ')'])?;
    let word = &list[..end];
    let value = (word != "MINVALUE" && word != "MAXVALUE").then(|| word.to_owned());
    Some((value, &list[end..]))
}

/// The texts that a LIST partition takes: `FOR VALUES IN ('HOT', NULL)` has one. Empty for others.
pub fn list_values(bounds: &str) -> Vec<String> {
    let mut rest = bounds.strip_prefix("FOR VALUES IN (").unwrap_or_default();
    let mut values = Vec::new();
    while let Some((value, after)) = first_bound(rest) {
        if rest.starts_with('\'') {
            values.extend(value);
        }
        rest = after.strip_prefix(", ").unwrap_or_default();
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(text: &str) -> (Option<String>, Option<String>) {
        range_bounds(text)
    }

    fn some(lower: &str, upper: &str) -> (Option<String>, Option<String>) {
        (Some(lower.to_owned()), Some(upper.to_owned()))
    }

    #[test]
    fn quoted_bounds() {
        assert_eq!(bounds("FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')"), some("2024-01-01", "2024-02-01"));
        assert_eq!(bounds("FOR VALUES FROM ('it''s') TO (') TO (')"), some("it's", ") TO ("));
    }

    #[test]
    fn numbers_and_several_columns() {
        assert_eq!(bounds("FOR VALUES FROM (1, 'a') TO (100, 'b')"), some("1", "100"));
    }

    #[test]
    fn infinite_bounds_are_none() {
        assert_eq!(bounds("FOR VALUES FROM (MINVALUE) TO ('2024-01-01')"), (None, Some("2024-01-01".to_owned())));
        assert_eq!(bounds("FOR VALUES FROM (7) TO (MAXVALUE)"), (Some("7".to_owned()), None));
    }

    #[test]
    fn a_separator_inside_a_lower_bound_is_no_separator() {
        assert_eq!(bounds("FOR VALUES FROM (') TO (1') TO ('x')"), some(") TO (1", "x"));
    }

    #[test]
    fn whole_lists() {
        assert_eq!(
            range_lists("FOR VALUES FROM (') TO (', 1) TO ('it''s)', MAXVALUE)"),
            Some(("') TO (', 1", "'it''s)', MAXVALUE"))
        );
        for text in ["FOR VALUES IN ('eu')", "DEFAULT", "FOR VALUES FROM ('a", ""] {
            assert_eq!(range_lists(text), None);
        }
    }

    #[test]
    fn other_partitions_have_none() {
        for text in ["FOR VALUES IN ('eu', NULL)", "DEFAULT", "FOR VALUES WITH (modulus 2, remainder 0)", ""] {
            assert_eq!(bounds(text), (None, None));
        }
    }

    #[test]
    fn values_of_list_partitions() {
        assert_eq!(list_values("FOR VALUES IN ('HOT')"), ["HOT"]);
        assert_eq!(list_values("FOR VALUES IN ('HOT_2024Q1', NULL, 'it''s, ')"), ["HOT_2024Q1", "it's, "]);
        for text in ["FOR VALUES IN (1, NULL)", "DEFAULT", "FOR VALUES FROM ('a') TO ('b')", "", "FOR VALUES IN ('a"] {
            assert!(list_values(text).is_empty(), "{text}");
        }
    }
}
