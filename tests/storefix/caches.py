"""Make binary caches by hand, and serve them on loopback with every fault that has been seen in the wild."""

import base64
import hashlib
import lzma
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.storefix.nar_text import directory, nar, regular

from kingpost.storefix.interface import Settings, Wanted
from kingpost.storefix.sources import hashes, open_sources

STORE = "/nix/store"
PARTS = [f"{digit}123456789abcdfghijklmnpqrsvwxyz" for digit in "0123456789abcdfg"]


class Signer:
    """A signing key with a name, as `nix key generate-secret` makes."""

    def __init__(self, name="test-1"):
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())

    @property
    def trusted(self):
        return {self.name: base64.b64encode(self._key.public_key().public_bytes_raw()).decode()}

    def sign(self, text):
        return f"{self.name}:{base64.b64encode(self._key.sign(text.encode())).decode()}"


def store_path(number, name="thing"):
    return f"{STORE}/{PARTS[number]}-{name}"


def make_nar(text="hello\n"):
    return nar(
        directory(
            ("bin", directory(("run", regular(b"#!/bin/sh\n", executable=True)))),
            ("text", regular(text.encode())),
        )
    )


def nix32(data):
    return f"sha256:{hashes.to_nix32(hashlib.sha256(data).digest())}"


def hexed(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make_cache(paths, signer=None, **overrides):
    """Give the files of a cache by name.

    `paths` is store path to (NAR bytes, references); `overrides` replace fields of every narinfo.
    """
    files = {"nix-cache-info": f"StoreDir: {STORE}\nWantMassQuery: 1\nPriority: 30\n".encode()}
    for path, (data, references) in paths.items():
        packed = lzma.compress(data, preset=0)
        url = f"nar/{hashlib.sha256(packed).hexdigest()}.nar.xz"
        fields = {
            "StorePath": path,
            "URL": url,
            "Compression": "xz",
            "NarHash": nix32(data),
            "NarSize": str(len(data)),
            "References": " ".join(sorted(reference.rpartition("/")[2] for reference in references)),
        }
        fields.update(overrides)
        if signer:
            listed = ",".join(sorted(f"{STORE}/{name}" for name in fields["References"].split()))
            fields["Sig"] = signer.sign(f"1;{path};{fields['NarHash']};{fields['NarSize']};{listed}")
        text = "".join(f"{name}: {value}\n" for name, value in fields.items())
        files[f"{path.rpartition('/')[2][:32]}.narinfo"] = text.encode()
        files[url] = packed
    return files


class Server:
    """Serves files below /cache/. `faults` maps a name to a function that answers instead, given the handler.

    Attributes:
        asked: What was asked for, in order.
        files: Name to bytes.
        headers: The headers of the requests, in order.

    """

    def __init__(self, files):
        self.files = dict(files)
        self.faults = {}
        self.asked = []
        self.headers = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # http.server's name
                with server._lock:
                    server.asked.append(self.path)
                    server.headers.append(dict(self.headers))
                name = self.path.removeprefix("/cache/")
                self.close_connection = True
                for pattern, fault in list(server.faults.items()):
                    if name.endswith(pattern) and fault(self) is not KEEP:
                        return
                body = server.files.get(name)
                answer(self, 404, b"not here") if body is None else answer(self, 200, body)

            def log_message(self, *_):
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._http = Http(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def host(self):
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self):
        return f"http://{self.host}/cache"

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


KEEP = object()
"""What a fault returns to have the file served after all."""


def answer(handler, code, body=b"", length=None, **headers):
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def times(count, fault):
    """Make a fault that goes away after `count` requests."""
    left = [count]

    def sometimes(handler):
        if left[0] == 0:
            return KEEP
        left[0] -= 1
        return fault(handler)

    return sometimes


PATH, OTHER = store_path(1), store_path(2)
NAR = make_nar()
SIGNER = Signer()
NARINFO = f"{PARTS[1]}.narinfo"


def source(store, url, **settings):
    given = {"trusted_public_keys": SIGNER.trusted, "connect_timeout": 1, **settings}
    (opened,) = open_sources(store, Settings(substituters=(url,), **given))
    return opened


def nar_url(server):
    return next(
        name
        for name in server.files
        if name.startswith("nar/") and server.files[name] == lzma.compress(NAR, preset=0)
    )


def fetch(opened, into, path=PATH):
    info = opened.query([Wanted(path)])[path]
    assert not isinstance(info, Exception), info
    came = []
    opened.fetch(info, into, came.append)
    return sum(came)
