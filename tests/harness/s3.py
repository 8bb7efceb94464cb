"""S3 servers on loopback, and a bucket of one with what a test wants to know about it.

LocalStack verifies checksums and lists multipart uploads but takes any credentials; s3s-fs checks signatures; moto has frozen storage
classes, whose restores get on as a test says.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from psycopg import sql

REGION = "eu-west-1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process. Its log is shown when it does not start."""

    def __init__(self, root, access_key, secret_key):
        self.root, self.access_key, self.secret_key = root, access_key, secret_key
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._log_path = root / "server.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), env={**os.environ, **self.environment()}, cwd=root,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )
        self._wait_ready(60)

    def environment(self):
        return {}

    def _wait_ready(self, seconds):
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.1)
        log = self._log_path.read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"{self.command()} did not start:\n{log}")

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.root)

    def client(self):
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=REGION,
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1},
                          connect_timeout=10, read_timeout=60, proxies={}),
        )


class LocalStack(Server):
    def command(self):
        return [os.environ["LOCALSTACK_PYTHON"], "-m", "localstack.runtime.main"]

    def environment(self):
        return {
            "GATEWAY_LISTEN": f"127.0.0.1:{self.port}",
            "SERVICES": "s3",
            "EAGER_SERVICE_LOADING": "1",
            "FILESYSTEM_ROOT": str(self.root),
            "TMPDIR": str(self.root),
            "OVERRIDE_IN_DOCKER": "0",
            # it would call home for these
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DISABLE_EVENTS": "1",
            "DNS_ADDRESS": "0",
        }


class Moto(Server):
    def command(self):
        return [os.environ["MOTO_PYTHON"], "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def reads(self):
        """How many GETs of objects it has answered."""
        return sum('"GET /' in line and "list-type" not in line for line in self._log_path.read_text(errors="replace").splitlines())

    def restores_take(self, looks):
        """A restore is done when so many HEADs have asked how far it is."""
        wanted = {"model_name": "s3::keyrestore", "transition": {"progression": "manual", "times": looks}}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/state-manager/set-transition", data=json.dumps(wanted).encode(),
                                         headers={"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()


class S3sFs(Server):
    def command(self):
        data = self.root / "data"
        data.mkdir(exist_ok=True)
        return [os.environ["S3S_FS"], "--host", "127.0.0.1", "--port", str(self.port),
                "--access-key", self.access_key, "--secret-key", self.secret_key, str(data)]


@dataclass
class Bucket:
    server: Server
    name: str
    prefix: str = "arch"
    # Whether it keeps versions and can lock them.
    locks: bool = False

    def __post_init__(self):
        self.client = self.server.client()
        more = {"ObjectLockEnabledForBucket": True} if self.locks else {}
        self.client.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": REGION}, **more)

    def keep_versions(self):
        """From now on what is deleted or replaced stays as a version."""
        self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})
        return self

    @property
    def location(self):
        return f"s3://{self.name}/{self.prefix}"

    def create_storage(self, conn, name="cold", *, endpoint=None, user="CURRENT_USER", secret_key=None, **options):
        """CREATE SERVER and CREATE USER MAPPING for this bucket, and make it the session's default storage."""
        options = {"location": self.location, "region": REGION, "endpoint": endpoint or self.server.endpoint,
                   "path_style": "true", **options}
        server = sql.Identifier(name)
        conn.execute(sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER archive_fdw OPTIONS ({})").format(
            server, option_list(options)))
        conn.execute(sql.SQL("CREATE USER MAPPING FOR {} SERVER {} OPTIONS ({})").format(
            sql.SQL(user), server, option_list({"access_key_id": self.server.access_key,
                                                "secret_access_key": secret_key or self.server.secret_key})))
        conn.execute(sql.SQL("SET archive_ext.default_storage = {}").format(sql.Literal(name)))
        conn.execute(sql.SQL("ALTER DATABASE {} SET archive_ext.default_storage = {}").format(
            sql.Identifier(conn.info.dbname), sql.Literal(name)))

    def keys(self, contains=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(o["Key"] for page in pages for o in page.get("Contents", []) if contains in o["Key"])

    def data_keys(self):
        return [k for k in self.keys() if k.endswith(".parquet")]

    def manifest_keys(self):
        return self.keys("/_manifests/")

    def read(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def write(self, key, body):
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def exists(self, key):
        try:
            self.client.head_object(Bucket=self.name, Key=key)
            return True
        except ClientError as e:
            if e.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise

    def open_uploads(self):
        """Multipart uploads neither completed nor aborted (LocalStack only)."""
        return [u["Key"] for u in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])]


def option_list(options):
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(k), sql.Literal(str(v))) for k, v in options.items())
