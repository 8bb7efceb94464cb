"""The harness itself: what it claims to break it breaks, and what it passes on it does not."""

import socket
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from harness.proxy import After, CorruptAnswer, CorruptRequest, Reset, Stall, Status, Truncate
from harness.sessions import Call

BODY = bytes(range(256)) * 4096


@pytest.fixture
def through(s3, fault_proxy):
    return boto3.client(
        "s3", endpoint_url=fault_proxy.endpoint, region_name="eu-west-1",
        aws_access_key_id=s3.server.access_key, aws_secret_access_key=s3.server.secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=5, proxies={},
                      response_checksum_validation="when_required"),
    )


def get(client, bucket, key="a.parquet"):
    return client.get_object(Bucket=bucket.name, Key=key)["Body"].read()


def put(client, bucket, key="a.parquet"):
    client.put_object(Bucket=bucket.name, Key=key, Body=BODY)


def test_the_servers_keep_what_they_get(any_s3):
    put(any_s3.client, any_s3)
    assert any_s3.read("a.parquet") == BODY
    assert any_s3.data_keys() == ["a.parquet"]
    assert not any_s3.exists("b.parquet")


def test_the_main_server_verifies_checksums(s3):
    with pytest.raises(ClientError, match="BadDigest"):
        s3.client.put_object(Bucket=s3.name, Key="bad", Body=b"x", ChecksumCRC32="AAAAAA==")


def test_the_main_server_lists_open_uploads(s3):
    upload = s3.client.create_multipart_upload(Bucket=s3.name, Key="big")["UploadId"]
    assert s3.open_uploads() == ["big"]
    s3.client.abort_multipart_upload(Bucket=s3.name, Key="big", UploadId=upload)
    assert s3.open_uploads() == []


def test_the_signed_server_refuses_a_wrong_secret(s3_signed):
    put(s3_signed.client, s3_signed)
    wrong = boto3.client("s3", endpoint_url=s3_signed.server.endpoint, region_name="eu-west-1",
                         aws_access_key_id=s3_signed.server.access_key, aws_secret_access_key="wrong",
                         config=Config(s3={"addressing_style": "path"}, proxies={}))
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        get(wrong, s3_signed)


def test_the_proxy_passes_on_unchanged(s3, fault_proxy, through):
    put(through, s3)
    assert get(through, s3) == BODY == s3.read("a.parquet")
    assert fault_proxy.requests("PUT", r"a\.parquet") == 1
    assert fault_proxy.requests() == 2


def test_the_proxy_answers_errors_so_many_times(s3, fault_proxy, through):
    put(through, s3)
    fault_proxy.on("GET", r"\.parquet", fault=Status(503, "SlowDown"), times=2)
    for _ in range(2):
        with pytest.raises(ClientError, match="SlowDown"):
            get(through, s3)
    assert get(through, s3) == BODY


@pytest.mark.parametrize("fault", [Reset(), Reset(in_answer=True), Truncate()])
def test_the_proxy_breaks_connections(s3, fault_proxy, through, fault):
    put(through, s3)
    fault_proxy.on("GET", r"\.parquet", fault=fault)
    with pytest.raises((BotoCoreError, HTTPClientError)):
        get(through, s3)


def test_the_proxy_resets_rather_than_closes(fault_proxy):
    fault_proxy.on("GET", "", fault=Reset())
    with socket.create_connection(("127.0.0.1", int(fault_proxy.endpoint.rpartition(":")[2])), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            s.recv(1)


def test_the_proxy_stalls_until_healed(s3, fault_proxy, through):
    put(through, s3)
    rule = fault_proxy.on("GET", r"\.parquet", fault=Stall(60))
    call = Call(get, through, s3)
    assert rule.hit.wait(5)
    time.sleep(0.3)
    fault_proxy.heal()
    with pytest.raises(BotoCoreError):
        call.result(5)
    assert get(through, s3) == BODY


def test_the_proxy_corrupts_answers_and_requests(s3, fault_proxy, through):
    put(through, s3)
    fault_proxy.on("GET", r"\.parquet", fault=CorruptAnswer(), times=1)
    assert sum(a != b for a, b in zip(get(through, s3), BODY, strict=True)) == 1
    fault_proxy.on("PUT", r"\.parquet", fault=CorruptRequest(), times=1)
    with pytest.raises(ClientError):
        put(through, s3)


def test_the_proxy_calls_in_between(s3, fault_proxy, through):
    seen = []
    fault_proxy.on("PUT", r"\.parquet", fault=After(lambda: seen.append(s3.exists("a.parquet"))))
    put(through, s3)
    assert seen == [True]
