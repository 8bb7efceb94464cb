//! The settings of a session that asked for a job: what its SQL means depends on them.

use serde_json::Value;

use crate::catalog::job::Job;
use crate::catalog::row_policy;
use crate::error::{Error, Result, SqlState};
use crate::pg::guc::GucNest;
use crate::pg::spi;
use crate::pg::user::{self, UserGuard};

/// `search_path` and `timezone` of this session, to be stored in a request under these names.
pub fn current() -> Result<(String, String)> {
    spi::one("SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('timezone')", &[], |row| {
        Ok((row.need(1)?, row.need(2)?))
    })
}

/// The settings of the session that made the request, until dropped.
fn of_request(request: &Value) -> GucNest {
    let setting = |name: &str| request.get(name).and_then(Value::as_str);
    let settings = GucNest::new();
    let settings = match setting("search_path") {
        Some(path) => settings.set(c"search_path", path),
        None => settings,
    };
    match setting("timezone") {
        Some(zone) => settings.set(c"timezone", zone),
        None => settings,
    }
}

/// Does `work` of a job under the settings of the session that asked for it, and with the rights of the role that started it, never
/// with more: others must have its privileges (42501).
pub fn as_starter<T>(job: &Job, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let role = row_policy::started_by(job.id)?;
    let Some(role_oid) = user::find(&role).filter(|role| user::has_privileges_of(*role)) else {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("the job was started by \"{role}\""))
            .hint("That role, or a member of it, can go on with it."));
    };
    let _settings = of_request(&job.request);
    let _role = (role_oid != user::current()).then(|| UserGuard::become_user(role_oid));
    work()
}
