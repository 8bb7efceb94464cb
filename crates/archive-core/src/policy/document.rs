//! Policies as JSON that people review: `export_policies` writes it, `import_policies` reads it.

use super::Policy;
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the document.
pub const FORMAT: u32 = 1;

/// Policies of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Version of the document's format.
    pub format: u32,
    /// The policies, by table.
    pub policies: Vec<Entry>,
}

/// The policy of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `schema.table`.
    pub table: String,
    /// Its settings; those that are absent are not set.
    pub policy: Policy,
}

impl Document {
    /// Reads a document (22023 for what is none, or is of a later format, or names a table twice).
    pub fn from_json(json: &Value) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidParameter, message);
        let format = json.get("format").and_then(Value::as_u64);
        if format.is_some_and(|format| format > u64::from(FORMAT)) {
            return Err(invalid(format!("policies of format {} are of a later version", format.unwrap_or_default()))
                .hint("Update archive_ext in this database."));
        }
        let document: Self = serde_json::from_value(json.clone()).map_err(|error| {
            invalid("these are no exported policies".to_owned())
                .detail(error.to_string())
                .hint("export_policies() shows what they look like.")
        })?;
        let mut tables: Vec<&str> = document.policies.iter().map(|entry| entry.table.as_str()).collect();
        tables.sort_unstable();
        match tables.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(invalid(format!("table \"{}\" is there twice", pair[0])).hint("Leave one of them.")),
            None => Ok(document),
        }
    }
}

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The setting.
    pub setting: &'static str,
    /// Its value before, if it was set.
    pub before: Option<String>,
    /// Its value after, if it is set.
    pub after: Option<String>,
}

/// What differs between two policies, in the order of the settings.
pub fn changes(before: &Policy, after: &Policy) -> Vec<Change> {
    let (before, after) = (before.settings(), after.settings());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let change = |setting: &'static str| Change {
        setting,
        before: before.get(setting).map(text),
        after: after.get(setting).map(text),
    };
    Policy::SETTINGS.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Age;
    use serde_json::json;

    #[test]
    fn documents_round_trip() {
        let policy = Policy { archive_after: Some(Age::new(12, 0, 0)), premake: Some(3), ..Policy::default() };
        let document = Document { format: FORMAT, policies: vec![Entry { table: "public.orders".to_owned(), policy }] };
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(
            json,
            json!({"format": 1, "policies": [{"table": "public.orders", "policy": {"archive_after": "1 year", "premake": 3}}]})
        );
        assert_eq!(Document::from_json(&json).unwrap(), document);
    }

    #[test]
    fn what_is_no_document_is_refused_with_the_place() {
        let refused = |json: Value| Document::from_json(&json).unwrap_err().to_string();
        assert!(refused(json!({"format": 2, "policies": []})).contains("later version"));
        assert!(refused(json!([])).contains("no exported policies"));
        let with = |policy: Value| json!({"format": 1, "policies": [{"table": "t", "policy": policy}]});
        assert!(refused(with(json!({"hot_aftr": "1 day"}))).contains("unknown field `hot_aftr`"));
        assert!(refused(with(json!({"hot_after": "soon"}))).contains("invalid interval \"soon\""));
        let twice = json!({"table": "t", "policy": {}});
        assert!(refused(json!({"format": 1, "policies": [twice, twice]})).contains("twice"));
    }

    #[test]
    fn changes_name_what_is_set_changed_and_cleared() {
        let before = Policy { hot_after: Some(Age::new(1, 0, 0)), premake: Some(3), ..Policy::default() };
        let after =
            Policy { hot_after: Some(Age::new(2, 0, 0)), storage: Some("cold".to_owned()), ..Policy::default() };
        let said: Vec<_> = changes(&before, &after)
            .into_iter()
            .map(|change| (change.setting, change.before.unwrap_or_default(), change.after.unwrap_or_default()))
            .collect();
        let own = |setting, before: &str, after: &str| (setting, before.to_owned(), after.to_owned());
        assert_eq!(said, [own("hot_after", "1 mon", "2 mons"), own("premake", "3", ""), own("storage", "", "cold")]);
        assert!(changes(&before, &before).is_empty());
    }
}
