//! Text to document. What PostgreSQL's output function would not print is not understood: other blanks, escapes or orders of keys.

use std::ops::Range;

use super::{
    ARRAY, CONTAINER, COUNT, DEEPEST, FALSE, HAS_OFFSET, KIND, NULL, NUMERIC, OBJECT, OFFSET_OR_LENGTH, OFFSET_STRIDE,
    SCALAR, STRING, TRUE, WORD,
};
use crate::codec::numeric::Numeric;
use crate::codec::numeric_disk;

/// Digits of a number that surely fits into 128 bits, and into 64.
const NUMBER_DIGITS: usize = 37;
const SHORT_DIGITS: usize = 18;

/// Makes documents of their texts; what it needs for that is kept for the next one.
#[derive(Debug, Default)]
pub struct Builder {
    /// The values in the order of the text. What a container holds follows it, in an object keys and values by turns.
    tokens: Vec<Token>,
    number: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Token {
    /// Between its quotes.
    Text {
        begin: usize,
        end: usize,
        has_escapes: bool,
    },
    Number {
        begin: usize,
        end: usize,
    },
    Word(u32),
    /// With the number of its elements, or of its pairs, and the token after all that it holds.
    Container {
        kind: u32,
        count: usize,
        end: usize,
    },
}

impl Builder {
    /// Makes `payload` the varlena's content of the document whose text this is. `None` for what is not understood; then `payload`
    /// holds nothing that is of use.
    pub fn build(&mut self, text: &str, payload: &mut Vec<u8>) -> Option<()> {
        self.tokens.clear();
        payload.clear();
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        reader.value(&mut self.tokens, 0)?;
        if reader.at != text.len() {
            return None;
        }
        let mut writer = Writer { text: text.as_bytes(), tokens: &self.tokens, number: &mut self.number, out: payload };
        match writer.tokens.first()? {
            Token::Container { .. } => writer.value(0).map(drop),
            _ => writer.scalar(),
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, expected: &[u8]) -> Option<()> {
        let found = self.text.get(self.at..)?.starts_with(expected);
        self.at += expected.len();
        found.then_some(())
    }

    fn value(&mut self, tokens: &mut Vec<Token>, depth: u32) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(tokens),
            b'[' => self.container(tokens, depth, ARRAY, b']'),
            b'{' => self.container(tokens, depth, OBJECT, b'}'),
            b't' => self.word(tokens, b"true", TRUE),
            b'f' => self.word(tokens, b"false", FALSE),
            b'n' => self.word(tokens, b"null", NULL),
            _ => self.number(tokens),
        }
    }

    fn word(&mut self, tokens: &mut Vec<Token>, text: &[u8], kind: u32) -> Option<()> {
        tokens.push(Token::Word(kind));
        self.take(text)
    }

    fn container(&mut self, tokens: &mut Vec<Token>, depth: u32, kind: u32, close: u8) -> Option<()> {
        if depth >= DEEPEST {
            return None;
        }
        let at = tokens.len();
        tokens.push(Token::Container { kind, count: 0, end: 0 });
        self.at += 1;
        let mut held = 0;
        while self.peek()? != close {
            if held > 0 {
                self.take(b", ")?;
            }
            if kind == OBJECT {
                self.string(tokens)?;
                self.take(b": ")?;
            }
            self.value(tokens, depth + 1)?;
            held += 1;
        }
        self.at += 1;
        let after = tokens.len();
        if let Some(Token::Container { count, end, .. }) = tokens.get_mut(at) {
            (*count, *end) = (held, after);
        }
        Some(())
    }

    fn string(&mut self, tokens: &mut Vec<Token>) -> Option<()> {
        self.take(b"\"")?;
        let (begin, mut has_escapes) = (self.at, false);
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 2;
                }
                0..b' ' => return None,
                _ => self.at += 1,
            }
        }
        tokens.push(Token::Text { begin, end: self.at, has_escapes });
        self.at += 1;
        Some(())
    }

    /// `-12.50`: no exponent, no zero before others, and zero has no sign.
    fn number(&mut self, tokens: &mut Vec<Token>) -> Option<()> {
        let begin = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let integer = self.digits();
        if integer.is_empty() || integer.len() > 1 && self.text.get(integer.start) == Some(&b'0') {
            return None;
        }
        let mut digits = integer.len();
        if self.peek() == Some(b'.') {
            self.at += 1;
            let fraction = self.digits();
            if fraction.is_empty() {
                return None;
            }
            digits += fraction.len();
        }
        tokens.push(Token::Number { begin, end: self.at });
        (digits <= NUMBER_DIGITS).then_some(())
    }

    fn digits(&mut self) -> Range<usize> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        begin..self.at
    }
}

struct Writer<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
    number: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
}

/// The entries of a container that is being written.
struct Entries {
    /// Where the next one is written.
    at: usize,
    written: usize,
    /// Bytes of the values so far.
    total: usize,
}

