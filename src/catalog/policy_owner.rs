//! Whose policies there are: for whom the background worker works.

use pgrx::pg_sys;

use crate::error::Result;
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

/// Everybody for whom there may be work: the owners of enabled policies of tables that exist. In another order each time:
/// where there are fewer places than owners, none of them is always last.
pub fn all() -> Result<Vec<Owner>> {
    user::elevated(|| {
        spi::rows(
            "SELECT r.oid, r.rolname::text, r.rolcanlogin FROM pg_roles r
             WHERE r.rolname IN (
                 SELECT p.owner FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source WHERE p.enabled)
             ORDER BY random()",
            &[],
            |row| Ok(Owner { role: row.need(1)?, name: row.need(2)?, can_login: row.need(3)? }),
        )
    })
}

/// The tables with an enabled policy that the current user set. Not those of roles that it is a member of: a superuser's
/// worker does nothing for others.
pub fn tables_of_current() -> Result<Vec<pg_sys::Oid>> {
    let me = user::name_of(user::current());
    user::elevated(|| {
        spi::rows(
            "SELECT c.oid FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source
             WHERE p.enabled AND p.owner = $1::name ORDER BY c.oid",
            &[me.as_str().into()],
            |row| row.need(1),
        )
    })
}
