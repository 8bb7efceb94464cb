//! Which small objects become large ones together.

/// An object that is small enough to be merged with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallObject {
    /// Its id in the catalog.
    pub id: i64,
    /// Month of its first row by time; `None` for rows without a time.
    pub month: Option<String>,
    /// Its size.
    pub bytes: u64,
}

/// When objects are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Fewer objects of a month than this are left as they are, unless they fill an object; never fewer than two.
    pub objects: usize,
    /// The objects merged in one go have about as many bytes, and are of one month.
    pub bytes: u64,
}

/// The objects that are merged next, of the earliest month that has enough of them; empty when there is none.
///
/// `objects` are in the order of their months. Rows of later months, which the objects of a month have as well, become objects
/// of these months: hence the earliest first, so that one pass over the months is enough.
pub fn next_group(objects: &[SmallObject], threshold: Threshold) -> Vec<i64> {
    let months = objects.chunk_by(|one, next| one.month == next.month);
    months.map(|month| first_of_month(month, threshold)).find(|group| !group.is_empty()).unwrap_or_default()
}

fn first_of_month(month: &[SmallObject], threshold: Threshold) -> Vec<i64> {
    let mut bytes = 0;
    let fill = month.iter().position(|object| {
        bytes += object.bytes;
        bytes >= threshold.bytes
    });
    let group = match fill {
        Some(last) => month.get(..=last.max(1)).unwrap_or(month),
        None if month.len() >= threshold.objects => month,
        None => &[],
    };
    if group.len() < 2 { Vec::new() } else { group.iter().map(|object| object.id).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(of: &[(Option<&str>, u64)]) -> Vec<SmallObject> {
        let object = |(at, (month, bytes)): (usize, &(Option<&str>, u64))| SmallObject {
            id: at as i64,
            month: month.map(str::to_owned),
            bytes: *bytes,
        };
        of.iter().enumerate().map(object).collect()
    }

    fn group(of: &[(Option<&str>, u64)], objects_: usize, bytes: u64) -> Vec<i64> {
        next_group(&objects(of), Threshold { objects: objects_, bytes })
    }

    #[test]
    fn the_earliest_month_with_enough_objects() {
        let months = [(Some("2024-01"), 1), (Some("2024-02"), 1), (Some("2024-02"), 1), (Some("2024-03"), 1)];
        assert_eq!(group(&months, 2, 100), [1, 2]);
        assert_eq!(group(&months, 3, 100), [] as [i64; 0]);
    }

    #[test]
    fn as_many_as_fill_an_object() {
        let month = [(None, 40), (None, 40), (None, 40), (None, 40)];
        assert_eq!(group(&month, 2, 100), [0, 1, 2]);
        assert_eq!(group(&month, 10, 100), [0, 1, 2], "a full object is worth writing, however few they are");
        assert_eq!(group(&month, 10, 1000), [] as [i64; 0]);
    }

    #[test]
    fn one_object_is_never_written_again_alone() {
        assert_eq!(group(&[(None, 200)], 1, 100), [] as [i64; 0]);
        assert_eq!(group(&[(None, 200), (None, 1)], 1, 100), [0, 1]);
        assert_eq!(group(&[], 1, 100), [] as [i64; 0]);
    }

    #[test]
    fn merging_ends() {
        let mut left = objects(&[(None, 30); 40]);
        let mut next = 100;
        while let Some(ids) =
            Some(next_group(&left, Threshold { objects: 2, bytes: 100 })).filter(|ids| !ids.is_empty())
        {
            let bytes: u64 = left.iter().filter(|object| ids.contains(&object.id)).map(|object| object.bytes).sum();
            left.retain(|object| !ids.contains(&object.id));
            // What fills an object is no small one any more.
            if bytes < 50 {
                left.push(SmallObject { id: next, month: None, bytes });
            }
            next += 1;
            assert!(next < 150);
        }
        assert!(left.len() < 2);
    }
}
