"""An imitation of Attic's server where it decides on permissions, served on loopback: no storage, no bodies.

After server/src/api/v1/{cache_config,get_missing_paths}.rs, api/binary_cache.rs, access/http.rs, middleware.rs and
error.rs at b7c9056: the order of look-up and permission, what a public cache adds, what the lack of discovery hides,
and the texts of errors. tests/real/test_attic_answers.py holds it to the real server's answers.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.cache.attic_rules import BadTokenError, Verifier


class Attic:
    """State of the server.

    Args:
        verifier: Which tokens are good.
        caches: Names, and whether each is public.
        ahead: Seconds that the server's clock is ahead.
        allowed: `allowed-hosts`; empty allows all.
        config: What a cache's configuration says beside what all say.
        paths: Hashes of the paths that every cache has.

    """

    def __init__(
        self,
        verifier: Verifier,
        caches: dict[str, bool],
        ahead: float = 0.0,
        *,
        allowed=(),
        config=None,
        paths=(),
    ):
        self.verifier = verifier
        self.caches = dict(caches)
        self.ahead = ahead
        self.allowed = allowed
        self.config = config or {}
        self.paths = paths
        self.store = "/nix/store"
        self.changes: list[str] = []
        self.requests: list[str] = []

    def now(self) -> float:
        return time.time() + self.ahead

    def bits(self, authorization: str | None, cache: str) -> frozenset[str]:
        kind, _, held = (authorization or "").partition(" ")
        try:
            if kind.lower() == "basic":  # Nix's netrc: the token is the password
                held = base64.b64decode(held).decode().partition(":")[2]
            elif kind.lower() != "bearer":
                return frozenset()
            return self.verifier.permissions(held, cache, int(self.now()))
        except (BadTokenError, ValueError):
            return frozenset()  # "Ignoring bad JWT token"

    def receive(self, method: str, path: str, body: object, headers):
        """Answer a request as it comes: who asks by a name that is not allowed gets no further."""
        if self.allowed and headers.get("Host") not in self.allowed:
            return error(400, "RequestError", "General request error: Bad Host")
        return self.answer(method, path, body, headers.get("Authorization"))

    def answer(self, method: str, path: str, body: object, authorization: str | None):
        """Give the status, and a document or a text."""
        self.requests.append(f"{method} {path}")
        parts = path.strip("/").split("/")
        if path == "/":
            return 200, "<!DOCTYPE html>\n<h1>Attic Binary Cache</h1>\n"
        if path == "/_api/v1/get-missing-paths" and method == "POST":
            return self._authorised(body["cache"], "w", authorization, lambda _: (200, {"missing_paths": []}))
        if parts[:3] == ["_api", "v1", "cache-config"] and len(parts) == 4:
            return self._cache_config(method, parts[3], body, authorization)
        if len(parts) == 2 and parts[1] == "nix-cache-info":
            info = f"WantMassQuery: 1\nStoreDir: {self.store}\nPriority: 41\n"
            return self._authorised(parts[0], "r", authorization, lambda _: (200, info))
        name, _, kind = parts[-1].partition(".")
        if (len(parts) == 2 and kind == "narinfo") or (
            len(parts) == 3 and parts[1] == "nar" and kind == "nar"
        ):
            return self._object(parts[0], name, kind, authorization)
        return error(404, "NotFound", "The URL you requested was not found.")

    def _cache_config(self, method, cache, body, authorization):
        if method == "GET":
            said = {"public_key": f"{cache}:AAAA", "is_public": self.caches.get(cache), **self.config}
            return self._authorised(cache, "r", authorization, lambda _: (200, said))
        if method == "PATCH":
            return self._authorised(
                cache, "cr", authorization, lambda bits: self._configure(cache, body, bits)
            )
        if method == "POST":
            return self._create(cache, self.bits(authorization, cache))
        return 405, None

    def _object(self, cache, name, kind, authorization):
        """Look the path up first, and only then at the permission: what is there is told from what is not."""
        if cache not in self.caches or name not in self.paths:
            return error(404, "NoSuchObject", "The requested object does not exist.")
        bits = self.bits(authorization, cache) | ({"r"} if self.caches[cache] else set())
        if "r" not in bits:
            return DENIED if bits else UNAUTHORIZED
        return self.body(name, kind)

    def body(self, name: str, kind: str):
        """Give what a reader gets who may read."""
        return 200, f"StorePath: /nix/store/{name}-x\nURL: nar/{name}.nar\n" if kind == "narinfo" else None

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


def handler(attic):
    """Give a request handler for `http.server` that answers for a server's state."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            self.reply(*attic.receive(self.command, self.path, body, self.headers))

        def reply(self, status, said):
            data, kind = b"", ""
            if isinstance(said, str):
                kinds = {
                    "<": "text/html; charset=utf-8",
                    "S": "text/x-nix-narinfo",
                    "W": "text/x-nix-cache-info",
                }
                data, kind = said.encode(), kinds[said[0]]
            elif said is not None:
                data, kind = json.dumps(said).encode(), "application/json"
            self.send_response_only(status)
            self.send_header("Date", formatdate(attic.now(), usegmt=True))
            self.send_header("Content-Length", str(len(data)))
            if kind:
                self.send_header("Content-Type", kind)
            if status == 307:
                self.send_header("Location", attic.redirect)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def serve(attic):
    """Serve it; gives the base URL. Ends with the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(attic))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
