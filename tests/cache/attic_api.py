"""An imitation of the part of Attic's server that decides on permissions, served on loopback.

After server/src/api/v1/{cache_config,get_missing_paths}.rs, access/http.rs and error.rs at b7c9056: the order of
look-up and permission, what a public cache adds, what the lack of discovery hides, and the texts of errors.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.cache.attic_rules import BadTokenError, Verifier


class Attic:
    """State of the server: caches by name (True when public), and a clock that may be wrong."""

    def __init__(self, verifier: Verifier, caches: dict[str, bool], ahead: float = 0.0):
        self.verifier = verifier
        self.caches = dict(caches)
        self.ahead = ahead
        self.changes: list[str] = []
        self.requests: list[str] = []

    def now(self) -> float:
        return time.time() + self.ahead

    def bits(self, authorization: str | None, cache: str) -> frozenset[str]:
        if not authorization or not authorization.lower().startswith("bearer "):
            return frozenset()
        try:
            return self.verifier.permissions(authorization[7:], cache, int(self.now()))
        except BadTokenError:
            return frozenset()  # "Ignoring bad JWT token"

    def answer(self, method: str, path: str, body: object, authorization: str | None):
        self.requests.append(f"{method} {path}")
        if path == "/":
            return 200, None
        if path == "/_api/v1/get-missing-paths" and method == "POST":
            return self._authorised(body["cache"], "w", authorization, lambda _: (200, {"missing_paths": []}))
        prefix = "/_api/v1/cache-config/"
        if not path.startswith(prefix):
            return error(404, "NotFound", "The requested object was not found.")
        cache = path.removeprefix(prefix)
        if method == "GET":
            config = {"public_key": f"{cache}:AAAA", "is_public": self.caches.get(cache)}
            return self._authorised(cache, "r", authorization, lambda _: (200, config))
        if method == "PATCH":
            return self._authorised(
                cache, "cr", authorization, lambda bits: self._configure(cache, body, bits)
            )
        if method == "POST":
            return self._create(cache, self.bits(authorization, cache))
        return error(405, "", "")

    def _authorised(self, cache, bit, authorization, then):
        bits = self.bits(authorization, cache)
        if cache not in self.caches:
            if bits:
                return error(404, "NoSuchCache", "The requested cache does not exist.")
            return UNAUTHORIZED
        if self.caches[cache]:
            bits |= {"r"}
        if bit not in bits:
            return DENIED if bits else UNAUTHORIZED
        return then(bits)

    def _configure(self, cache, body, bits):
        if body.get("retention_period") is not None:
            if "cq" not in bits:
                return DENIED
            if body["retention_period"]["Period"] > 2**31 - 1:
                return error(400, "RequestError", "General request error: Invalid retention period")
        elif not any(value is not None for value in body.values()):
            return error(400, "RequestError", "General request error: No modifiable fields were set.")
        self.changes.append(f"configured {cache}")
        return 200, None

    def _create(self, cache, bits):
        if "cc" not in bits:
            return DENIED if bits else UNAUTHORIZED
        if cache in self.caches:
            return error(400, "CacheAlreadyExists", "The cache already exists.")
        self.caches[cache] = False
        self.changes.append(f"created {cache}")
        return 200, None


def error(status, name, message):
    return status, {"code": status, "error": name, "message": message}


UNAUTHORIZED = error(401, "Unauthorized", "Unauthorized.")
DENIED = error(403, "AccessError", "Access error: User does not have permission to complete this action.")


@contextmanager
def serve(attic):
    """Serve it; gives the base URL. Ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            status, document = attic.answer(self.command, self.path, body, self.headers.get("Authorization"))
            data = json.dumps(document).encode() if document is not None else b""
            self.send_response_only(status)
            self.send_header("Date", formatdate(attic.now(), usegmt=True))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
