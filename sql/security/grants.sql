-- Nothing in the catalog is PUBLIC: minima, maxima and errors are user data. The views filter by privilege.
REVOKE ALL ON ALL TABLES IN SCHEMA archive_ext FROM PUBLIC;
GRANT USAGE ON SCHEMA archive_ext TO PUBLIC;
GRANT SELECT ON archive_ext.partitions, archive_ext.jobs, archive_ext.objects, archive_ext.progress,
    archive_ext.workers, archive_ext.policies, archive_ext.events, archive_ext.alerts, archive_ext.month_counts, archive_ext.findings,
    archive_ext.storage_price, archive_ext.retrieval_price, archive_ext.restores, archive_ext.costs, archive_ext.savings,
    archive_ext.copies, archive_ext.chains, archive_ext.erasures, archive_ext.legal_holds, archive_ext.expiring, archive_ext.deletions TO PUBLIC;
-- On a table of theirs, people could use it to make all sessions plan anew.
REVOKE EXECUTE ON FUNCTION archive_ext.labels_changed() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION archive_ext.replace_price, archive_ext.replace_retrieval_price FROM PUBLIC;
