//! Identifiers as segments of object keys: readable when plain, unambiguous always.

use std::fmt::Write;
use twox_hash::XxHash3_128;

/// Identifiers longer than this once encoded are cut and get a hash; two of them and a version fit in 255 bytes.
const MAX_ENCODED: usize = 110;

/// Percent-encodes everything but `A-Z a-z 0-9 _ -` and hides a leading `_`, which engines would skip. A dot is
/// encoded too, for it separates schema, table and version.
pub fn encode_ident(identifier: &str) -> String {
    let mut encoded = String::with_capacity(identifier.len());
    for (index, byte) in identifier.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'_' && index > 0);
        if plain {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    shorten(encoded, identifier)
}

fn shorten(mut encoded: String, identifier: &str) -> String {
    if encoded.len() <= MAX_ENCODED {
        return encoded;
    }
    let hash = format!("~{:032x}", XxHash3_128::oneshot(identifier.as_bytes()));
    let mut keep = MAX_ENCODED - hash.len();
    // Never cut an escape in two.
    while encoded.as_bytes()[keep.saturating_sub(2)..keep].contains(&b'%') {
        keep -= 1;
    }
    encoded.truncate(keep);
    encoded + &hash
}

/// The identifier again, or `None` when it was cut or is no encoded identifier.
pub fn decode_ident(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let identifier = String::from_utf8(bytes).ok()?;
    (encode_ident(&identifier) == segment).then_some(identifier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_stay_readable() {
        assert_eq!(encode_ident("orders_2024-01"), "orders_2024-01");
        assert_eq!(encode_ident("a.b c/d%"), "a%2Eb%20c%2Fd%25");
        assert_eq!(encode_ident("_hidden"), "%5Fhidden");
        assert_eq!(encode_ident(".."), "%2E%2E");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (one, two) = ("é".repeat(31) + "a", "é".repeat(31) + "b");
        assert_ne!(encode_ident(&one), encode_ident(&two));
        assert!(encode_ident(&one).len() <= MAX_ENCODED);
        assert_eq!(decode_ident(&encode_ident(&one)), None);
    }

    proptest! {
        #[test]
        fn encoding_is_safe_and_reversible(identifier in "\\PC{1,63}") {
            let encoded = encode_ident(&identifier);
            prop_assert!(encoded.len() <= MAX_ENCODED);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-%~".contains(&b)));
            prop_assert!(crate::store::validate_key(&encoded).is_ok());
            if !encoded.contains('~') {
                prop_assert_eq!(decode_ident(&encoded), Some(identifier));
            }
        }

        #[test]
        fn different_names_have_different_segments(one in "\\PC{1,40}", two in "\\PC{1,40}") {
            prop_assert_eq!(one == two, encode_ident(&one) == encode_ident(&two));
        }
    }
}
