//! Whose rights a statement runs with (P8).

use pgrx::pg_sys;

use super::event_trigger::Quiet;
use super::guc::GucNest;
use super::kept_plans::Keeping;
use super::limited_plans::Whole;

/// Switches the current user until dropped. On an error the (sub)transaction abort switches back.
#[derive(Debug)]
pub struct UserGuard {
    saved_user: pg_sys::Oid,
    saved_context: std::ffi::c_int,
}

impl UserGuard {
    /// Acts as `user`. `SECURITY_LOCAL_USERID_CHANGE` keeps SET ROLE out while the switch lasts; for another user
    /// `SECURITY_RESTRICTED_OPERATION` keeps that user's code from queueing triggers that would fire after it ended.
    pub fn become_user(user: pg_sys::Oid) -> Self {
        let mut saved_user = pg_sys::InvalidOid;
        let mut saved_context = 0;
        // SAFETY: the out pointers are valid; called inside a transaction.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved_user, &mut saved_context);
            let mut flags = saved_context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
            if user != saved_user {
                flags |= pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            }
            pg_sys::SetUserIdAndSecContext(user, flags);
        }
        Self { saved_user, saved_context }
    }
}

impl Drop for UserGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: restores what become_user read.
            unsafe { pg_sys::SetUserIdAndSecContext(self.saved_user, self.saved_context) }
        }
    }
}

/// Runs fixed statements on our own catalog with the rights of the extension's owner and a safe search path.
pub fn elevated<T>(statements: impl FnOnce() -> T) -> T {
    // ISO dates in UTC, so that bounds read from the catalog are the same text in every session.
    let _settings = GucNest::lossless_text().safe_search_path();
    let _user = UserGuard::become_user(extension_owner());
    let _quiet = Quiet::begin();
    let _keeping = Keeping::begin(true);
    statements()
}

/// Runs `work` as `user`, with a safe search path: DDL on a table runs with the rights of its owner. What it and the
/// functions it calls read is not limited by `archive_ext.data_partition`.
pub fn as_user<T>(user: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _whole = Whole::begin();
    let _settings = GucNest::new().safe_search_path();
    let _user = UserGuard::become_user(user);
    let _quiet = Quiet::begin();
    let _keeping = Keeping::begin(false);
    work()
}

/// Runs SQL that `user` supplied as `user`: with the search path there is, which its names were written for, and with
/// our event triggers awake. SET ROLE is refused within, so nothing that it calls gains the rights of the session's user.
/// `archive_ext.data_partition` does not limit it: rows that it hides must not be left out of a change.
pub fn own_sql<T>(user: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _user = UserGuard::become_user(user);
    let _whole = Whole::begin();
    let _keeping = Keeping::begin(false);
    work()
}

fn extension_owner() -> pg_sys::Oid {
    // The control file says `superuser = true`, and the bootstrap superuser always exists.
    pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID)
}

/// The current user.
pub fn current() -> pg_sys::Oid {
    // SAFETY: plain getter.
    unsafe { pg_sys::GetUserId() }
}

/// Name of a role.
pub fn name_of(role: pg_sys::Oid) -> String {
    // SAFETY: with noerr the result is NULL or a palloc'd C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { role.to_u32().to_string() } else { super::server_text::of_c_string(name) }
    }
}

/// The role of this name.
pub fn find(name: &str) -> Option<pg_sys::Oid> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: plain catalog lookup; with missing_ok an unknown role is InvalidOid.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (role != pg_sys::InvalidOid).then_some(role)
}

/// Whether the current user may act as `role` (is it, or a member with its privileges, or a superuser).
pub fn has_privileges_of(role: pg_sys::Oid) -> bool {
    // SAFETY: plain catalog lookup.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// The role whose members look after every table's archive; made by the extension's script.
pub const ADMIN: &str = "archive_ext_admin";
/// The role whose members see all that the views hold.
pub const READER: &str = "archive_ext_reader";

/// Whether the current user is a member of `archive_ext_admin`, or a superuser.
pub fn administers_archives() -> bool {
    is_superuser() || find(ADMIN).is_some_and(has_privileges_of)
}

/// Whether the views hide nothing from the current user.
pub fn reads_all_archives() -> bool {
    administers_archives() || find(READER).is_some_and(has_privileges_of)
}

/// Whether the current user may decide about the archive of a table of `owner`: may act as the owner, or administers the
/// archives of others. A superuser's tables are a superuser's: jobs run with their owner's rights.
pub fn may_administer(owner: pg_sys::Oid) -> bool {
    // SAFETY: plain catalog lookup.
    has_privileges_of(owner) || administers_archives() && !unsafe { pg_sys::superuser_arg(owner) }
}

/// Acts as `owner` until dropped, for one who administers the archives of others; who may act as the owner stays who he is.
pub fn stand_in_for(owner: pg_sys::Oid) -> Option<UserGuard> {
    (!has_privileges_of(owner)).then(|| UserGuard::become_user(owner))
}

/// Whether the current user sees what sessions of `role` do: the rule of `pg_stat_activity`.
pub fn sees_activity_of(role: pg_sys::Oid) -> bool {
    has_privileges_of(role) || reads_all_statistics()
}

/// Whether the current user sees what any session does, and how busy the cluster is.
pub fn reads_all_statistics() -> bool {
    has_privileges_of(pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS))
}

/// Whether row-level security stands between the current user and rows of `table`; not when it is gone.
pub fn row_security_applies(table: pg_sys::Oid) -> bool {
    // SAFETY: plain catalog lookups; with noError nothing is raised.
    let result = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    result == pg_sys::CheckEnableRlsResult::RLS_ENABLED as std::ffi::c_int
}

/// Whether the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: plain catalog lookup.
    unsafe { pg_sys::superuser() }
}
