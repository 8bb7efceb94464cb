//! Document to text.

use super::{
    ARRAY, CONTAINER, COUNT, DEEPEST, FALSE, HAS_OFFSET, KIND, NULL, NUMERIC, OBJECT, OFFSET_OR_LENGTH, SCALAR, STRING,
    TRUE, WORD,
};
use crate::codec::numeric_disk;

/// Appends the text of a document, of which `payload` is the varlena's content, in the database's encoding. `None`, and
/// `out` as it was, for what is not understood.
pub fn print(payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let before = out.len();
    let printed = Container::parse(payload).and_then(|root| root.print(out, 0));
    if printed.is_none() {
        out.truncate(before);
    }
    printed
}

/// An array or an object: its header, an entry for each key and value, and their bytes.
#[derive(Clone, Copy)]
struct Container<'a> {
    header: u32,
    entries: &'a [u8],
    data: &'a [u8],
}

impl<'a> Container<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<WORD>()?;
        let header = u32::from_ne_bytes(*header);
        let count = (header & COUNT) as usize;
        let entries = if header & OBJECT != 0 { count.checked_mul(2)? } else { count };
        let (entries, data) = rest.split_at_checked(entries.checked_mul(WORD)?)?;
        Some(Self { header, entries, data })
    }

    fn count(self) -> usize {
        (self.header & COUNT) as usize
    }

    fn print(self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match self.header & (SCALAR | OBJECT | ARRAY) {
            OBJECT => self.print_object(out, depth),
            ARRAY => {
                out.push(b'[');
                self.print_elements(out, depth)?;
                out.push(b']');
                Some(())
            }
            // A value that is no container is kept as an array of one element.
            kind if kind == ARRAY | SCALAR && self.count() == 1 => self.print_elements(out, depth),
            _ => None,
        }
    }

    fn print_elements(self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        let mut elements = Entries::new(self);
        for at in 0..self.count() {
            if at > 0 {
                out.extend_from_slice(b", ");
            }
            elements.next()?.print(out, depth)?;
        }
        Some(())
    }

    /// All keys come before all values.
    fn print_object(self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        let (mut keys, mut values) = (Entries::new(self), Entries::new(self));
        for _ in 0..self.count() {
            values.skip()?;
        }
        out.push(b'{');
        for at in 0..self.count() {
            if at > 0 {
                out.extend_from_slice(b", ");
            }
            let key = keys.next()?;
            if key.kind != STRING {
                return None;
            }
            print_string(key.bytes, out);
            out.extend_from_slice(b": ");
            values.next()?.print(out, depth)?;
        }
        out.push(b'}');
        Some(())
    }
}

/// The entries of a container, one after the other.
struct Entries<'a> {
    container: Container<'a>,
    at: usize,
    /// Where the next value begins in the data.
    begin: usize,
}

impl<'a> Entries<'a> {
    fn new(container: Container<'a>) -> Self {
        Self { container, at: 0, begin: 0 }
    }

    /// The kind of the next entry, and where its bytes are.
    fn advance(&mut self) -> Option<(u32, usize, usize)> {
        let word = self.container.entries.get(self.at * WORD..)?.first_chunk::<WORD>()?;
        let entry = u32::from_ne_bytes(*word);
        let begin = self.begin;
        let size = (entry & OFFSET_OR_LENGTH) as usize;
        let end = if entry & HAS_OFFSET != 0 { size } else { begin.checked_add(size)? };
        self.at += 1;
        self.begin = end;
        Some((entry & KIND, begin, end))
    }

    fn skip(&mut self) -> Option<()> {
        self.advance().map(drop)
    }

    fn next(&mut self) -> Option<Element<'a>> {
        let (kind, begin, end) = self.advance()?;
        // Numbers and containers are aligned: their padding is before them, and counted in their length.
        let begin = if matches!(kind, NUMERIC | CONTAINER) { begin.next_multiple_of(WORD) } else { begin };
        Some(Element { kind, bytes: self.container.data.get(begin..end)? })
    }
}

