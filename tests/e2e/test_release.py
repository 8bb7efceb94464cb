"""What is installed for users has nothing that only tests need."""

import os
import subprocess
from pathlib import Path


def test_a_release_has_no_failpoints(db):
    """Whoever may set them can kill the server."""
    db.execute("LOAD 'archive_ext'")
    assert db.value("SELECT count(*) FROM pg_settings WHERE name = 'archive_ext.failpoints'") == 0
    library = Path(subprocess.check_output([os.environ["PG_CONFIG"], "--pkglibdir"], text=True).strip()) / "archive_ext.so"
    assert b"archive_ext.failpoint" not in library.read_bytes()
