-- Plans depend on the labels of partitions: a change makes sessions plan again, however it was made.

CREATE TRIGGER labels_changed AFTER INSERT OR UPDATE OR DELETE ON archive_ext.partition
    FOR EACH ROW EXECUTE FUNCTION archive_ext.labels_changed('hot_table', 'foreign_table');
CREATE TRIGGER labels_changed AFTER INSERT OR UPDATE OR DELETE ON archive_ext.managed_table
    FOR EACH ROW EXECUTE FUNCTION archive_ext.labels_changed('source', 'archive_table');
ALTER TABLE archive_ext.partition ENABLE ALWAYS TRIGGER labels_changed;
ALTER TABLE archive_ext.managed_table ENABLE ALWAYS TRIGGER labels_changed;