struct Element<'a> {
    kind: u32,
    bytes: &'a [u8],
}

impl Element<'_> {
    fn print(&self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        match self.kind {
            STRING => print_string(self.bytes, out),
            NUMERIC => print_number(self.bytes, out)?,
            FALSE => out.extend_from_slice(b"false"),
            TRUE => out.extend_from_slice(b"true"),
            NULL => out.extend_from_slice(b"null"),
            CONTAINER => Container::parse(self.bytes)?.print(out, depth + 1)?,
            _ => return None,
        }
        Some(())
    }
}

/// A numeric with its length word, which is never a short one here.
fn print_number(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (_, payload) = bytes.split_first_chunk::<WORD>()?;
    let number = numeric_disk::parse(payload);
    if !number.is_finite() {
        return None;
    }
    number.print(out);
    Some(())
}

/// As `escape_json` does: the encodings of a server have ASCII bytes for ASCII characters only.
fn print_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        print_special(*byte, out);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn print_special(byte: u8, out: &mut Vec<u8>) {
    let short: &[u8] = match byte {
        8 => b"\\b",
        12 => b"\\f",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        b'\t' => b"\\t",
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digit = |value: u8| HEX.get(usize::from(value & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            return;
        }
    };
    out.extend_from_slice(short);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Numeric;

    fn words(words: &[u32], tail: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).chain(tail.iter().copied()).collect()
    }

    fn printed(payload: &[u8]) -> Option<String> {
        let mut out = b"before".to_vec();
        let done = print(payload, &mut out);
        assert!(out.starts_with(b"before") && (done.is_some() || out.len() == 6));
        done.and_then(|()| String::from_utf8(out.split_off(6)).ok())
    }

    /// `{"a": [true, null], "b": "x\n"}`, as PostgreSQL lays it out.
    fn document() -> Vec<u8> {
        let array = words(&[ARRAY | 2, TRUE, NULL], b"");
        let mut data = b"ab".to_vec();
        data.extend([0, 0]); // the array is aligned
        data.extend(&array);
        data.extend(b"x\n");
        let entries =
            [OBJECT | 2, STRING | HAS_OFFSET | 1, STRING | 1, CONTAINER | (array.len() as u32 + 2), STRING | 2];
        words(&entries, &data)
    }

    #[test]
    fn an_object_with_an_array_is_printed() {
        assert_eq!(printed(&document()).as_deref(), Some(r#"{"a": [true, null], "b": "x\n"}"#));
    }

    #[test]
    fn scalars_and_empty_containers_are_printed() {
        assert_eq!(printed(&words(&[ARRAY | SCALAR | 1, NULL], b"")).as_deref(), Some("null"));
        assert_eq!(printed(&words(&[ARRAY | SCALAR | 1, STRING | 3], b"a\"\x01")).as_deref(), Some(r#""a\"\u0001""#));
        assert_eq!(printed(&words(&[ARRAY], b"")).as_deref(), Some("[]"));
        assert_eq!(printed(&words(&[OBJECT], b"")).as_deref(), Some("{}"));
    }

    #[test]
    fn numbers_are_printed_with_their_scale() {
        let mut payload = Vec::new();
        numeric_disk::build(&Numeric::from_i128(-1250, 3), &mut payload);
        let mut number = (payload.len() as u32 + 4).to_ne_bytes().to_vec();
        number.extend(&payload);
        let document = words(&[ARRAY | SCALAR | 1, NUMERIC | number.len() as u32], &number);
        assert_eq!(printed(&document).as_deref(), Some("-1.250"));
    }

    proptest! {
        #[test]
        fn damaged_documents_are_not_understood_or_printed(at in 0usize..60, byte: u8, length in 0usize..60) {
            let mut document = document();
            if let Some(place) = document.get_mut(at) {
                *place = byte;
            }
            document.truncate(length);
            let _ = printed_lossy(&document);
        }
    }

    fn printed_lossy(payload: &[u8]) -> usize {
        let mut out = Vec::new();
        print(payload, &mut out).map_or(0, |()| out.len())
    }
}
