"""A binary cache on loopback that fails as told: every way in which a body, a narinfo or a server can be bad.

A fault is a function `(handler, body)` that answers one request; `body` is what a healthy cache would send.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """A running cache: files by path (or a directory), faults by path, and what was asked."""

    def __init__(self, files):
        self.files = files if isinstance(files, dict) else None
        self.root = None if self.files is not None else Path(files)
        self.faults = {}
        self.by_ending = {}
        self.everywhere = None
        self.requests = []
        self.headers = []
        self.url = ""
        self.leave = threading.Event()

    def body(self, path):
        if self.files is not None:
            return self.files.get(path)
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def count(self, path):
        return sum(asked == path for asked in self.requests)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def do_GET(self):
        state = self.server_state
        path = self.path.lstrip("/")
        state.requests.append(path)
        state.headers.append(dict(self.headers))
        body = state.body(path)
        ending = next((f for end, f in state.by_ending.items() if path.endswith(end)), None)
        fault = state.faults.get(path) or ending or state.everywhere
        with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            if fault is not None:
                fault(self, body)
            elif body is None:
                answer(self, b"", 404)
            else:
                answer(self, body)

    def do_HEAD(self):
        """Nix asks so whether a narinfo is there; faults are about what GET gives."""
        body = self.server_state.body(self.path.lstrip("/"))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()

    def log_message(self, *_):
        pass


def answer(handler, body, status=200, headers=None, length=None):
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def _cut(handler):
    handler.close_connection = True


def status(code, body=b"oops", **headers):
    return lambda handler, _: answer(
        handler, body, code, {k.replace("_", "-"): v for k, v in headers.items()}
    )


def attic_error(code, name, message=""):
    text = json.dumps({"code": code, "error": name, "message": message or name}).encode()
    return status(code, text, Content_Type="application/json")


def redirect(url, code=307):
    return status(code, b"", Location=url)


def replaced(new):
    """Another body, sent whole; `new` may be a function of the healthy one."""
    return lambda handler, body: answer(handler, new(body) if callable(new) else new)


def cut_after(part):
    """The announced length is right and the connection ends after a part (0..1) of it."""

    def fault(handler, body):
        answer(handler, body[: int(len(body) * part)], length=len(body))
        _cut(handler)

    return fault


def chunked(part=1.0, *, end=True, pieces=4):
    """Chunked transfer, as Attic streams; without `end` the terminating chunk never comes."""

    def fault(handler, body):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        whole = body[: int(len(body) * part)]
        step = max(1, -(-len(whole) // pieces))
        for at in range(0, len(whole), step):
            piece = whole[at : at + step]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            _cut(handler)

    return fault


def until_close(part):
    """HTTP/1.0 without a length, as some proxies send: a broken transfer looks like a clean end."""

    def fault(handler, body):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + body[: int(len(body) * part)])
        _cut(handler)

    return fault


def stall(part=0.0):
    """Some of the body, then silence until the test ends."""

    def fault(handler, body):
        answer(handler, body[: int(len(body) * part)], length=len(body))
        handler.server_state.leave.wait(30)
        _cut(handler)

    return fault


def silence(handler, _):
    """Not even a status line."""
    handler.server_state.leave.wait(30)
    _cut(handler)


def hang_up(handler, _):
    """The connection closes without an answer."""
    _cut(handler)


def no_http(handler, _):
    handler.wfile.write(b"220 mail.example ESMTP ready\r\n\r\n")
    _cut(handler)


def first(times, fault):
    """Bad for the first requests of each path, healthy from then on."""
    seen = {}

    def once(handler, body):
        seen[handler.path] = seen.get(handler.path, 0) + 1
        if seen[handler.path] <= times:
            fault(handler, body)
        else:
            answer(handler, body)

    return once


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that hangs up is no error of the test."""


@contextmanager
def serve(files, *, tls=None):
    """Serve a dict of path to bytes, or a directory, until the block ends."""
    state = Server(files)
    server = _Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"server_state": state}))
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.leave.set()
        server.shutdown()
        thread.join(5)
        server.server_close()


def closed_port():
    """Give an address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
