//! The on-disk form of `numeric` (src/backend/utils/adt/numeric.c, "NumericShort"/"NumericLong"), read and built
//! without going through text.

use super::numeric::{Digits, Numeric, NumericSign};

const SIGN_MASK: u16 = 0xC000;
const NEGATIVE: u16 = 0x4000;
const SHORT: u16 = 0x8000;
const SPECIAL: u16 = 0xC000;
const EXTENDED_SIGN_MASK: u16 = 0xF000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
const SHORT_SIGN: u16 = 0x2000;
const SHORT_DSCALE: u16 = 0x1F80;
const SHORT_DSCALE_SHIFT: u16 = 7;
const SHORT_DSCALE_MAX: u16 = 0x3F;
const SHORT_WEIGHT_SIGN: u16 = 0x40;
const SHORT_WEIGHT: u16 = 0x3F;
const SHORT_WEIGHT_RANGE: std::ops::RangeInclusive<i16> = -64..=63;
const LONG_DSCALE: u16 = 0x3FFF;

fn u16_at(payload: &[u8], at: usize) -> u16 {
    payload.get(at..at + 2).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// Reads a numeric from its varlena payload (without the length word), in either header form.
pub fn parse(payload: &[u8]) -> Numeric<'_> {
    let header = u16_at(payload, 0);
    match header & SIGN_MASK {
        SPECIAL => Numeric { sign: special(header), weight: 0, dscale: 0, digits: Digits::Bytes(&[]) },
        SHORT => Numeric {
            sign: if header & SHORT_SIGN == 0 { NumericSign::Positive } else { NumericSign::Negative },
            weight: short_weight(header),
            dscale: (header & SHORT_DSCALE) >> SHORT_DSCALE_SHIFT,
            digits: Digits::Bytes(payload.get(2..).unwrap_or_default()),
        },
        sign => Numeric {
            sign: if sign == NEGATIVE { NumericSign::Negative } else { NumericSign::Positive },
            weight: u16_at(payload, 2).cast_signed(),
            dscale: header & LONG_DSCALE,
            digits: Digits::Bytes(payload.get(4..).unwrap_or_default()),
        },
    }
}

fn special(header: u16) -> NumericSign {
    match header & EXTENDED_SIGN_MASK {
        POSITIVE_INFINITY => NumericSign::PositiveInfinity,
        NEGATIVE_INFINITY => NumericSign::NegativeInfinity,
        _ => NumericSign::NaN,
    }
}

fn short_weight(header: u16) -> i16 {
    let magnitude = (header & SHORT_WEIGHT).cast_signed();
    if header & SHORT_WEIGHT_SIGN == 0 { magnitude } else { magnitude | !SHORT_WEIGHT.cast_signed() }
}

/// Builds the varlena payload of a numeric, in the short form whenever PostgreSQL would choose it.
pub fn build(numeric: &Numeric<'_>, payload: &mut Vec<u8>) {
    payload.clear();
    let special = match numeric.sign {
        NumericSign::NaN => Some(SPECIAL),
        NumericSign::PositiveInfinity => Some(POSITIVE_INFINITY),
        NumericSign::NegativeInfinity => Some(NEGATIVE_INFINITY),
        NumericSign::Positive | NumericSign::Negative => None,
    };
    if let Some(header) = special {
        payload.extend_from_slice(&header.to_ne_bytes());
        return;
    }
    let negative = numeric.sign == NumericSign::Negative;
    if numeric.dscale <= SHORT_DSCALE_MAX && SHORT_WEIGHT_RANGE.contains(&numeric.weight) {
        let sign = if negative { SHORT | SHORT_SIGN } else { SHORT };
        let weight_sign = if numeric.weight < 0 { SHORT_WEIGHT_SIGN } else { 0 };
        let weight = numeric.weight.cast_unsigned() & SHORT_WEIGHT;
        let header = sign | (numeric.dscale << SHORT_DSCALE_SHIFT) | weight_sign | weight;
        payload.extend_from_slice(&header.to_ne_bytes());
    } else {
        let header = numeric.dscale & LONG_DSCALE | if negative { NEGATIVE } else { 0 };
        payload.extend_from_slice(&header.to_ne_bytes());
        payload.extend_from_slice(&numeric.weight.to_ne_bytes());
    }
    for digit in numeric.digits.iter() {
        payload.extend_from_slice(&digit.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(numeric: &Numeric<'_>) -> String {
        let mut payload = Vec::new();
        build(numeric, &mut payload);
        parse(&payload).to_string()
    }

    #[test]
    fn headers_as_postgresql_writes_them() {
        // 0.00, -1.5, NaN and -Infinity by the macros of numeric.c.
        let payload = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(parse(&payload(&[0x8100])).to_string(), "0.00");
        assert_eq!(parse(&payload(&[0xA080, 1, 5000])).to_string(), "-1.5");
        assert_eq!(parse(&payload(&[0xC000])).sign, NumericSign::NaN);
        assert_eq!(parse(&payload(&[0xF000])).sign, NumericSign::NegativeInfinity);
        for special in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(Numeric::parse_text(special).map(|numeric| round_trip(&numeric)).as_deref(), Some(special));
        }
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed_back(unscaled in any::<i128>(), scale in 0_u16..38) {
            let unscaled = unscaled % 10_i128.pow(37);
            let numeric = Numeric::from_i128(unscaled, scale);
            prop_assert_eq!(round_trip(&numeric), numeric.to_string());
        }

        #[test]
        fn long_headers_too(digits in "[1-9][0-9]{0,300}", fraction in "[0-9]{64,200}") {
            let text = format!("{digits}.{fraction}");
            let numeric = Numeric::parse_text(&text).ok_or_else(|| TestCaseError::fail("not parsed"))?;
            prop_assert_eq!(round_trip(&numeric), text);
        }
    }
}
