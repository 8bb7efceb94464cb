//! PostgreSQL's `numeric`, as `numeric.c` stores it: base-10000 digits, a weight and a display scale.

use std::cmp::Ordering;
use std::fmt;

/// Decimal digits per base-10000 digit.
const DEC_DIGITS: i32 = 4;
/// The base.
const NBASE: i128 = 10_000;
const NBASE_64: i64 = 10_000;
/// Digits that make up 64 bits, and the power of ten by which what they are is still multiplied within 128.
const SHORT: usize = 4;
const SHORT_EXPONENT: i32 = 18;

/// Sign of a numeric, with the values that are no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumericSign {
    /// Zero or above.
    Positive,
    /// Below zero.
    Negative,
    /// Not a number.
    NaN,
    /// Infinity (PostgreSQL 14 and later).
    PositiveInfinity,
    /// -Infinity (PostgreSQL 14 and later).
    NegativeInfinity,
}

/// The base-10000 digits, most significant first.
#[derive(Debug, Clone)]
pub enum Digits<'a> {
    /// Native-endian pairs straight from the varlena, possibly unaligned.
    Bytes(&'a [u8]),
    /// Few digits, in place.
    Inline {
        /// Number of digits in use.
        len: u8,
        /// The digits.
        buf: [i16; 12],
    },
    /// Many digits, owned.
    Owned(Vec<i16>),
}

/// One numeric value: `sign 0.d1d2d3… × 10000^(weight+1)`, printed with `dscale` digits after the point.
#[derive(Debug, Clone)]
pub struct Numeric<'a> {
    /// The sign.
    pub sign: NumericSign,
    /// Base-10000 exponent of the first digit.
    pub weight: i16,
    /// Decimal digits after the point when printed.
    pub dscale: u16,
    /// The digits.
    pub digits: Digits<'a>,
}

/// A numeric that borrows nothing.
pub type NumericBuf = Numeric<'static>;

impl Digits<'_> {
    /// Number of digits.
    pub fn len(&self) -> usize {
        match self {
            Digits::Bytes(bytes) => bytes.len() / 2,
            Digits::Inline { len, buf } => usize::from(*len).min(buf.len()),
            Digits::Owned(digits) => digits.len(),
        }
    }

    /// Whether there is none, as in zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Digit `i`, zero beyond the last.
    pub fn get(&self, i: usize) -> i16 {
        let digit = match self {
            Digits::Bytes(bytes) => bytes.get(2 * i..2 * i + 2).map(|pair| i16::from_ne_bytes([pair[0], pair[1]])),
            Digits::Inline { len, buf } => buf.get(i).copied().filter(|_| i < usize::from(*len)),
            Digits::Owned(digits) => digits.get(i).copied(),
        };
        digit.unwrap_or(0)
    }

    /// The digits in order.
    pub fn iter(&self) -> impl Iterator<Item = i16> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}

