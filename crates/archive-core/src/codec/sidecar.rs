//! The text of a sidecar: what the type's output function printed, in UTF-8 where that is possible and says everything.
//!
//! Parquet text is UTF-8. Text in another database encoding that UTF-8 cannot represent is written as `\x` and the
//! hexadecimal digits of its bytes in that encoding. A value whose text does not say everything that it is (PostgreSQL's
//! input function makes another value of it) is written as `\b` and the hexadecimal digits of its bytes in memory, and where these
//! hold OIDs, which mean nothing in another database, a blank and the text. No type that gets into a sidecar prints a text that begins with a backslash.

use super::guard::corrupt;
use crate::Result;

const SERVER_TEXT: &str = "\\x";
const IMAGE: &str = "\\b";

/// What a sidecar holds for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sidecar<'a> {
    /// Text for the type's input function.
    Text(&'a str),
    /// The same, in the encoding of the database.
    ServerText(Vec<u8>),
    /// The value's bytes in memory: a varlena's payload, or as many bytes as the type has. The text is for another database.
    Image(Vec<u8>, Option<&'a str>),
}

impl<'a> Sidecar<'a> {
    /// Reads the text of a sidecar.
    pub fn parse(text: &'a str) -> Result<Self> {
        if let Some(digits) = text.strip_prefix(SERVER_TEXT) {
            return bytes(digits).map(Sidecar::ServerText);
        }
        match text.strip_prefix(IMAGE) {
            Some(rest) => {
                let (digits, text) = rest.split_once(' ').map_or((rest, None), |(digits, text)| (digits, Some(text)));
                bytes(digits).map(|image| Sidecar::Image(image, text))
            }
            None => Ok(Sidecar::Text(text)),
        }
    }

    /// Whether the text of a sidecar stands for bytes that nobody checks when they become a value.
    pub(super) fn is_bytes(text: &str) -> bool {
        text.starts_with(SERVER_TEXT) || text.starts_with(IMAGE)
    }

    /// The sidecar's text for text in the encoding of the database.
    pub fn of_server_text(bytes: &[u8]) -> String {
        marked(SERVER_TEXT, bytes)
    }

    /// The sidecar's text for a value's bytes in memory, and its text for other databases.
    pub fn of_image(bytes: &[u8], text: Option<&str>) -> String {
        let mut sidecar = marked(IMAGE, bytes);
        if let Some(text) = text {
            sidecar.push(' ');
            sidecar.push_str(text);
        }
        sidecar
    }
}

fn marked(mark: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(mark.len() + bytes.len() * 2);
    text.push_str(mark);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(|| corrupt("sidecar is damaged"))?;
    Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0u8, |byte, digit| (byte << 4) | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        for bytes in [bytes.as_slice(), b""] {
            let text = Sidecar::of_server_text(bytes);
            assert_eq!(Sidecar::parse(&text).unwrap(), Sidecar::ServerText(bytes.to_vec()));
            for elsewhere in [None, Some(""), Some("{a b}")] {
                let image = Sidecar::of_image(bytes, elsewhere);
                assert_eq!(Sidecar::parse(&image).unwrap(), Sidecar::Image(bytes.to_vec(), elsewhere));
            }
        }
    }

    #[test]
    fn other_text_is_left_alone_and_damage_is_found() {
        assert_eq!(Sidecar::parse("{\\xff}").unwrap(), Sidecar::Text("{\\xff}"));
        for damaged in ["\\xf", "\\xzz", "\\bf"] {
            assert!(Sidecar::parse(damaged).is_err(), "{damaged}");
        }
    }
}
