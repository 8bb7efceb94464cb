-- Roles for people who look after archives. They belong to the cluster: other databases have them too, a dump does not hold
-- them, and DROP EXTENSION leaves them. One that exists already is used as it is.
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT * FROM (VALUES
            ('archive_ext_admin', 'archive_ext: may set policies, steer jobs and adopt storages of others'),
            ('archive_ext_reader', 'archive_ext: sees all that its views hold')) AS r (name, comment)
    LOOP
        CONTINUE WHEN to_regrole(made.name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', made.name);
            EXECUTE format('COMMENT ON ROLE %I IS %L', made.name, made.comment);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- CREATE EXTENSION in another database was faster.
        END;
    END LOOP;
END
$$;
GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO archive_ext_admin;
GRANT INSERT, UPDATE, DELETE ON archive_ext.storage_price TO archive_ext_admin;
