//! Credentials: from a user mapping, the environment or a file. Nothing here prints a secret.

use super::options::unknown;
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The options of `CREATE USER MAPPING`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserMappingOptions {
    /// The key's public half.
    pub access_key_id: String,
    /// The key's secret half.
    pub secret_access_key: String,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
}

/// How to sign requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Given in a user mapping.
    Static(UserMappingOptions),
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, and `AWS_REGION` when no region is set.
    Environment,
    /// A file only its owner can read, with lines `access_key_id = …` or those of an AWS profile.
    File(PathBuf),
}

impl fmt::Debug for UserMappingOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserMappingOptions { *** }")
    }
}

impl UserMappingOptions {
    /// Every option a user mapping may have, with what it is for.
    pub const USER_MAPPING_OPTIONS: &[(&str, &str)] = &[
        ("access_key_id", "access key"),
        ("secret_access_key", "secret of the access key"),
        ("session_token", "token of temporary credentials"),
    ];

    /// Reads the options of a user mapping; error messages name options, never values.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut fields = Fields::default();
        for (name, value) in options {
            if !fields.set(name, value) {
                return Err(unknown("user mapping option", name, Self::USER_MAPPING_OPTIONS));
            }
        }
        fields.finish("user mapping", "ALTER USER MAPPING … OPTIONS (ADD …) can add it.")
    }
}

impl Credentials {
    /// The keys to sign with; reads the environment or the file.
    pub(super) fn resolve(&self) -> Result<UserMappingOptions> {
        match self {
            Self::Static(keys) => Ok(keys.clone()),
            Self::Environment => from_environment(|name| std::env::var(name).ok()),
            Self::File(path) => from_file(path),
        }
    }
}

#[derive(Default)]
struct Fields {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

impl Fields {
    /// False when the name is unknown.
    fn set(&mut self, name: &str, value: &str) -> bool {
        let field = match name {
            "access_key_id" => &mut self.access_key_id,
            "secret_access_key" => &mut self.secret_access_key,
            "session_token" => &mut self.session_token,
            _ => return false,
        };
        *field = Some(value.trim().to_owned()).filter(|v| !v.is_empty());
        true
    }

    fn finish(self, origin: &str, hint: &str) -> Result<UserMappingOptions> {
        let missing = |name: &str| {
            Error::new(ErrorKind::PermissionDenied, format!("{name} is missing from the {origin}")).hint(hint)
        };
        let keys = UserMappingOptions {
            access_key_id: self.access_key_id.ok_or_else(|| missing("access_key_id"))?,
            secret_access_key: self.secret_access_key.ok_or_else(|| missing("secret_access_key"))?,
            session_token: self.session_token,
        };
        printable(&keys, origin).map(|()| keys)
    }
}

/// A key with a line break or the like cannot be sent in a header.
fn printable(keys: &UserMappingOptions, origin: &str) -> Result<()> {
    let values = [&keys.access_key_id, &keys.secret_access_key].into_iter().chain(&keys.session_token);
    if values.into_iter().all(|v| v.chars().all(|c| c.is_ascii_graphic())) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidParameter,
        format!("credentials in the {origin} contain a space or control character"),
    ))
}

fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<UserMappingOptions> {
    let mut fields = Fields::default();
    for (name, variable) in [
        ("access_key_id", "AWS_ACCESS_KEY_ID"),
        ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("session_token", "AWS_SESSION_TOKEN"),
    ] {
        if let Some(value) = get(variable) {
            fields.set(name, &value);
        }
    }
    fields.finish(
        "server's environment",
        "Start PostgreSQL with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, or use another source of credentials.",
    )
}

fn from_file(path: &Path) -> Result<UserMappingOptions> {
    let text = read_private("credentials file", path)?;
    let mut fields = Fields::default();
    let mut ours = true;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            ours = section.trim_end_matches(']').trim() == "default";
        } else if let (true, Some((name, value))) = (ours, line.split_once('=')) {
            let name = name.trim().to_ascii_lowercase();
            fields.set(name.strip_prefix("aws_").unwrap_or(&name), value);
        }
    }
    fields.finish(
        "credentials file",
        "Write lines access_key_id = … and secret_access_key = …, before any section or in the section [default].",
    )
}

/// Reads a file with a secret, which messages call `what`, after checking, on the open file, that only its owner can.
///
/// Errors: 58P01 when there is none, 28000 when others can read it, or we cannot.
pub(crate) fn read_private(what: &str, path: &Path) -> Result<String> {
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::PermissionDenied,
        };
        Error::new(kind, format!("could not read {what} \"{}\"", path.display())).source(error)
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("{what} \"{}\" has group or world access, or is no regular file", path.display()),
        )
        .hint("Make the operating system user of PostgreSQL its owner and run chmod 0600 on it."));
    }
    let mut text = String::new();
    file.by_ref().take(64 * 1024).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn debug_never_shows_a_secret() {
        let keys = UserMappingOptions::parse([
            ("access_key_id", "AKIAEXAMPLE"),
            ("secret_access_key", "tOpSeCrEt"),
            ("session_token", "tOkEn"),
        ])
        .unwrap();
        let text = format!("{keys:?} {:?}", Credentials::Static(keys.clone()));
        for secret in ["AKIAEXAMPLE", "tOpSeCrEt", "tOkEn"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn user_mapping_errors_name_options_not_values() {
        let error = UserMappingOptions::parse([("password", "hunter2")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
        assert!(error.hint_text().unwrap().contains("secret_access_key"));
        let error = UserMappingOptions::parse([("access_key_id", "hunter2")]).unwrap_err();
        assert!(error.to_string().contains("secret_access_key") && !error.to_string().contains("hunter2"));
        let error = UserMappingOptions::parse([("access_key_id", "a"), ("secret_access_key", "x\ny")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }

    #[test]
    fn environment() {
        let keys = from_environment(|name| Some(format!("v-{name}"))).unwrap();
        assert_eq!(keys.session_token.as_deref(), Some("v-AWS_SESSION_TOKEN"));
        assert_eq!(from_environment(|_| None).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn files_in_both_formats() {
        let (_guard, path) = file("# ours\naccess_key_id = A\nsecret_access_key=S==\n", 0o600);
        let keys = Credentials::File(path).resolve().unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.as_str()), ("A", "S=="));
        let aws = "[other]\naws_access_key_id=X\n[default]\naws_access_key_id=A\naws_secret_access_key=S\naws_session_token=T\n";
        let (_guard, path) = file(aws, 0o400);
        assert_eq!(Credentials::File(path).resolve().unwrap().session_token.as_deref(), Some("T"));
    }

    #[test]
    fn a_file_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o644, 0o620] {
            let (_guard, path) = file("access_key_id = A\nsecret_access_key = S\n", mode);
            let error = Credentials::File(path).resolve().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.hint_text().unwrap().contains("0600"));
        }
        assert_eq!(Credentials::File("/nonexistent".into()).resolve().unwrap_err().kind(), ErrorKind::NotFound);
    }
}
