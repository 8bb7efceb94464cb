//! The extension's error: a SQLSTATE with message, DETAIL and HINT, raised only at the SQL boundary.

use archive_core::ErrorKind;
use pgrx::PgLogLevel;
pub use pgrx::pg_sys::errcodes::PgSqlErrorCode as SqlState;
use pgrx::pg_sys::panic::ErrorReport;

use crate::pg::server_text;

/// Result of everything in the extension below the SQL functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error on its way to the client. Small, so that `Result` stays small.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    sqlstate: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    until: Option<i64>,
}

impl Error {
    /// An error with a SQLSTATE and a message in PostgreSQL style.
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { sqlstate, message: message.into(), detail: None, hint: None, until: None }))
    }

    /// Adds the DETAIL.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds the HINT.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The SQLSTATE.
    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The DETAIL.
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The HINT.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Until when it would be so again, in seconds since 1970, where a store said so; what PostgreSQL raised and caught lost it.
    pub fn lasts_until(&self) -> Option<i64> {
        self.0.until
    }

    /// Raises the error: unwinds to PostgreSQL and never returns.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.0.sqlstate, server_text::message(self.0.message), "archive_ext");
        if let Some(detail) = self.0.detail {
            report = report.set_detail(server_text::message(detail));
        }
        if let Some(hint) = self.0.hint {
            report = report.set_hint(server_text::message(hint));
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("reporting an ERROR does not return")
    }
}

/// Turns the result of the engine into a value or a PostgreSQL error.
pub trait OrRaise<T> {
    /// The value, or the error raised.
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self) -> T {
        self.unwrap_or_else(|error| error.raise())
    }
}

impl From<archive_core::Error> for Error {
    fn from(error: archive_core::Error) -> Self {
        let detail = error.detail_text();
        let hint = error.hint_text().map(str::to_owned);
        let (message, until) = (error.message().to_owned(), error.lasts_until());
        Self(Box::new(Inner { sqlstate: sqlstate(error.kind()), message, detail, hint, until }))
    }
}

impl From<pgrx::spi::SpiError> for Error {
    fn from(error: pgrx::spi::SpiError) -> Self {
        Self::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("query on the archive catalog failed: {error}"))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("archive catalog holds JSON that cannot be read: {error}"))
    }
}

/// The one mapping from the pure crate's kinds to SQLSTATEs.
fn sqlstate(kind: ErrorKind) -> SqlState {
    match kind {
        ErrorKind::InvalidParameter => SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
        ErrorKind::InvalidOption => SqlState::ERRCODE_FDW_INVALID_OPTION_NAME,
        ErrorKind::Unsupported => SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        ErrorKind::NotFound => SqlState::ERRCODE_UNDEFINED_FILE,
        ErrorKind::PermissionDenied => SqlState::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
        ErrorKind::NotAllowed => SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
        ErrorKind::AlreadyExists => SqlState::ERRCODE_DUPLICATE_FILE,
        ErrorKind::Corrupt => SqlState::ERRCODE_DATA_CORRUPTED,
        ErrorKind::Storage => SqlState::ERRCODE_IO_ERROR,
        ErrorKind::DiskFull => SqlState::ERRCODE_DISK_FULL,
        ErrorKind::NotOwner | ErrorKind::NeedsRestore | ErrorKind::Locked | ErrorKind::InvalidState => {
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
        }
        _ => SqlState::ERRCODE_INTERNAL_ERROR,
    }
}
