"""archive-core's contract suite of the object stores, against a real S3 server."""

import os
import subprocess
from pathlib import Path


def test_s3_keeps_the_store_contract(s3):
    environment = os.environ | {
        "ARCHIVE_EXT_TEST_S3_ENDPOINT": s3.server.endpoint,
        "ARCHIVE_EXT_TEST_S3_BUCKET": s3.name,
    }
    run = subprocess.run(
        ["cargo", "test", "--quiet", "--locked", "-p", "archive-core", "--features", "s3-contract", "--test",
         "s3_contract"],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
