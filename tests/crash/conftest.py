import pytest

from harness.cluster import Cluster


@pytest.fixture(scope="module")
def cluster():
    """Of its own, since it is killed again and again."""
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def cold(db, cluster):
    """A database whose storage is a directory of the cluster."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    db.reconnect()
    return db