impl Numeric<'_> {
    /// The digits in order, most significant first.
    pub fn digits(&self) -> impl Iterator<Item = i16> + '_ {
        self.digits.iter()
    }

    /// A value without digits: NaN or an infinity.
    pub fn special(sign: NumericSign) -> NumericBuf {
        Numeric { sign, weight: 0, dscale: 0, digits: Digits::Inline { len: 0, buf: [0; 12] } }
    }

    /// A copy that borrows nothing.
    pub fn to_owned(&self) -> NumericBuf {
        Numeric {
            sign: self.sign,
            weight: self.weight,
            dscale: self.dscale,
            digits: Digits::Owned(self.digits().collect()),
        }
    }

    /// Whether this is a number, neither NaN nor infinite.
    pub fn is_finite(&self) -> bool {
        matches!(self.sign, NumericSign::Positive | NumericSign::Negative)
    }

    /// The value times 10^scale, when that is an integer of 128 bits.
    pub fn to_i128(&self, scale: i16) -> Option<i128> {
        match self.floor_at(scale)? {
            (unscaled, true) => Some(unscaled),
            (_, false) => None,
        }
    }

    /// The largest integer not above the value times 10^scale, and whether it is equal; `None` when it is no number or
    /// does not fit.
    pub(crate) fn floor_at(&self, scale: i16) -> Option<(i128, bool)> {
        if !self.is_finite() {
            return None;
        }
        let (magnitude, exact) = self.magnitude_at(i32::from(scale))?;
        Some(match self.sign {
            NumericSign::Negative if exact => (magnitude.checked_neg()?, true),
            NumericSign::Negative => (magnitude.checked_neg()?.checked_sub(1)?, false),
            _ => (magnitude, exact),
        })
    }

    /// |value| times 10^scale, truncated, and whether nothing was cut off.
    fn magnitude_at(&self, scale: i32) -> Option<(i128, bool)> {
        let len = self.digits.len();
        if (1..=SHORT).contains(&len) {
            // The decimal exponent of the last digit's last decimal place after scaling.
            let exponent = (i32::from(self.weight) - (len as i32 - 1)) * DEC_DIGITS + scale;
            if (1 - DEC_DIGITS..=SHORT_EXPONENT).contains(&exponent) {
                let joined = self.digits().fold(0i64, |joined, digit| joined * NBASE_64 + i64::from(digit));
                return Some(shifted(joined, exponent));
            }
        }
        let mut magnitude: i128 = 0;
        let mut exact = true;
        for (i, digit) in self.digits().enumerate() {
            let digit = i128::from(digit);
            // The decimal exponent of this digit's last decimal place after scaling.
            let exponent = (i32::from(self.weight) - i32::try_from(i).ok()?) * DEC_DIGITS + scale;
            if digit == 0 {
                continue;
            }
            if exponent >= 0 {
                magnitude = magnitude.checked_add(digit.checked_mul(pow10(exponent)?)?)?;
                continue;
            }
            let divisor = pow10(exponent.saturating_neg()).filter(|d| *d < NBASE).unwrap_or(NBASE);
            magnitude = magnitude.checked_add(digit / divisor)?;
            exact &= digit % divisor == 0;
        }
        Some((magnitude, exact))
    }

    /// The numeric `unscaled × 10^-scale`, printed with `scale` digits after the point.
    pub fn from_i128(unscaled: i128, scale: u16) -> Numeric<'static> {
        let sign = if unscaled < 0 { NumericSign::Negative } else { NumericSign::Positive };
        let (digits, weight) = base10000(unscaled.unsigned_abs(), i32::from(scale));
        Numeric { sign, weight, dscale: scale, digits }
    }

    /// Reads a plain decimal text as PostgreSQL prints it: `-12.50`, `NaN`, `Infinity`.
    pub fn parse_text(text: &str) -> Option<NumericBuf> {
        match text {
            "NaN" => return Some(Self::special(NumericSign::NaN)),
            "Infinity" => return Some(Self::special(NumericSign::PositiveInfinity)),
            "-Infinity" => return Some(Self::special(NumericSign::NegativeInfinity)),
            _ => {}
        }
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (NumericSign::Negative, rest),
            None => (NumericSign::Positive, text),
        };
        let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if integer.is_empty() || !integer.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let dscale = u16::try_from(fraction.len()).ok()?;
        let digits = group_by_four(integer, fraction);
        let weight = i32::try_from(integer.len().div_ceil(4)).ok()? - 1;
        Self::stripped(sign, weight, dscale, digits)
    }

    /// The numeric without zero digits at either end.
    fn stripped(sign: NumericSign, weight: i32, dscale: u16, mut digits: Vec<i16>) -> Option<NumericBuf> {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        digits.truncate(digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1));
        let (sign, weight) = match digits.is_empty() {
            true => (NumericSign::Positive, 0),
            false => (sign, i16::try_from(weight - i32::try_from(leading).ok()?).ok()?),
        };
        Some(Numeric { sign, weight, dscale, digits: Digits::Owned(digits) })
    }

    /// Upper bound of the length of the text.
    pub(crate) fn text_size(&self) -> usize {
        let integer = usize::try_from(i32::from(self.weight).saturating_add(1)).unwrap_or(0) * 4;
        integer + usize::from(self.dscale) + 3
    }

    /// The order of PostgreSQL's comparison operators (`cmp_numerics`): NaN is highest and equal to itself, scales do not matter.
    pub fn compare(&self, other: &Numeric<'_>) -> Ordering {
        match (self.sign, other.sign) {
            (NumericSign::Positive, NumericSign::Positive) => self.compare_magnitude(other),
            (NumericSign::Negative, NumericSign::Negative) => other.compare_magnitude(self),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// A number that is never larger for a lower value: where those of two values differ, they are ordered as [`Self::compare`] says.
    /// It is made of the weight and the two highest digits.
    pub fn order_prefix(&self) -> u64 {
        const ZERO: u64 = 1 << 63;
        let magnitude = || {
            let (weight, range) = self.normalized();
            let digit = |at| u64::from(self.digit_in(&range, at).cast_unsigned());
            let above_lowest = u64::from(weight.cast_unsigned() ^ (1 << 15));
            if range.is_empty() { 0 } else { (above_lowest << 32 | digit(0) << 16 | digit(1)) + 1 }
        };
        match self.sign {
            NumericSign::NegativeInfinity => 0,
            NumericSign::Negative => ZERO - magnitude(),
            NumericSign::Positive => ZERO + magnitude(),
            NumericSign::PositiveInfinity => u64::MAX - 1,
            NumericSign::NaN => u64::MAX,
        }
    }

    /// The order of values of different kinds.
    fn rank(&self) -> u8 {
        match self.sign {
            NumericSign::NegativeInfinity => 0,
            NumericSign::Negative if !self.normalized().1.is_empty() => 1,
            NumericSign::Positive if !self.normalized().1.is_empty() => 3,
            NumericSign::Negative | NumericSign::Positive => 2,
            NumericSign::PositiveInfinity => 4,
            NumericSign::NaN => 5,
        }
    }

    fn compare_magnitude(&self, other: &Numeric<'_>) -> Ordering {
        let ((weight, range), (other_weight, other_range)) = (self.normalized(), other.normalized());
        if range.is_empty() || other_range.is_empty() {
            return other_range.is_empty().cmp(&range.is_empty());
        }
        weight.cmp(&other_weight).then_with(|| {
            let digits = range.len().max(other_range.len());
            let pairs = (0..digits).map(|at| (self.digit_in(&range, at), other.digit_in(&other_range, at)));
            pairs.map(|(ours, theirs)| ours.cmp(&theirs)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        })
    }

    fn digit_in(&self, range: &std::ops::Range<usize>, at: usize) -> i16 {
        if at < range.len() { self.digits.get(range.start + at) } else { 0 }
    }

    /// The weight, and the range of digits without zeros at either end: the same for every spelling of a value.
    pub(crate) fn normalized(&self) -> (i16, std::ops::Range<usize>) {
        let len = self.digits.len();
        // As PostgreSQL stores them.
        if len > 0 && self.digits.get(0) != 0 && self.digits.get(len - 1) != 0 {
            return (self.weight, 0..len);
        }
        let leading = (0..len).take_while(|i| self.digits.get(*i) == 0).count();
        if leading == len {
            return (0, 0..0);
        }
        let trailing = (leading..len).rev().take_while(|i| self.digits.get(*i) == 0).count();
        let weight = i32::from(self.weight) - i32::try_from(leading).unwrap_or(i32::MAX);
        (i16::try_from(weight).unwrap_or(i16::MIN), leading..len - trailing)
    }
}

/// A number below 10^16 times 10^exponent, truncated, and whether nothing was cut off.
fn shifted(number: i64, exponent: i32) -> (i128, bool) {
    let power = 10i64.pow(exponent.unsigned_abs());
    if exponent >= 0 {
        return (i128::from(number) * i128::from(power), true);
    }
    ((number / power).into(), number % power == 0)
}

impl PartialEq for Numeric<'_> {
    /// The same representation, display scale included.
    fn eq(&self, other: &Self) -> bool {
        let ((weight, range), (other_weight, other_range)) = (self.normalized(), other.normalized());
        self.sign == other.sign
            && weight == other_weight
            && self.dscale == other.dscale
            && range.map(|i| self.digits.get(i)).eq(other_range.map(|i| other.digits.get(i)))
    }
}

impl fmt::Display for Numeric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.print(&mut text);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Numeric<'_> {
    /// Appends the text of `numeric_out`.
    pub(super) fn print(&self, out: &mut Vec<u8>) {
        match self.sign {
            NumericSign::NaN => return out.extend_from_slice(b"NaN"),
            NumericSign::PositiveInfinity => return out.extend_from_slice(b"Infinity"),
            NumericSign::NegativeInfinity => return out.extend_from_slice(b"-Infinity"),
            NumericSign::Negative => out.push(b'-'),
            NumericSign::Positive => {}
        }
        match self.short_integer() {
            Some(integer) => out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes()),
            None => self.print_integer(out),
        }
        if self.dscale > 0 {
            self.print_fraction(out);
        }
    }

    /// The digits before the point as a number, where they are few: most of those in documents are.
    fn short_integer(&self) -> Option<u64> {
        let places = usize::try_from(self.weight).ok().map(|weight| weight + 1).filter(|places| *places <= SHORT)?;
        let digits = (0..places).map(|at| u64::from(self.digits.get(at).unsigned_abs()));
        Some(digits.fold(0, |joined, digit| joined * NBASE_64.unsigned_abs() + digit))
    }

    /// The digit of weight `weight`, zero where none is stored.
    fn digit_at(&self, weight: i32) -> i16 {
        usize::try_from(i32::from(self.weight) - weight).map_or(0, |i| self.digits.get(i))
    }

    fn print_integer(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for weight in (0..=i32::from(self.weight)).rev() {
            let group = decimal(self.digit_at(weight));
            if out.len() > start {
                out.extend_from_slice(&group);
                continue;
            }
            // All four places are written, and those after the digits taken back: a copy of a length that is known needs no call.
            let digits = u32::from_be_bytes(group);
            let zeros = (digits ^ u32::from_be_bytes(*b"0000")).leading_zeros() / u8::BITS;
            out.extend_from_slice(&digits.checked_shl(zeros * u8::BITS).unwrap_or(0).to_be_bytes());
            out.truncate(out.len() - zeros as usize);
        }
        if out.len() == start {
            out.push(b'0');
        }
    }

    fn print_fraction(&self, out: &mut Vec<u8>) {
        let mut left = usize::from(self.dscale);
        out.push(b'.');
        let mut weight = -1;
        while left > 0 {
            let group = decimal(self.digit_at(weight));
            let shown = left.min(group.len());
            out.extend_from_slice(group.get(..shown).unwrap_or_default());
            left -= shown;
            weight -= 1;
        }
    }
}

