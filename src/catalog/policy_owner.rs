//! Whose policies there are: for whom the background worker works.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::archived;
use crate::error::Result;
use crate::guc;
use crate::pg::{spi, user};

/// The owner of a policy.
#[derive(Debug)]
pub struct Owner {
    /// The role.
    pub role: pg_sys::Oid,
    /// Its name.
    pub name: String,
    /// Whether it may log in.
    pub can_login: bool,
}

/// Everybody for whom there may be work at `now`: the owners of enabled policies of tables that exist, and of tables without a policy
/// whose local copies are to be verified or dropped. In another order each time: where there are fewer places than owners, none of
/// them is always last.
pub fn all(now: TimestampWithTimeZone) -> Result<Vec<Owner>> {
    let sql = format!(
        "SELECT r.oid, r.rolname::text, r.rolcanlogin FROM pg_roles r
         WHERE r.rolname IN (
             SELECT p.owner FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source WHERE p.enabled)
           OR r.oid IN (
             SELECT s.relowner FROM archive_ext.managed_table m JOIN pg_class s ON s.oid = m.source::oid WHERE ({}))
         ORDER BY random()",
        archived::has_due("$1")
    );
    user::elevated(|| {
        spi::rows(&sql, &[now.into(), f64::from(guc::verify_after_seconds()).into()], |row| {
            Ok(Owner { role: row.need(1)?, name: row.need(2)?, can_login: row.need(3)? })
        })
    })
}

/// The tables with an enabled policy that the current user set, and its own without a policy whose local copies are to be verified
/// or dropped. Not those of roles that it is a member of: a superuser's worker does nothing for others.
pub fn tables_of_current(now: TimestampWithTimeZone) -> Result<Vec<pg_sys::Oid>> {
    let me = user::name_of(user::current());
    let sql = format!(
        "SELECT c.oid FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source WHERE p.enabled AND p.owner = $3::name
         UNION
         SELECT s.oid FROM archive_ext.managed_table m JOIN pg_class s ON s.oid = m.source::oid
         WHERE pg_get_userbyid(s.relowner) = $3::name AND ({})
         ORDER BY 1",
        archived::has_due("$1")
    );
    let after = f64::from(guc::verify_after_seconds());
    user::elevated(|| spi::rows(&sql, &[now.into(), after.into(), me.as_str().into()], |row| row.need(1)))
}
