-- What the examples begin with: quiet output, the extension, and a storage at :storage.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;
SET timezone = 'UTC';

CREATE EXTENSION IF NOT EXISTS archive_ext;
CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location :'storage');
SET archive_ext.default_storage = 'cold';