/// The four decimal digits of a base-10000 digit.
fn decimal(digit: i16) -> [u8; 4] {
    let digit = digit.unsigned_abs();
    [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| b'0' + digit as u8)
}

/// Powers of ten that 128 bits hold.
const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// A power of ten that 128 bits hold.
pub(super) fn pow10(exponent: i32) -> Option<i128> {
    POWERS.get(usize::try_from(exponent).ok()?).copied()
}

/// `magnitude × 10^-scale` in base 10000 without zeros at either end, and the weight of the first digit.
fn base10000(magnitude: u128, scale: i32) -> (Digits<'static>, i16) {
    // Base-10000 digits begin at the decimal point, so the lowest may hold fewer decimals than four.
    let padding = (DEC_DIGITS - scale % DEC_DIGITS) % DEC_DIGITS;
    let mut ascending = [0i16; 12];
    let len = match u64::try_from(magnitude) {
        Ok(magnitude) => split_64(magnitude, padding, &mut ascending),
        Err(_) => split_128(magnitude, padding, &mut ascending),
    };
    let zeros = ascending[..len].iter().take_while(|digit| **digit == 0).count();
    if zeros == len {
        return (Digits::Inline { len: 0, buf: [0; 12] }, 0);
    }
    let mut buf = [0; 12];
    for (to, from) in buf.iter_mut().zip(ascending[zeros..len].iter().rev()) {
        *to = *from;
    }
    let weight = i32::try_from(len).unwrap_or(0) - 1 - (scale + padding) / DEC_DIGITS;
    let digits = Digits::Inline { len: u8::try_from(len - zeros).unwrap_or(0), buf };
    (digits, i16::try_from(weight).unwrap_or(0))
}

