//! Which partitions a session reads, by their labels: `HOT*,WARM_2024; ticket=LIVE*`.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

/// The words that labels begin with. ARCHIVE is printed, ARCHIVED read too.
const WORDS: [&str; 5] = ["LIVE", "HOT", "WARM", "ARCHIVE", "ARCHIVED"];
/// The header for all tables; `-<table>` after it names one.
const HEADER: &str = "x-data-partition";

/// Lists of patterns: one for each table that is named, one for all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    others: Option<Patterns>,
    entities: Vec<(Entity, Patterns)>,
}

/// Patterns of labels, of which one must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<String>);

/// A table as a selection names it; case is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entity {
    schema: Option<String>,
    table: String,
}

impl Selection {
    /// Reads a selection: lists separated by `;`, each a comma-separated list of patterns, after `table=` or
    /// `schema.table=` where it is for one table only. A name with one of `;=.,"` in it is double-quoted. Nothing but
    /// white space selects everything.
    pub fn parse(text: &str) -> Result<Self> {
        let mut selection = Self::default();
        for part in split(text, ';')? {
            match split(part, '=')?[..] {
                [list] if list.trim().is_empty() => {}
                [list] => selection.add_others(Patterns::parse(list)?)?,
                [entity, list] => selection.add(Entity::parse(entity)?, Patterns::parse(list)?)?,
                _ => return Err(invalid(format!("\"{}\" has more than one \"=\"", part.trim()))),
            }
        }
        Ok(selection)
    }

    /// Whether a header of this name may hold a selection.
    pub fn is_header(name: &str) -> bool {
        name.trim().to_lowercase().starts_with(HEADER)
    }

    /// Reads the headers of an HTTP request: `X-Data-Partition` holds a whole selection, `X-Data-Partition-<table>` a list
    /// for one table. Names are read in any case, other headers and empty values passed over.
    pub fn from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut selection = Self::default();
        for (name, value) in headers {
            let name = name.trim().to_lowercase();
            let Some(rest) = name.strip_prefix(HEADER) else { continue };
            if value.trim().is_empty() {
                continue;
            }
            match rest.strip_prefix('-') {
                None if rest.is_empty() => {
                    let given = Self::parse(value)?;
                    if let Some(patterns) = given.others {
                        selection.add_others(patterns)?;
                    }
                    for (entity, patterns) in given.entities {
                        selection.add(entity, patterns)?;
                    }
                }
                None => {}
                Some(entity) => selection.add(Entity::parse(entity)?, Patterns::parse(value)?)?,
            }
        }
        Ok(selection)
    }

    fn add_others(&mut self, patterns: Patterns) -> Result<()> {
        match self.others.replace(patterns) {
            None => Ok(()),
            Some(_) => Err(invalid("there are two lists for all other tables")
                .hint("Separate patterns by \",\"; a list for one table begins with its name: \"orders=HOT*\".")),
        }
    }

    fn add(&mut self, entity: Entity, patterns: Patterns) -> Result<()> {
        if self.entities.iter().any(|(known, _)| *known == entity) {
            return Err(invalid(format!("there are two lists for table {entity}")));
        }
        self.entities.push((entity, patterns));
        Ok(())
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.others.is_none() && self.entities.is_empty()
    }

    /// The patterns for a table; `None` when it is read whole. What names the schema too goes first.
    pub fn patterns(&self, schema: &str, table: &str) -> Option<&Patterns> {
        let (schema, table) = (schema.to_lowercase(), table.to_lowercase());
        let find = |schema: Option<&str>| {
            let named = |entity: &Entity| entity.table == table && entity.schema.as_deref() == schema;
            self.entities.iter().find(|(entity, _)| named(entity)).map(|(_, patterns)| patterns)
        };
        find(Some(&schema)).or_else(|| find(None)).or(self.others.as_ref())
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.others.iter().map(ToString::to_string);
        let entities = self.entities.iter().map(|(entity, patterns)| format!("{entity}={patterns}"));
        f.write_str(&others.chain(entities).collect::<Vec<_>>().join("; "))
    }
}

impl Patterns {
    fn parse(list: &str) -> Result<Self> {
        list.split(',').map(|pattern| checked(pattern.trim())).collect::<Result<_>>().map(Self)
    }

