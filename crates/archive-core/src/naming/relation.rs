//! Names of relations that the extension makes, refused when PostgreSQL would cut them.

use crate::error::{Error, ErrorKind, Result};

/// The longest identifier PostgreSQL keeps whole, in bytes.
pub const MAX_IDENTIFIER: usize = 63;

/// The name of a partition's local copy once the archive took its name: `<name>__local_<first 8 of the job>`.
pub fn local_copy_name(partition: &str, job_id_hex: &str) -> Result<String> {
    let digits: String = job_id_hex.chars().filter(|c| *c != '-').take(8).collect();
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::new(ErrorKind::Internal, format!("\"{job_id_hex}\" is no job id")));
    }
    fitting(format!("{partition}__local_{}", digits.to_ascii_lowercase()), "local copy", partition)
}

/// The name of the view over hot and archived rows: `<table>_all`.
pub fn all_view_name(table: &str) -> Result<String> {
    fitting(format!("{table}_all"), "view over hot and archived rows", table)
}

/// The name of a foreign table over archived rows of a table that is archived row by row: `<table>_rows`, then
/// `<table>_rows2` and so on, one for each shape that the rows had.
pub fn row_set_name(table: &str, number: u32) -> Result<String> {
    let number = if number > 1 { number.to_string() } else { String::new() };
    fitting(format!("{table}_rows{number}"), "archived rows", table)
}

fn fitting(name: String, what: &str, of: &str) -> Result<String> {
    if name.len() <= MAX_IDENTIFIER {
        return Ok(name);
    }
    Err(Error::new(ErrorKind::InvalidParameter, format!("the name of the {what} of \"{of}\" would be too long"))
        .detail(format!("\"{name}\" has {} bytes and an identifier at most {MAX_IDENTIFIER}.", name.len()))
        .hint("Rename the table or partition, or set archive_name in its policy."))
}

/// An identifier in double quotes, always.
pub fn quote_ident(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0F1E2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    #[test]
    fn names() {
        assert_eq!(local_copy_name("orders_2024_01", JOB).unwrap(), "orders_2024_01__local_0f1e2d3c");
        assert_eq!(all_view_name("orders").unwrap(), "orders_all");
        assert_eq!(row_set_name("ticket", 1).unwrap(), "ticket_rows");
        assert_eq!(row_set_name("ticket", 2).unwrap(), "ticket_rows2");
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(local_copy_name("p", "xyz").unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_name_that_postgresql_would_cut_is_refused() {
        assert!(all_view_name(&"x".repeat(59)).is_ok());
        assert!(local_copy_name(&"x".repeat(47), JOB).is_ok());
        for error in [all_view_name(&"é".repeat(30)), local_copy_name(&"x".repeat(48), JOB)] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
    }
}
