//! Numbers that are ordered as PostgreSQL orders values, so that most are told apart without comparing them.

/// Eight bytes, as many as there are, as a number that is never larger for bytes that sort before.
#[inline]
pub fn bytes_prefix(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(first)
}

/// A number that is ordered as `float8_cmp_internal` says: NaN is highest, and equal to itself, as both zeros are.
#[inline]
pub fn float_order(float: f64) -> u64 {
    let bits = (float + 0.0).to_bits();
    match float.is_nan() {
        true => u64::MAX,
        false if bits >> 63 == 1 => !bits,
        false => bits | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nan_is_highest_and_zeros_are_equal() {
        let ascending = [f64::NEG_INFINITY, -1.0, -5e-324, 0.0, 5e-324, 1.0, f64::INFINITY, f64::NAN];
        assert!(ascending.is_sorted_by_key(|float| float_order(*float)));
        assert_eq!(float_order(-0.0), float_order(0.0));
        assert_eq!(float_order(-f64::NAN), float_order(f64::NAN));
    }

    proptest! {
        #[test]
        fn floats_are_ordered_as_they_compare(a in proptest::num::f64::NORMAL, b in proptest::num::f64::NORMAL) {
            prop_assert_eq!(Some(float_order(a).cmp(&float_order(b))), a.partial_cmp(&b));
        }

        #[test]
        fn prefixes_never_contradict(a: Vec<u8>, b: Vec<u8>) {
            prop_assert!(bytes_prefix(&a).cmp(&bytes_prefix(&b)).then(a.cmp(&b)) == a.cmp(&b));
        }
    }
}
