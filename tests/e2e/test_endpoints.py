"""Where storages may point: archive_ext.allowed_endpoints, and never to what hands out a machine's credentials (P8)."""

import socket
import threading
import time

import psycopg
import pytest

from harness.orders import archive, create_orders

REFUSED = psycopg.errors.InsufficientPrivilege
METADATA = ["http://169.254.169.254", "http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376", "http://169.254.43518",
            "http://[::ffff:169.254.169.254]", "http://[::ffff:a9fe:a9fe]", "http://[fd00:ec2::254]", "http://169.254.170.2:80",
            "http://100.100.100.200", "http://metadata.google.internal", "http://METADATA.google.internal."]


class Listener:
    """A server on loopback that notes who connects, and answers each request with the same bytes."""

    def __init__(self, answer):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.connections, self._answer = self._socket.getsockname()[1], 0, answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.recv(65536)
                connection.sendall(self._answer)

    def close(self):
        self._socket.close()


@pytest.fixture
def listener():
    made = []

    def make(answer=b""):
        made.append(Listener(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


def create_server(conn, endpoint, name="far", **more):
    options = {"location": "s3://bucket/x", "region": "eu-west-1", "endpoint": endpoint, "max_attempts": "1", **more}
    listed = ", ".join(f"{option} '{value}'" for option, value in options.items() if value is not None)
    conn.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER archive_fdw OPTIONS ({listed})")


@pytest.mark.parametrize("endpoint", METADATA)
def test_p8_metadata_services_are_no_storage(db, endpoint):
    """Of a superuser either: nobody means it."""
    with pytest.raises(REFUSED, match="metadata service"):
        create_server(db.conn, endpoint)
    create_server(db.conn, "http://127.0.0.1:9")
    with pytest.raises(REFUSED, match="metadata service"):
        db.execute(f"ALTER SERVER far OPTIONS (SET endpoint '{endpoint}')")


def test_p8_only_listed_hosts_are_storages(db, role):
    user = role("app")
    db.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO {user}")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.allowed_endpoints = '*.example.com, 127.0.0.1:9'")
    session = db.connect(user)
    for endpoint in ["http://evil.org", "http://example.com.evil.org", "http://127.0.0.1:10", None]:
        with pytest.raises(REFUSED) as refused:
            create_server(session, endpoint)
        assert "archive_ext.allowed_endpoints" in refused.value.diag.message_hint
    create_server(session, "http://127.0.0.1:9")
    create_server(session, "https://s3.example.com", name="other")
    with pytest.raises(REFUSED):
        session.execute("ALTER SERVER other OPTIONS (SET endpoint 'https://evil.org')")
    # Only a superuser says what is allowed; what was set before the library was loaded is checked when it is.
    with pytest.raises(REFUSED):
        session.execute("SET archive_ext.allowed_endpoints = '*'")


def test_p8_the_list_counts_at_use_too(db, s3_signed):
    s3_signed.create_storage(db.conn)
    create_orders(db.conn, months=1, rows=10)
    archive(db, "orders_2024_01", drop_local="0")
    assert db.value("SELECT count(note) FROM archive.orders") == 8
    db.execute("SET archive_ext.allowed_endpoints = 's3.example.com'")
    with pytest.raises(REFUSED, match="is not allowed"):
        db.value("SELECT count(note) FROM archive.orders")
    db.execute("SET archive_ext.allowed_endpoints = '127.0.0.*'")
    assert db.value("SELECT count(note) FROM archive.orders") == 8
    db.execute("SET archive_ext.allowed_endpoints = 'http://no-pattern'")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid endpoint pattern"):
        db.value("SELECT count(note) FROM archive.orders")


def test_p8_redirects_are_not_followed(db, listener):
    """An allowed host could else send us to one that is not, with the signature of the request."""
    secret_place = listener(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nkeys")
    answer = (f"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{secret_place.port}/latest/meta-data/\r\n"
              "content-length: 0\r\nconnection: close\r\n\r\n")
    door = listener(answer.encode())
    create_server(db.conn, f"http://127.0.0.1:{door.port}")
    db.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (access_key_id 'AKIAKEY', secret_access_key 'secret')")
    checks = db.all("SELECT * FROM check_storage('far')")
    assert door.connections > 0 and not any(check.ok for check in checks[:1])
    assert secret_place.connections == 0


def test_p8_the_environments_credentials_ask_no_metadata_service(db, listener):
    """The variables that lead AWS's own chain of providers to other places are not looked at: there is no such chain."""
    place = listener()
    create_server(db.conn, f"http://127.0.0.1:{place.port}", credentials="environment")
    begun = time.monotonic()
    with pytest.raises(psycopg.Error) as refused:
        db.execute("SELECT * FROM check_storage('far')")
    assert time.monotonic() - begun < 1
    assert "AWS_ACCESS_KEY_ID" in refused.value.diag.message_hint
    assert place.connections == 0
