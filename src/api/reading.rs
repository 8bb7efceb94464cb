//! `use_data_partition` and the triggers that make sessions notice new labels.

use pgrx::prelude::*;

#[pg_schema]
mod archive_ext {
    use pgrx::prelude::*;

    use crate::engine::reading;
    use crate::error::OrRaise;
    use crate::pg::args::Regclass;

    /// Fires for each changed row of `archive_ext.partition` and `managed_table`: its arguments are the columns with the
    /// relations that sessions must look at again.
    #[pg_trigger]
    fn labels_changed<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
        for column in trigger.extra_args()? {
            for row in [trigger.old(), trigger.new()].into_iter().flatten() {
                let relation = row.get_by_name::<Regclass>(&column).map_err(|error| {
                    crate::error::Error::new(crate::error::SqlState::ERRCODE_INTERNAL_ERROR, error.to_string())
                });
                if let Some(relation) = relation.or_raise() {
                    reading::changed(relation.0);
                }
            }
        }
        Ok(trigger.new().or(trigger.old()))
    }
}

use archive_core::lifecycle::Selection;

use crate::error::{Error, OrRaise, Result, SqlState};
use crate::guc;
use crate::pg::args::{JsonText, Text};
use crate::pg::guc as settings;

/// Sets `archive_ext.data_partition` for the transaction from the headers that PostgREST hands over in `request.headers`;
/// without any it is unset. Returns what is set.
#[pg_extern(name = "use_data_partition")]
fn use_request_headers() -> Text {
    let headers = settings::get(c"request.headers").unwrap_or_default();
    from_headers(&headers).and_then(|selection| set(&selection, true)).or_raise()
}

/// Sets `archive_ext.data_partition` for the transaction from the headers `X-Data-Partition` and
/// `X-Data-Partition-<table>` of an HTTP request; NULL, or none of them, unsets it. Returns what is set.
#[pg_extern(name = "use_data_partition")]
fn use_headers(headers: Option<JsonText>) -> Text {
    let headers = headers.map(|headers| headers.0).unwrap_or_default();
    from_headers(&headers).and_then(|selection| set(&selection, true)).or_raise()
}

/// Sets `archive_ext.data_partition`, for the session unless `is_local`. Text that begins with a brace is taken for the
/// headers of a request, which are for the transaction. Returns what is set.
#[pg_extern(name = "use_data_partition")]
fn use_selection(selection: Option<Text>, is_local: default!(bool, "false")) -> Text {
    let text = selection.map(|text| text.0).unwrap_or_default();
    let done = if text.trim_start().starts_with('{') {
        from_headers(&text).and_then(|selection| set(&selection, true))
    } else {
        Selection::parse(&text).map_err(Error::from).and_then(|selection| set(&selection, is_local))
    };
    done.or_raise()
}

fn from_headers(text: &str) -> Result<Selection> {
    if text.trim().is_empty() {
        return Ok(Selection::default());
    }
    let headers = serde_json::from_str::<serde_json::Value>(text)
        .map_err(|error| invalid("headers are not valid JSON").detail(error.to_string()))?;
    let headers = match headers {
        serde_json::Value::Object(headers) => headers,
        serde_json::Value::Null => return Ok(Selection::default()),
        _ => return Err(invalid("headers must be a JSON object").hint("For example {\"X-Data-Partition\": \"HOT*\"}.")),
    };
    let ours = headers.iter().filter(|(name, _)| Selection::is_header(name));
    let texts = ours.map(|(name, value)| match value.as_str() {
        Some(value) => Ok((name.as_str(), value)),
        None => Err(invalid(&format!("header \"{name}\" must be a string"))),
    });
    Ok(Selection::from_headers(texts.collect::<Result<Vec<_>>>()?)?)
}

fn invalid(what: &str) -> Error {
    Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, what)
}

fn set(selection: &Selection, is_local: bool) -> Result<Text> {
    settings::set(c"archive_ext.data_partition", &selection.to_string(), is_local)?;
    Ok(Text(guc::data_partition()))
}
