CREATE SCHEMA archive_ext;

-- In archive_ext and not beside the verbs, so that fixed statements can name it wherever the verbs are installed.
CREATE TYPE archive_ext.lifecycle_status AS ENUM ('LIVE', 'HOT', 'WARM', 'ARCHIVED');
