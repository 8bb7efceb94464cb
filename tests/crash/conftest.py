import pytest

from harness.cluster import Cluster


@pytest.fixture(scope="module")
def cluster():
    """Of its own, since it is killed again and again."""
    cluster = Cluster()
    yield cluster
    cluster.stop()