    /// Whether one of them matches a label, in whichever case and whether it says ARCHIVE or ARCHIVED.
    pub fn matches(&self, label: &str) -> bool {
        let label = label.to_uppercase();
        let other = other_spelling(&label);
        self.0.iter().any(|pattern| glob(pattern, &label) || other.as_ref().is_some_and(|other| glob(pattern, other)))
    }

    /// Whether one of them names archived partitions; a bare `*` names none.
    pub fn names_archive(&self) -> bool {
        self.0.iter().any(|pattern| pattern.starts_with('A'))
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Entity {
    fn parse(text: &str) -> Result<Self> {
        let parts = split(text.trim(), '.')?.into_iter().map(unquoted).collect::<Result<Vec<_>>>()?;
        match <[String; 1]>::try_from(parts) {
            Ok([table]) => Ok(Self { schema: None, table }),
            Err(parts) => match <[String; 2]>::try_from(parts) {
                Ok([schema, table]) => Ok(Self { schema: Some(schema), table }),
                Err(_) => Err(invalid(format!("\"{}\" is no name of a table", text.trim()))),
            },
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.table))
    }
}

fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| !c.is_whitespace() && !";=.,\"".contains(c));
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn unquoted(name: &str) -> Result<String> {
    let name = name.trim();
    let inner = match name.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').map(|inner| inner.replace("\"\"", "\"")),
        None => (!name.contains('"')).then(|| name.to_owned()),
    };
    inner
        .filter(|inner| !inner.is_empty())
        .map(|inner| inner.to_lowercase())
        .ok_or_else(|| invalid(format!("\"{name}\" is no name of a table")))
}

/// The parts between separators that stand outside double quotes.
fn split(text: &str, separator: char) -> Result<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut begin, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => inside = !inside,
            c if c == separator && !inside => {
                parts.push(&text[begin..at]);
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if inside {
        return Err(invalid("a double quote is not closed"));
    }
    parts.push(&text[begin..]);
    Ok(parts)
}

/// A pattern in upper case, if some label can match it.
fn checked(pattern: &str) -> Result<String> {
    let upper = pattern.to_uppercase();
    if upper.is_empty() {
        return Err(invalid("a list has an empty pattern").hint(VALID));
    }
    if let Some(odd) = upper.chars().find(|c| !c.is_ascii_alphanumeric() && !['_', '*'].contains(c)) {
        let hint = if odd == '%' { "The wildcard is *." } else { VALID };
        return Err(invalid(format!("pattern \"{pattern}\" holds \"{odd}\"")).hint(hint));
    }
    let (head, wild) = upper.split_once('*').map_or((upper.as_str(), false), |(head, _)| (head, true));
    let possible = if wild {
        WORDS.iter().any(|word| word.starts_with(head) || head.strip_prefix(word).is_some_and(|r| r.starts_with('_')))
    } else {
        upper.parse::<super::Label>().is_ok()
    };
    if possible { Ok(upper) } else { Err(invalid(format!("no label matches \"{pattern}\"")).hint(VALID)) }
}

const VALID: &str = "A pattern is a label such as LIVE_202401, HOT, WARM_2024 or ARCHIVE_202509; * stands for anything: LIVE*, WARM_2024*.";

fn invalid(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("invalid data partition: {what}"))
}

fn other_spelling(label: &str) -> Option<String> {
    let rest = label.strip_prefix("ARCHIVE")?;
    match rest.strip_prefix('D') {
        Some(rest) if rest.is_empty() || rest.starts_with('_') => Some(format!("ARCHIVE{rest}")),
        None if rest.is_empty() || rest.starts_with('_') => Some(format!("ARCHIVED{rest}")),
        _ => None,
    }
}

/// Whether `pattern`, in which `*` stands for any text, matches all of `text`. A client may have written it: the time is at
/// most the product of both lengths.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut here) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while here < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, here));
        } else if pattern.get(at) == text.get(here) {
            at += 1;
            here += 1;
        } else if let Some((after, from)) = retry {
            at = after;
            here = from + 1;
            retry = Some((after, here));
        } else {
            return false;
        }
    }
    pattern.iter().skip(at).all(|c| *c == b'*')
}

#[cfg(test)]
mod tests;
