COMMENT ON SCHEMA archive_ext IS 'catalog and views of archive_ext';
COMMENT ON TYPE archive_ext.lifecycle_status IS 'where a partition is in its life: LIVE, HOT, WARM, ARCHIVED';
COMMENT ON FOREIGN DATA WRAPPER archive_fdw IS 'storages of archive_ext (servers) and archived partitions (foreign tables)';

COMMENT ON TABLE archive_ext.managed_table IS 'tables that archive_ext manages, how they age, and where their archive relations are';
COMMENT ON TABLE archive_ext.archive_policy IS 'what owners decided about the archive of their tables; see set_archive_policy';
COMMENT ON TABLE archive_ext.access_sample IS 'when partitions were last seen in use, for policies with idle_for';
COMMENT ON TABLE archive_ext.child_table IS 'tables whose rows age with those of a parent; see add_child_table';
COMMENT ON TABLE archive_ext.column_map IS 'which archived field each column of a managed table is, and how rows archived before it existed are filled';
COMMENT ON TABLE archive_ext.partition IS 'every partition that is no longer LIVE or was ever archived: status, objects, local copy';
COMMENT ON TABLE archive_ext.archival_job IS 'one row for each run: archive, reattach, and the steps of the lifecycle';
COMMENT ON TABLE archive_ext.object IS 'the Parquet objects of archived partitions, with digests and column ranges';
COMMENT ON TABLE archive_ext.lifecycle_event IS 'history of what happened to partitions';
COMMENT ON TABLE archive_ext.archive_schema IS 'schemas that archive_ext made for archive relations';
COMMENT ON TABLE archive_ext.storage_claim IS 'the incarnation under which this database claimed each storage prefix';

COMMENT ON VIEW archive_ext.partitions IS 'partitions that were archived, with sizes and where they are now';
COMMENT ON VIEW archive_ext.jobs IS 'archive and reattach runs, newest first';
COMMENT ON VIEW archive_ext.objects IS 'Parquet objects of archived partitions';
COMMENT ON VIEW archive_ext.progress IS 'runs in progress: rows, percent, rate and remaining time (needs shared_preload_libraries)';
COMMENT ON VIEW archive_ext.events IS 'what happened to partitions: who, when, from, to, why; newest first';
COMMENT ON VIEW archive_ext.policies IS 'archive policies';

COMMENT ON FUNCTION archive_partition IS 'archives a partition: freezes it, writes Parquet, reads it back, swaps in a foreign table';
COMMENT ON FUNCTION archive_partitions IS 'archives several partitions; all are verified before the first is swapped';
COMMENT ON PROCEDURE archive_partition_steps IS 'archives several partitions, committing after each step; called again after a crash it goes on';
COMMENT ON FUNCTION reattach_partition IS 'puts an archived partition back into its table, from the local copy or from its objects';
COMMENT ON FUNCTION cancel_job IS 'ends a job, also one that runs in another session, and makes its partition writable again';
COMMENT ON FUNCTION pause_job IS 'stops a job after its present step, until resume_job';
COMMENT ON FUNCTION resume_job IS 'lets a paused job go on';
COMMENT ON FUNCTION retry_job IS 'starts a job again that was given up or cancelled';
COMMENT ON PROCEDURE run_lifecycle IS 'does what the policies say is due, committing after each step; what fails is tried again by a later call';
COMMENT ON FUNCTION check_storage IS 'tries put, range get, list and delete on a storage, one row for each';
COMMENT ON FUNCTION adopt_storage IS 'takes over a storage prefix that another cluster claimed (superusers only)';
COMMENT ON FUNCTION import_archive IS 'rebuilds tables, foreign tables and catalog from the manifests of a storage (superusers only: it runs their SQL)';
COMMENT ON FUNCTION set_archive_policy IS 'sets how a table ages, and where to; NULL leaves a setting as it is, clear removes those it names';
COMMENT ON FUNCTION drop_archive_policy IS 'removes the archive policy of a table';
COMMENT ON FUNCTION export_policies IS 'the policies of your tables as JSON, for review and import_policies';
COMMENT ON FUNCTION import_policies IS 'sets policies as exported; a dry run (the default) tells what would change';

COMMENT ON FUNCTION archive_ext.refuse_write IS 'trigger function that refuses writes to frozen partitions';
COMMENT ON FUNCTION archive_ext.begin_archive IS 'internal: the job of archive_partition_steps for a partition';
COMMENT ON FUNCTION archive_ext.archive_step IS 'internal: the next step of a job';
COMMENT ON FUNCTION archive_ext.fail_job IS 'internal: ends a job after an error and lifts its guards';
COMMENT ON FUNCTION archive_ext.schedule_jobs IS 'internal: adds a job for everything that is due';
COMMENT ON FUNCTION archive_ext.next_job IS 'internal: takes up the next job';
COMMENT ON FUNCTION archive_ext.lifecycle_step IS 'internal: the next step of a job that was taken up';
COMMENT ON FUNCTION archive_ext.job_failed IS 'internal: puts a job back after an error, or gives it up';
COMMENT ON FUNCTION archive_ext.progress_slots IS 'internal: the rows of archive_ext.progress';
COMMENT ON FUNCTION archive_ext.archive_fdw_handler IS 'handler of archive_fdw';
COMMENT ON FUNCTION archive_ext.archive_fdw_validator IS 'validator of archive_fdw: servers, user mappings and foreign tables';

COMMENT ON FUNCTION archive_ext.before_ddl IS 'event trigger function: makes way for ALTER TABLE on a table that has an archive';
COMMENT ON FUNCTION archive_ext.after_ddl IS 'event trigger function: the archive of a table follows its ALTER TABLE, GRANT, REVOKE and policies';
COMMENT ON FUNCTION archive_ext.after_drop IS 'event trigger function: the archive of a table follows drops that cascade to its columns';
COMMENT ON EVENT TRIGGER archive_ext_before_ddl IS 'makes way for ALTER TABLE on tables that have an archive';
COMMENT ON EVENT TRIGGER archive_ext_after_ddl IS 'keeps the archive of a table in step with its columns, privileges and policies';
COMMENT ON EVENT TRIGGER archive_ext_after_drop IS 'keeps the archive of a table in step when a column goes with its type';