/// Digits from the lowest on, of which so many decimals are missing; how many. Most values fit 64 bits, and division by a constant is a
/// multiplication there.
fn split_64(magnitude: u64, padding: i32, ascending: &mut [i16; 12]) -> usize {
    let (rest, lowest) = match padding {
        0 => (magnitude / 10_000, magnitude % 10_000),
        1 => (magnitude / 1000, magnitude % 1000 * 10),
        2 => (magnitude / 100, magnitude % 100 * 100),
        _ => (magnitude / 10, magnitude % 10 * 1000),
    };
    ascending[0] = lowest as i16;
    split_rest(rest, 1, ascending)
}

fn split_128(magnitude: u128, padding: i32, ascending: &mut [i16; 12]) -> usize {
    let shift = 10_u128.pow(padding.unsigned_abs());
    let (mut rest, lowest) = (magnitude / (10_000 / shift), magnitude % (10_000 / shift));
    ascending[0] = (lowest * shift) as i16;
    let mut len = 1;
    loop {
        match u64::try_from(rest) {
            Ok(rest) => return split_rest(rest, len, ascending),
            Err(_) => ascending[len] = (rest % 10_000) as i16,
        }
        rest /= 10_000;
        len += 1;
    }
}

/// The digits after the `len` lowest; how many there are then.
fn split_rest(mut rest: u64, mut len: usize, ascending: &mut [i16; 12]) -> usize {
    while rest != 0 && len < ascending.len() {
        ascending[len] = (rest % 10_000) as i16;
        rest /= 10_000;
        len += 1;
    }
    len
}

