"""Fixtures of the end-to-end and crash tests: `make test-e2e`, or `scripts/pytest tests/e2e/test_x.py -k y`."""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.cluster import Cluster, Database  # noqa: E402
from harness.proxy import FaultProxy  # noqa: E402
from harness.s3 import Bucket, LocalStack, Moto, S3sFs  # noqa: E402
from harness.type_matrix import TypeMatrix  # noqa: E402

_numbers = itertools.count(1)


def pytest_addoption(parser):
    parser.addoption("--type-matrix", type=Path, help="write the table of exact types to this file")


@pytest.fixture(scope="session")
def type_matrix(request):
    """Takes down which types were exact everywhere; with --type-matrix=FILE the table is written."""
    matrix = TypeMatrix()
    yield matrix
    if path := request.config.getoption("--type-matrix"):
        matrix.write(path)


@pytest.fixture(scope="session")
def cluster():
    cluster = Cluster()
    yield cluster
    log = cluster.log()
    cluster.stop()
    crashes = [line for line in log.splitlines() if "PANIC" in line or "was terminated by signal" in line]
    assert not crashes, crashes


@pytest.fixture
def role(cluster):
    """Makes login roles: role("reader") returns the name. `db` stands on it, so roles outlive what they own."""
    made = []

    def make(name):
        name = f"{name}_{next(_numbers)}"
        with cluster.connect() as conn:
            conn.execute(f"CREATE ROLE {name} LOGIN")
        made.append(name)
        return name

    yield make
    with cluster.connect() as conn:
        for name in made:
            conn.execute(f"DROP ROLE {name}")


@pytest.fixture
def db(cluster, role):
    """A fresh database with the extension."""
    database = Database(cluster, f"test_{next(_numbers)}")
    yield database
    database.drop()


@pytest.fixture(scope="session")
def localstack(tmp_path_factory):
    server = LocalStack(tmp_path_factory.mktemp("localstack"), "test-access-key", "test-secret-key")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3s_fs(tmp_path_factory):
    server = S3sFs(tmp_path_factory.mktemp("s3s-fs"), "signed-access-key", "sK/Canary+Secret0123456789abcdefghijklmn")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    server = Moto(tmp_path_factory.mktemp("moto"), "moto-access-key", "moto-secret-key")
    yield server
    server.stop()


@pytest.fixture
def s3(localstack):
    """A bucket of the server that verifies checksums."""
    return Bucket(localstack, f"bucket-{next(_numbers)}")


@pytest.fixture
def s3_signed(s3s_fs):
    """A bucket of the server that verifies signatures."""
    return Bucket(s3s_fs, f"bucket-{next(_numbers)}")


@pytest.fixture(params=["s3", "s3_signed"])
def any_s3(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def fault_proxy(localstack):
    """Stands before the `s3` server: s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)."""
    proxy = FaultProxy(localstack.port)
    yield proxy
    proxy.stop()