impl Writer<'_> {
    /// A document that is no container is an array of one element.
    fn scalar(&mut self) -> Option<()> {
        self.word(ARRAY | SCALAR | 1);
        let mut entries = self.entries(1);
        self.entry(&mut entries, 0)
    }

    fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(WORD), 0);
    }

    fn entries(&mut self, count: usize) -> Entries {
        let at = self.out.len();
        self.out.resize(at + count * WORD, 0);
        Entries { at, written: 0, total: 0 }
    }

    /// Writes a value and its entry.
    fn entry(&mut self, entries: &mut Entries, token: usize) -> Option<()> {
        let begin = self.out.len();
        let kind = self.value(token)?;
        let length = self.out.len() - begin;
        entries.total += length;
        let has_offset = entries.written.is_multiple_of(OFFSET_STRIDE);
        let size = u32::try_from(if has_offset { entries.total } else { length }).ok()?;
        if entries.total > OFFSET_OR_LENGTH as usize {
            return None;
        }
        let entry = (kind & KIND) | size | if has_offset { HAS_OFFSET } else { 0 };
        self.out.get_mut(entries.at..entries.at + WORD)?.copy_from_slice(&entry.to_ne_bytes());
        entries.at += WORD;
        entries.written += 1;
        Some(())
    }

    /// Writes the bytes of a value; its kind.
    fn value(&mut self, token: usize) -> Option<u32> {
        match *self.tokens.get(token)? {
            Token::Word(kind) => Some(kind),
            Token::Text { begin, end, has_escapes: false } => {
                self.out.extend_from_slice(self.text.get(begin..end)?);
                Some(STRING)
            }
            Token::Text { begin, end, .. } => unescape(self.text.get(begin..end)?, self.out).map(|()| STRING),
            Token::Number { begin, end } => self.numeric(self.text.get(begin..end)?),
            Token::Container { kind, count, .. } => {
                self.pad();
                self.word(kind | u32::try_from(count).ok().filter(|count| *count <= COUNT)?);
                match kind {
                    OBJECT => self.pairs(token, count)?,
                    _ => self.elements(token, count)?,
                }
                Some(CONTAINER)
            }
        }
    }

    fn numeric(&mut self, text: &[u8]) -> Option<u32> {
        let (mut short, mut long, mut digits) = (0_u64, 0_i128, 0);
        let (mut scale, mut negative) = (None, false);
        for byte in text {
            match byte {
                b'-' => negative = true,
                b'.' => scale = Some(0),
                digit => {
                    // 128 bits are slow, and few numbers need them.
                    match digits {
                        ..SHORT_DIGITS => short = short * 10 + u64::from(digit - b'0'),
                        SHORT_DIGITS => long = i128::from(short) * 10 + i128::from(digit - b'0'),
                        _ => long = long * 10 + i128::from(digit - b'0'),
                    }
                    digits += 1;
                    scale = scale.map(|scale| scale + 1);
                }
            }
        }
        let unscaled = if digits > SHORT_DIGITS { long } else { i128::from(short) };
        if negative && unscaled == 0 {
            return None;
        }
        let number = Numeric::from_i128(if negative { -unscaled } else { unscaled }, scale.unwrap_or(0));
        numeric_disk::build(&number, self.number);
        self.pad();
        let size = u32::try_from(self.number.len() + WORD).ok()?;
        self.word(if cfg!(target_endian = "little") { size << 2 } else { size });
        self.out.extend_from_slice(self.number);
        Some(NUMERIC)
    }

    fn elements(&mut self, container: usize, count: usize) -> Option<()> {
        let mut entries = self.entries(count);
        let mut token = container + 1;
        for _ in 0..count {
            self.entry(&mut entries, token)?;
            token = self.after(token)?;
        }
        Some(())
    }

    /// All keys, shorter ones first, then all values.
    fn pairs(&mut self, container: usize, count: usize) -> Option<()> {
        let mut entries = self.entries(count * 2);
        let mut token = container + 1;
        let mut before: Option<Range<usize>> = None;
        for _ in 0..count {
            let begin = self.out.len();
            self.entry(&mut entries, token)?;
            let key = begin..self.out.len();
            if before.is_some_and(|before| !self.ascends(before, key.clone())) {
                return None;
            }
            before = Some(key);
            token = self.after(token + 1)?;
        }
        token = container + 1;
        for _ in 0..count {
            self.entry(&mut entries, token + 1)?;
            token = self.after(token + 1)?;
        }
        Some(())
    }

    fn ascends(&self, before: Range<usize>, key: Range<usize>) -> bool {
        (before.len(), self.out.get(before)) < (key.len(), self.out.get(key))
    }

    /// The token after this one and all that it holds.
    fn after(&self, token: usize) -> Option<usize> {
        Some(match self.tokens.get(token)? {
            Token::Container { end, .. } => *end,
            _ => token + 1,
        })
    }
}

/// What `escape_json` escaped.
fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escaped) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (byte, length) = match escaped.get(1)? {
            b'b' => (8, 2),
            b'f' => (12, 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            byte @ (b'"' | b'\\') => (*byte, 2),
            b'u' => (control_character(escaped.get(2..6)?)?, 6),
            _ => return None,
        };
        out.push(byte);
        rest = escaped.get(length..)?;
    }
    out.extend_from_slice(rest);
    Some(())
}

