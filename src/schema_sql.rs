//! The order in which the SQL of `sql/` enters the extension script.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/schema/types.sql", name = "types", bootstrap);
extension_sql_file!("../sql/schema/tables.sql", name = "tables", requires = ["types"]);
extension_sql_file!("../sql/schema/findings.sql", name = "findings", requires = ["tables"]);
extension_sql_file!(
    "../sql/schema/triggers.sql",
    name = "triggers",
    requires = ["tables", archive_ext::labels_changed]
);
extension_sql_file!(
    "../sql/api/views.sql",
    name = "views",
    requires = [
        "tables",
        "findings",
        archive_ext::progress_slots,
        archive_ext::worker_slots,
        archive_ext::standing_alerts,
        archive_ext::sees_all,
        archive_ext::sees_every_row
    ]
);
extension_sql_file!("../sql/api/procedures.sql", name = "procedures", requires = ["tables", "fdw"]);
extension_sql_file!("../sql/api/cost.sql", name = "cost", requires = ["views", "fdw", plan_archive]);
extension_sql_file!(
    "../sql/security/grants.sql",
    name = "grants",
    requires = ["views", "procedures", "triggers", "cost"]
);
extension_sql_file!("../sql/security/roles.sql", name = "roles", requires = ["grants", "fdw"]);
extension_sql_file!("../sql/comments.sql", name = "comments", finalize);
