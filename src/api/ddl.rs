//! The event triggers by which the archive of a table follows its DDL.

use pgrx::prelude::*;

#[pg_schema]
mod archive_ext {
    use pgrx::prelude::*;

    use crate::engine::drift;
    use crate::error::OrRaise;
    use crate::pg::event_trigger::{self, Command, EventTriggerResult};

    /// Makes way for ALTER TABLE.
    #[allow(unsafe_code)]
    #[pg_extern]
    fn before_ddl(fcinfo: pg_sys::FunctionCallInfo) -> EventTriggerResult {
        // SAFETY: that of this call.
        let made = match unsafe { event_trigger::command(fcinfo) } {
            Some(Command::AlterTable(alterations)) => drift::make_way(&alterations),
            Some(Command::Renamed { before, .. }) => drift::make_way_for_name(before),
            Some(Command::Privileges(privileges)) => drift::note_readers(&privileges),
            _ => Ok(()),
        };
        made.or_raise();
        EventTriggerResult
    }

    /// Lets the archive follow what just happened to its hot table.
    #[allow(unsafe_code)]
    #[pg_extern]
    fn after_ddl(fcinfo: pg_sys::FunctionCallInfo) -> EventTriggerResult {
        // SAFETY: that of this call.
        let followed = match unsafe { event_trigger::command(fcinfo) } {
            Some(Command::AlterTable(alterations)) => drift::follow(&alterations),
            Some(Command::Renamed { after, .. }) => drift::follow_name(after),
            Some(Command::Privileges(privileges)) => drift::follow_privileges(&privileges),
            Some(Command::Policies(tables)) => drift::follow_policies(&tables),
            Some(Command::Other) | None => Ok(()),
        };
        followed.or_raise();
        EventTriggerResult
    }

    /// Lets the archive follow a drop that took columns along.
    #[allow(unsafe_code)]
    #[pg_extern]
    fn after_drop(fcinfo: pg_sys::FunctionCallInfo) -> EventTriggerResult {
        // SAFETY: that of this call. ALTER TABLE is followed when it has ended.
        match unsafe { event_trigger::command(fcinfo) } {
            None | Some(Command::AlterTable(_)) => {}
            Some(_) => drift::follow_drops().or_raise(),
        }
        EventTriggerResult
    }
}

extension_sql!(
    r#"
CREATE EVENT TRIGGER archive_ext_before_ddl ON ddl_command_start
    WHEN TAG IN ('ALTER TABLE', 'REVOKE') EXECUTE FUNCTION archive_ext.before_ddl();
CREATE EVENT TRIGGER archive_ext_after_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'GRANT', 'REVOKE', 'CREATE POLICY', 'ALTER POLICY', 'DROP POLICY')
    EXECUTE FUNCTION archive_ext.after_ddl();
CREATE EVENT TRIGGER archive_ext_after_drop ON sql_drop EXECUTE FUNCTION archive_ext.after_drop();
-- Not to be passed over where session_replication_role is replica: the archive would no longer fit its table.
ALTER EVENT TRIGGER archive_ext_before_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER archive_ext_after_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER archive_ext_after_drop ENABLE ALWAYS;
"#,
    name = "event_triggers",
    requires = ["tables", archive_ext::before_ddl, archive_ext::after_ddl, archive_ext::after_drop]
);
