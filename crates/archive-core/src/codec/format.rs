//! The file formats of objects.

use crate::{Error, ErrorKind, Result};

/// What an object is written as. Its key ends with the extension, which is how readers, ours and others, tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ObjectFormat {
    /// Parquet.
    #[default]
    Parquet,
    /// A JSON object for each row, one to a line, compressed with gzip.
    NdjsonGz,
    /// The same, not compressed.
    Ndjson,
}

impl ObjectFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Parquet, Self::NdjsonGz, Self::Ndjson];

    /// Its name, which is the extension of its keys as well.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::NdjsonGz => "ndjson.gz",
            Self::Ndjson => "ndjson",
        }
    }

    /// The format with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// A key without its extension, and the format that this tells; `None` for other extensions.
    pub fn split(key: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|format| Some((key.strip_suffix(format.as_str())?.strip_suffix('.')?, format)))
    }

    /// The format of the object with this key. Errors: corrupt for a key with another extension.
    pub fn of_key(key: &str) -> Result<Self> {
        Self::split(key).map(|(_, format)| format).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("object \"{key}\" is of no format that is archived"))
                .detail("Keys of objects end with .parquet, .ndjson.gz or .ndjson.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_the_format() {
        for format in ObjectFormat::ALL {
            assert_eq!(ObjectFormat::parse(format.as_str()), Some(format));
            assert_eq!(ObjectFormat::of_key(&format!("s.t/p.{}", format.as_str())).unwrap(), format);
        }
        for key in ["parquet", "s.t/p", "s.t/p.json", "s.t/p.gz", "s.t/p.xparquet"] {
            assert_eq!(ObjectFormat::of_key(key).unwrap_err().kind(), ErrorKind::Corrupt, "{key}");
        }
    }
}
