//! The one error type of the pure crate: a kind that the extension maps to a SQLSTATE, a message in
//! PostgreSQL style (lower case, no full stop), and optional DETAIL and HINT.

use std::fmt;

/// What went wrong, coarse enough that one `match` maps it to a SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option or argument has a value that is not allowed (22023).
    InvalidParameter,
    /// An option name is unknown or contradicts another one (HV00D).
    InvalidOption,
    /// The value or type has no lossless representation yet (0A000).
    Unsupported,
    /// A required object, bucket or directory does not exist (58P01).
    NotFound,
    /// The storage refused the credentials or the operating system the access (28000).
    PermissionDenied,
    /// Settings do not allow it (42501).
    NotAllowed,
    /// The storage prefix belongs to another cluster (55000).
    NotOwner,
    /// The object exists already and must not be overwritten (58P02).
    AlreadyExists,
    /// Bytes read back are not the bytes written, or a file is not what its manifest says (XX001).
    Corrupt,
    /// The storage did not answer, answered with an error after all retries, or is full (58030).
    Storage,
    /// The store has no room left (53100).
    DiskFull,
    /// An object is in an archive class and needs a restore before it can be read (55000).
    NeedsRestore,
    /// The store keeps an object from being deleted, for a time or while a hold lasts (55000).
    Locked,
    /// The state machine does not allow the event (55000).
    InvalidState,
    /// A bug of ours (XX000).
    Internal,
}

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with what a DBA needs to act on it.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    until: Option<i64>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error; `message` is lower case without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                detail: None,
                hint: None,
                until: None,
                source: None,
            }),
        }
    }

    /// Adds the DETAIL line (a full sentence).
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.inner.detail = Some(detail.into());
        self
    }

    /// Adds the HINT line (a full sentence that names the remedy).
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Says until when it would be so again, in seconds since 1970.
    #[must_use]
    pub fn until(mut self, at: i64) -> Self {
        self.inner.until = Some(at);
        self
    }

    /// Attaches the error that caused this one.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Until when it would be so again, in seconds since 1970, where that is known.
    pub fn lasts_until(&self) -> Option<i64> {
        self.inner.until
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The DETAIL, or the chain of causes when none was set.
    pub fn detail_text(&self) -> Option<String> {
        self.inner.detail.clone().or_else(|| self.inner.source.as_ref().map(|s| chain(s.as_ref())))
    }

    /// The HINT.
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match self.detail_text() {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_joins_message_and_causes_once() {
        let io = std::io::Error::other("connection reset");
        let error = Error::new(ErrorKind::Storage, "could not read object").source(io);
        assert_eq!(error.to_string(), "could not read object: connection reset");
        assert_eq!(error.kind(), ErrorKind::Storage);
    }

    #[test]
    fn an_explicit_detail_wins_over_the_cause() {
        let error = Error::new(ErrorKind::Corrupt, "m").source(std::io::Error::other("x")).detail("D.").hint("H.");
        assert_eq!(error.detail_text().as_deref(), Some("D."));
        assert_eq!(error.hint_text(), Some("H."));
    }
}