fn group_by_four(integer: &str, fraction: &str) -> Vec<i16> {
    let pad_left = (4 - integer.len() % 4) % 4;
    let pad_right = (4 - fraction.len() % 4) % 4;
    let padded = std::iter::repeat_n(b'0', pad_left)
        .chain(integer.bytes())
        .chain(fraction.bytes())
        .chain(std::iter::repeat_n(b'0', pad_right));
    let mut digits = Vec::with_capacity((integer.len() + fraction.len()) / 4 + 2);
    let mut digit = 0i16;
    for (i, byte) in padded.enumerate() {
        digit = digit * 10 + i16::from(byte - b'0');
        if i % 4 == 3 {
            digits.push(digit);
            digit = 0;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> NumericBuf {
        Numeric::parse_text(text).unwrap()
    }

    #[test]
    fn texts_of_numeric_out() {
        let texts =
            ["0", "0.00", "-0.001", "1", "10000", "99990000", "12345678.90", "0.00001234", "-1000000000000.5", "NaN"];
        for text in texts {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse("-Infinity").sign, NumericSign::NegativeInfinity);
        for bad in ["", "-", ".5", "1e5", "1.2.3", " 1", "+1"] {
            assert!(Numeric::parse_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn digits_are_those_of_numeric_c() {
        let digits = |n: &NumericBuf| (n.weight, n.digits().collect::<Vec<_>>());
        assert_eq!(digits(&Numeric::from_i128(1_234_567, 2)), (1, vec![1, 2345, 6700]));
        assert_eq!(digits(&Numeric::from_i128(100_000_000, 4)), (1, vec![1]));
        assert_eq!(digits(&Numeric::from_i128(5, 7)), (-2, vec![50]));
        assert_eq!(digits(&Numeric::from_i128(0, 3)), (0, vec![]));
    }

    #[test]
    fn digits_in_a_varlena_may_be_unaligned() {
        let mut bytes = vec![0xff];
        for digit in [1i16, 2345, 6700] {
            bytes.extend_from_slice(&digit.to_ne_bytes());
        }
        let digits = Digits::Bytes(&bytes[1..]);
        let numeric = Numeric { sign: NumericSign::Negative, weight: 1, dscale: 2, digits };
        assert_eq!((numeric.to_string().as_str(), numeric.to_i128(2)), ("-12345.67", Some(-1_234_567)));
    }

    #[test]
    fn floors_tell_what_was_cut_off() {
        assert_eq!(parse("1.25").floor_at(1), Some((12, false)));
        assert_eq!(parse("-1.25").floor_at(1), Some((-13, false)));
        assert_eq!(parse("-1.20").floor_at(1), Some((-12, true)));
        assert_eq!(parse("0.00000001").floor_at(0), Some((0, false)));
        assert_eq!(parse("12000").to_i128(-3), Some(12));
        assert_eq!(parse(&"9".repeat(60)).floor_at(0), None);
        assert_eq!(parse("NaN").to_i128(0), None);
    }

    #[test]
    fn order_of_numeric_c() {
        let ascending = [
            "-Infinity",
            "-10000.5",
            "-1.20",
            "-1.2",
            "-0.0001",
            "0.00",
            "0",
            "0.00009",
            "0.5",
            "1",
            "1.0",
            "10000",
            "Infinity",
            "NaN",
        ];
        let equal = [("-1.20", "-1.2"), ("0.00", "0"), ("1", "1.0")];
        for (i, low) in ascending.iter().enumerate() {
            assert_eq!(parse(low).compare(&parse(low)), Ordering::Equal);
            for high in &ascending[i + 1..] {
                let wanted = if equal.contains(&(low, high)) { Ordering::Equal } else { Ordering::Less };
                assert_eq!(parse(low).compare(&parse(high)), wanted, "{low} {high}");
                assert_eq!(parse(high).compare(&parse(low)), wanted.reverse(), "{high} {low}");
                assert!(parse(low).order_prefix() <= parse(high).order_prefix(), "{low} {high}");
            }
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_integers(a in any::<i128>(), b in any::<i128>(), shift in 0u32..127, scale in 0u16..40) {
            let (a, b) = (a >> shift, b >> shift);
            prop_assert_eq!(Numeric::from_i128(a, scale).compare(&Numeric::from_i128(b, scale)), a.cmp(&b));
            let prefixes = Numeric::from_i128(a, scale).order_prefix().cmp(&Numeric::from_i128(b, scale).order_prefix());
            prop_assert!(prefixes.is_eq() || prefixes == a.cmp(&b));
        }

        #[test]
        fn integers_come_back(unscaled in any::<i128>(), shift in 0u32..127, scale in 0u16..40) {
            let unscaled = unscaled >> shift;
            let numeric = Numeric::from_i128(unscaled, scale);
            prop_assert_eq!(numeric.to_i128(scale as i16), Some(unscaled));
            let text = numeric.to_string();
            prop_assert_eq!(text.replace(['.', '-'], "").parse::<u128>().unwrap(), unscaled.unsigned_abs());
            prop_assert_eq!(parse(&text), numeric);
        }

        /// Few digits take a shorter way than many: zeros behind them do not change what comes out.
        #[test]
        fn few_digits_as_many(digits in prop::collection::vec(0i16..10_000, 1..=4), weight in -6i16..8, scale in -8i16..24) {
            let of = |digits: Vec<i16>| {
                Numeric { sign: NumericSign::Negative, weight, dscale: 0, digits: Digits::Owned(digits) }.floor_at(scale)
            };
            prop_assert_eq!(of(digits.clone()), of([digits, vec![0; 5]].concat()));
        }
    }
}