/// Of `\u001f` the `001f`; those that have an escape of one letter are never written so, and there is no NUL.
fn control_character(hex: &[u8]) -> Option<u8> {
    let [b'0', b'0', high @ (b'0' | b'1'), low] = hex else { return None };
    let low = match low {
        b'0'..=b'9' => low - b'0',
        b'a'..=b'f' => low - b'a' + 10,
        _ => return None,
    };
    let byte = (high - b'0') * 16 + low;
    (!matches!(byte, 0 | 8 | 9 | 10 | 12 | 13)).then_some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::print;
    use super::*;

    fn built(text: &str) -> Option<Vec<u8>> {
        let mut payload = b"old".to_vec();
        Builder::default().build(text, &mut payload).map(|()| payload)
    }

    fn printed(payload: &[u8]) -> String {
        let mut out = Vec::new();
        print(payload, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn words(payload: &[u8]) -> Vec<u32> {
        payload.chunks(WORD).map(|word| word.try_into().map(u32::from_ne_bytes).unwrap_or(0)).collect()
    }

    /// As `convertJsonb` lays them out.
    #[test]
    fn documents_are_laid_out_as_postgresql_does() {
        assert_eq!(words(&built("null").unwrap()), [ARRAY | SCALAR | 1, NULL | HAS_OFFSET]);
        assert_eq!(words(&built("[]").unwrap()), [ARRAY]);
        assert_eq!(words(&built("[true, false]").unwrap()), [ARRAY | 2, TRUE | HAS_OFFSET, FALSE]);
        let array = words(&built(r#"{"a": [true, null], "b": "xy"}"#).unwrap());
        assert_eq!(array[..5], [OBJECT | 2, STRING | HAS_OFFSET | 1, STRING | 1, CONTAINER | 14, STRING | 2]);
        assert_eq!(array[6..9], [ARRAY | 2, TRUE | HAS_OFFSET, NULL]);
    }

    #[test]
    fn what_is_never_printed_is_not_understood() {
        for text in [
            "",
            " 1",
            "1 ",
            "01",
            "-0",
            "-0.0",
            "1.",
            ".5",
            "1e5",
            "+1",
            "tru",
            "truefalse",
            "[1,2]",
            "[1, ]",
            "[1, 2",
            "[,]",
            "{\"a\":1}",
            r#"{"b": 1, "a": 2}"#,
            r#"{"a": 1, "a": 2}"#,
            r#"{"aa": 1, "b": 2}"#,
            r#"{"a"}"#,
            "{1: 2}",
            r#""a"#,
            r#""\u0041""#,
            r#""\/""#,
            r#""\u000a""#,
            r#""\u0000""#,
            r#""\u001F""#,
            "\"\n\"",
            r#""\"#,
            r#""\u00"#,
            "\"\u{0}\"",
            "[1]]",
            "nul",
            "NaN",
        ] {
            assert_eq!(built(text), None, "{text}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(built(&deep(DEEPEST as usize)).is_some());
        assert_eq!(built(&deep(DEEPEST as usize + 1)), None);
        assert_eq!(built(&"9".repeat(NUMBER_DIGITS + 1)), None);
    }

    /// Texts of documents as PostgreSQL prints them.
    fn document() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            prop::collection::vec(
                prop_oneof![Just('"'), Just('\\'), (1_u8..32).prop_map(char::from), any::<char>()],
                0..6
            )
            .prop_map(|chars| chars.into_iter().filter(|char| *char != '\0').collect::<String>()),
            "[a-c]{0,40}",
        ];
        let number = (prop_oneof![any::<i64>().prop_map(i128::from), -10_i128.pow(37)..10_i128.pow(37)], 0_u16..36)
            .prop_map(|(unscaled, scale)| Numeric::from_i128(unscaled, scale).to_string());
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            number,
            string.clone().prop_map(|text| quoted(&text)),
        ];
        leaf.prop_recursive(5, 200, 70, move |inner| {
            let object = prop::collection::btree_map(string.clone(), inner.clone(), 0..70).prop_map(|pairs| {
                let mut pairs: Vec<_> = pairs.into_iter().collect();
                pairs.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{}: {value}", quoted(key))).collect();
                format!("{{{}}}", pairs.join(", "))
            });
            prop_oneof![prop::collection::vec(inner, 0..70).prop_map(|all| format!("[{}]", all.join(", "))), object]
        })
    }

    fn quoted(text: &str) -> String {
        let mut payload = (ARRAY | SCALAR | 1).to_ne_bytes().to_vec();
        payload.extend((text.len() as u32).to_ne_bytes());
        payload.extend(text.as_bytes());
        printed(&payload)
    }

    proptest! {
        #[test]
        fn what_is_built_is_printed_alike(text in document()) {
            let payload = built(&text);
            prop_assert!(payload.is_some(), "{text}");
            prop_assert_eq!(printed(&payload.unwrap()), text);
        }

        #[test]
        fn only_what_is_printed_alike_is_understood(text in r#"[\[\]{},: "\\aun0-2.tre]{0,14}"#) {
            if let Some(payload) = built(&text) {
                prop_assert_eq!(printed(&payload), text);
            }
        }
    }
}
