//! The text of a sidecar: what the type's output function printed, in UTF-8 where that is possible.
//!
//! Parquet text is UTF-8. Text in another database encoding that UTF-8 cannot represent is written as `\\x` and the
//! hexadecimal digits of its bytes in that encoding. No type that gets into a sidecar prints a text that begins so.

use super::guard::corrupt;
use crate::Result;

const HEX_MARK: &str = "\\x";

/// The sidecar's text for a text in the database encoding that UTF-8 cannot represent.
pub fn sidecar_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(HEX_MARK.len() + bytes.len() * 2);
    text.push_str(HEX_MARK);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

/// The bytes in the database encoding that [`sidecar_text`] wrote; `None` for text that is UTF-8.
pub fn sidecar_bytes(text: &str) -> Result<Option<Vec<u8>>> {
    let Some(digits) = text.strip_prefix(HEX_MARK) else { return Ok(None) };
    let digits: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(|| corrupt("sidecar is damaged"))?;
    let byte = |pair: &[u8]| pair.iter().fold(0u8, |byte, digit| (byte << 4) | digit);
    Ok(Some(digits.chunks_exact(2).map(byte).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(sidecar_bytes(&sidecar_text(&bytes)).unwrap().as_deref(), Some(bytes.as_slice()));
        assert_eq!(sidecar_bytes(&sidecar_text(b"")).unwrap().as_deref(), Some(&[][..]));
    }

    #[test]
    fn other_text_is_left_alone_and_damage_is_found() {
        assert_eq!(sidecar_bytes("{\\xff}").unwrap(), None);
        assert!(sidecar_bytes("\\xf").is_err());
        assert!(sidecar_bytes("\\xzz").is_err());
    }
}
