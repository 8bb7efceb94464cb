//! When what nobody needs may go.

/// How long it stays: point-in-time recovery and forks need what was needed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Seconds since 1970.
    pub now: i64,
    /// Seconds.
    pub seconds: i64,
}

impl Retention {
    /// Whether what nobody has needed since `since`, and was written at `written`, may go. What has no time stays.
    pub fn is_over(&self, since: Option<i64>, written: Option<i64>) -> bool {
        let limit = self.now.saturating_sub(self.seconds);
        let before = |at: Option<i64>| at.is_some_and(|at| at <= limit);
        before(since) && before(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_times_count_and_none_is_not_long_ago() {
        let retention = Retention { now: 1000, seconds: 100 };
        assert!(retention.is_over(Some(900), Some(1)));
        assert!(!retention.is_over(Some(901), Some(1)));
        assert!(!retention.is_over(Some(1), Some(901)));
        assert!(!retention.is_over(None, Some(1)));
        assert!(!retention.is_over(Some(1), None));
        assert!(!retention.is_over(Some(1001), Some(1001)), "a clock that went back makes nothing older");
        assert!(Retention { now: 5, seconds: 0 }.is_over(Some(5), Some(5)));
    }

    proptest! {
        #[test]
        fn a_longer_retention_lets_nothing_go_that_a_shorter_one_keeps(
            now in any::<i64>(), since in any::<i64>(), written in any::<i64>(), short in 0i64.., more in 0i64..
        ) {
            let long = Retention { now, seconds: short.saturating_add(more) };
            if long.is_over(Some(since), Some(written)) {
                let short = Retention { now, seconds: short };
                prop_assert!(short.is_over(Some(since), Some(written)));
            }
        }
    }
}
