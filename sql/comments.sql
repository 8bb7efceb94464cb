COMMENT ON SCHEMA archive_ext IS 'catalog and views of archive_ext';
COMMENT ON TYPE archive_ext.lifecycle_status IS 'where a partition is in its life: LIVE, HOT, WARM, ARCHIVED';
COMMENT ON FOREIGN DATA WRAPPER archive_fdw IS 'storages of archive_ext (servers) and archived partitions (foreign tables)';

COMMENT ON TABLE archive_ext.managed_table IS 'tables that archive_ext manages, how they age, and where their archive relations are';
COMMENT ON TABLE archive_ext.archive_policy IS 'what owners decided about the archive of their tables; see set_archive_policy';
COMMENT ON TABLE archive_ext.child_table IS 'tables whose rows age with those of a parent; see add_child_table';
COMMENT ON TABLE archive_ext.column_map IS 'which archived field each column of a managed table is, and how rows archived before it existed are filled';
COMMENT ON TABLE archive_ext.partition IS 'every partition that is no longer LIVE or was ever archived: status, objects, local copy';
COMMENT ON TABLE archive_ext.archival_job IS 'one row for each run: archive, reattach, and the steps of the lifecycle';
COMMENT ON TABLE archive_ext.object IS 'the Parquet objects of archived partitions, with digests and column ranges';
COMMENT ON TABLE archive_ext.object_position IS 'where the rows of each object begin in the heap, so that archiving again uploads only what changed';
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
COMMENT ON FUNCTION add_child_table IS 'makes a table age with the one that it references: they are archived and come back together';
COMMENT ON FUNCTION drop_child_table IS 'lets a child table age on its own again';
COMMENT ON FUNCTION discover_child_tables IS 'tables that reference a table, and whether they can be its children';
COMMENT ON FUNCTION archive_family IS 'archives a partition with the partitions of its children, children first';
COMMENT ON PROCEDURE archive_family_steps IS 'the same, committing after each step; called again after a crash it goes on';
COMMENT ON FUNCTION family_blockers IS 'what keeps a partition and its children from being archived, with remedies';
COMMENT ON FUNCTION reattach_family IS 'puts an archived partition back with those of its children, parents first';
COMMENT ON FUNCTION set_lifecycle_where IS 'gives the rows that match another status, which moves them and their children to its partition';
COMMENT ON PROCEDURE set_lifecycle_where_steps IS 'the same in batches, each committed; called again after a crash it goes on';
COMMENT ON FUNCTION cancel_job IS 'ends an interrupted job and makes its partition writable again';
COMMENT ON FUNCTION check_storage IS 'tries put, range get, list and delete on a storage, one row for each';
COMMENT ON FUNCTION adopt_storage IS 'takes over a storage prefix that another cluster claimed (superusers only)';
COMMENT ON FUNCTION import_archive IS 'rebuilds tables, foreign tables and catalog from the manifests of a storage (superusers only: it runs their SQL)';
COMMENT ON FUNCTION set_archive_policy IS 'sets storage, drop_after and archive names of a table; NULL leaves a setting as it is';
COMMENT ON FUNCTION drop_archive_policy IS 'removes the archive policy of a table';

COMMENT ON FUNCTION use_data_partition() IS 'limits the transaction to the partitions that the headers in request.headers name (for PostgREST)';
COMMENT ON FUNCTION use_data_partition(json) IS 'limits the transaction to the partitions that X-Data-Partition headers name; without any it is not limited';
COMMENT ON FUNCTION use_data_partition(text, boolean) IS 'sets archive_ext.data_partition, for the session unless is_local; NULL unsets it';

COMMENT ON FUNCTION archive_ext.labels_changed IS 'trigger function: sessions plan again what reads partitions whose labels changed';
COMMENT ON FUNCTION set_lifecycle IS 'gives a partition, or all leaves below it, a status (HOT, WARM, ARCHIVED, and back); its new label';
COMMENT ON FUNCTION partition_label IS 'the label of a status and the period that holds a time: LIVE_202401, WARM_2024, HOT';
COMMENT ON FUNCTION premake_partitions IS 'makes the coming partitions of a table that is partitioned by time';
COMMENT ON FUNCTION drain_default IS 'moves the rows that a DEFAULT partition caught into partitions of their periods';
COMMENT ON FUNCTION merge_partitions IS 'merges adjacent WARM partitions into one; all in the caller''s transaction';
COMMENT ON PROCEDURE merge_partitions_steps IS 'merges adjacent partitions into one WARM partition, committing after each step; called again after a crash it goes on';
COMMENT ON FUNCTION split_partition IS 'splits a WARM partition into those of a finer granularity; all in the caller''s transaction';
COMMENT ON PROCEDURE split_partition_steps IS 'splits a partition into those of a finer granularity, committing after each step; called again after a crash it goes on';
COMMENT ON FUNCTION register_static_table IS 'registers a table as one that never ages: it is refused everywhere, with the reason';
COMMENT ON FUNCTION unregister_static_table IS 'lets a table that was registered as static age again';

COMMENT ON PROCEDURE archive_ext.run_steps IS 'internal: runs a job to its end, committing after each step';
COMMENT ON FUNCTION archive_ext.begin_merge IS 'internal: the job of merge_partitions_steps';
COMMENT ON FUNCTION archive_ext.begin_split IS 'internal: the job of split_partition_steps';
COMMENT ON FUNCTION archive_ext.refuse_write IS 'trigger function that refuses writes to frozen partitions';
COMMENT ON FUNCTION archive_ext.begin_archive IS 'internal: the job of archive_partition_steps for a partition';
COMMENT ON FUNCTION archive_ext.begin_family IS 'internal: the job of archive_family_steps for a partition';
COMMENT ON FUNCTION archive_ext.begin_rows IS 'internal: the job of set_lifecycle_where_steps';
COMMENT ON FUNCTION archive_ext.rows_due IS 'internal: rows of a lifecycle-partitioned table that are due for another status, and the request of their job';
COMMENT ON FUNCTION archive_ext.archive_step IS 'internal: the next step of a job';
COMMENT ON FUNCTION archive_ext.fail_job IS 'internal: ends a job after an error and lifts its guards';
COMMENT ON FUNCTION archive_ext.progress_slots IS 'internal: the rows of archive_ext.progress';
COMMENT ON FUNCTION archive_ext.archive_fdw_handler IS 'handler of archive_fdw';
COMMENT ON FUNCTION archive_ext.archive_fdw_validator IS 'validator of archive_fdw: servers, user mappings and foreign tables';

COMMENT ON FUNCTION archive_ext.before_ddl IS 'event trigger function: makes way for ALTER TABLE on a table that has an archive';
COMMENT ON FUNCTION archive_ext.after_ddl IS 'event trigger function: the archive of a table follows its ALTER TABLE, GRANT, REVOKE and policies';
COMMENT ON FUNCTION archive_ext.after_drop IS 'event trigger function: the archive of a table follows drops that cascade to its columns';
COMMENT ON EVENT TRIGGER archive_ext_before_ddl IS 'makes way for ALTER TABLE on tables that have an archive';
COMMENT ON EVENT TRIGGER archive_ext_after_ddl IS 'keeps the archive of a table in step with its columns, privileges and policies';
COMMENT ON EVENT TRIGGER archive_ext_after_drop IS 'keeps the archive of a table in step when a column goes with its type';
