"""A loopback HTTP proxy in front of an S3 server that breaks chosen requests in chosen ways.

    proxy.on("PUT", r"\\.parquet", times=2, fault=Status(503, "SlowDown"))

The first rule whose method and target (path and query) match, and which has uses left, decides. What no rule names is
passed on unchanged. Signatures stay valid, since the Host header is passed on too.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Status(NamedTuple):
    """Answer with an S3 error instead of asking the server."""
    code: int
    error: str


class Reset(NamedTuple):
    """A TCP reset: before the request is passed on, or in the middle of the answer's body."""
    in_answer: bool = False


class Stall(NamedTuple):
    """Answer nothing, until `Rule.release` is set or the seconds are over; then close."""
    seconds: float = 60


class Truncate(NamedTuple):
    """Announce the whole answer, send half of its body, close."""


class CorruptAnswer(NamedTuple):
    """Flip one bit in the middle of the answer's body."""


class CorruptRequest(NamedTuple):
    """Flip one bit in the middle of the request's body."""


class Swallow(NamedTuple):
    """Say that the object was written, or the upload completed, and keep nothing. Other requests are passed on."""


class After(NamedTuple):
    """Pass the request on; when the server has answered, and before the client knows, call this."""
    call: Callable


@dataclass
class Rule:
    method: re.Pattern
    target: re.Pattern
    fault: object
    times: int | None
    hits: int = 0
    hit: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


class Message(NamedTuple):
    start: str
    headers: list
    body: bytes

    def header(self, name):
        return next((v for k, v in self.headers if k.lower() == name), None)

    def head(self):
        return "\r\n".join([self.start, *(f"{k}: {v}" for k, v in self.headers), "", ""]).encode("latin-1")


class FaultProxy:
    def __init__(self, upstream_port):
        self._upstream_port = upstream_port
        self._lock = threading.Lock()
        self._rules, self._requests, self._sockets = [], [], set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, method, target, *, fault, times=None):
        rule = Rule(re.compile(method), re.compile(target), fault, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self):
        """Forget all rules, let go of all stalled requests."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.release.set()

    def requests(self, method=".*", target=""):
        """How many requests came in so far whose method and target match."""
        with self._lock:
            return sum(bool(re.fullmatch(method, m) and re.search(target, t)) for m, t in self._requests)

    def stop(self):
        self.heal()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        with self._lock:
            for s in self._sockets:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client):
        with self._lock:
            self._sockets.add(client)
        try:
            with (
                client, client.makefile("rb") as requests,
                socket.create_connection(("127.0.0.1", self._upstream_port), timeout=120) as upstream,
                upstream.makefile("rb") as answers,
            ):
                while request := read_request(client, requests):
                    if not self._exchange(request, client, upstream, answers):
                        break
        except (OSError, EOFError, ValueError):
            pass  # a broken connection is the other side's to notice
        finally:
            with self._lock:
                self._sockets.discard(client)

    def _exchange(self, request, client, upstream, answers):
        """One request and its answer. False when the connection is of no more use."""
        method, target, _ = request.start.split(" ", 2)
        rule = self._match(method, target)
        fault = rule.fault if rule else None
        if isinstance(fault, Status):
            client.sendall(error_answer(fault))
            return True
        if isinstance(fault, Stall):
            rule.release.wait(fault.seconds)
            return False
        if isinstance(fault, Reset) and not fault.in_answer:
            reset_on_close(client)
            return False
        if isinstance(fault, Swallow) and (method == "PUT" and "uploadId=" not in target
                                           or method == "POST" and "uploadId=" in target):
            client.sendall(success(target))
            return True
        if isinstance(fault, CorruptRequest):
            request = request._replace(body=flip(request.body))
        upstream.sendall(request.head() + request.body)
        answer = read_answer(answers, method)
        if isinstance(fault, After):
            fault.call()
        if isinstance(fault, CorruptAnswer):
            answer = answer._replace(body=flip(answer.body))
        if isinstance(fault, (Truncate, Reset)):
            client.sendall(answer.head() + answer.body[: len(answer.body) // 2])
            if isinstance(fault, Reset):
                reset_on_close(client)
            return False
        client.sendall(answer.head() + answer.body)
        return "close" not in ((answer.header("connection") or "") + (request.header("connection") or "")).lower()

    def _match(self, method, target):
        with self._lock:
            self._requests.append((method, target))
            for rule in self._rules:
                if rule.times != rule.hits and rule.method.fullmatch(method) and rule.target.search(target):
                    rule.hits += 1
                    rule.hit.set()
                    return rule
        return None


def read_request(client, stream):
    message = read_head(stream)
    if message is None:
        return None
    if (message.header("expect") or "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        message = message._replace(headers=[(k, v) for k, v in message.headers if k.lower() != "expect"])
    return message._replace(body=read_body(stream, message, default=b""))


def read_answer(stream, method):
    message = read_head(stream)
    while message is not None and message.start.split(" ")[1].startswith("1"):
        message = read_head(stream)
    if message is None:
        raise EOFError
    if method == "HEAD" or message.start.split(" ")[1] in ("204", "304"):
        return message
    return message._replace(body=read_body(stream, message, default=None))


def read_head(stream):
    start = stream.readline().decode("latin-1").rstrip("\r\n")
    if not start:
        return None
    headers = []
    while line := stream.readline().decode("latin-1").rstrip("\r\n"):
        name, _, value = line.partition(":")
        headers.append((name, value.strip()))
    return Message(start, headers, b"")


def read_body(stream, message, default):
    """The body as it is on the wire. `default` stands for one of undeclared length; None: all there is."""
    if "chunked" in (message.header("transfer-encoding") or "").lower():
        return b"".join(read_chunks(stream))
    if (length := message.header("content-length")) is not None:
        body = stream.read(int(length))
        if len(body) != int(length):
            raise EOFError
        return body
    return stream.read() if default is None else default


def read_chunks(stream):
    while True:
        size = stream.readline()
        yield size
        n = int(size.split(b";")[0], 16)
        if n == 0:
            break
        yield stream.read(n + 2)
    while True:
        trailer = stream.readline()
        yield trailer
        if trailer in (b"\r\n", b""):
            return


def error_answer(fault):
    body = (f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{fault.error}</Code>'
            f"<Message>injected</Message><RequestId>0</RequestId></Error>").encode()
    return (f"HTTP/1.1 {fault.code} Injected\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def success(target):
    body = b""
    if "uploadId=" in target:
        body = (b'<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUploadResult>'
                b'<ETag>"0123456789abcdef0123456789abcdef-1"</ETag></CompleteMultipartUploadResult>')
    return (f'HTTP/1.1 200 OK\r\nETag: "0123456789abcdef0123456789abcdef"\r\nContent-Type: application/xml\r\n'
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def flip(body):
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0x01]) + body[middle + 1:]


def reset_on_close(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
