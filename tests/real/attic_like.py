"""A server that answers like atticd where doctor looks, run inside a namespace: `python3 attic_like.py CONFIG-JSON`.

It is the imitation of tests/cache/attic_api.py, in a process of its own. CONFIG has `bind`, `port`, `caches` (name:
public), `secret`, `allowed` (hosts), what the server tells: `config`, `api_endpoint`, `redirect` (where a NAR is
sent), and how many seconds it takes to answer (`delay`). `mode` makes it something else: `static` (a page for every
path), `busy` (429), `broken` (500), `s3`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the system's Python starts it, by its path

from tests.cache import attic_api
from tests.cache.attic_rules import Verifier

NO_ATTIC = {
    "static": (200, "<html>Welcome</html>", {"Content-Type": "text/html"}),
    "busy": (429, "", {"Retry-After": "17"}),
    "s3": (
        403,
        "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        {"Content-Type": "application/xml"},
    ),
}


class Everything:
    """Every hash: doctor may be told to look for any."""

    def __contains__(self, _name):
        return True


class Attic(attic_api.Attic):
    """The imitation with what a CONFIG says."""

    def __init__(self, config):
        verifier = Verifier(secret=config.get("secret", "").encode())
        super().__init__(
            verifier, config.get("caches", {}), allowed=config.get("allowed", ()), config=config.get("config"),
            paths=Everything(),
        )  # fmt: skip
        self.endpoint = config.get("api_endpoint")
        self.redirect = config.get("redirect")
        self.broken = config.get("mode") == "broken"
        self.delay = config.get("delay", 0)

    def receive(self, method, path, body, headers):
        time.sleep(self.delay)
        if self.broken:
            message = "The server encountered an internal error or misconfiguration."
            return attic_api.error(500, "InternalServerError", message)
        self.config["api_endpoint"] = self.endpoint or f"http://{headers['Host']}/"
        return super().receive(method, path, body, headers)

    def body(self, name, kind):
        return (307, None) if kind == "nar" and self.redirect else super().body(name, kind)


class Other(BaseHTTPRequestHandler):
    """What is no Attic: the same answer to everything."""

    mode = ""

    def do_GET(self):
        status, text, headers = NO_ATTIC[self.mode]
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *args):
        pass


def signed(key: bytes, claims) -> str:
    """Sign claims as they are, with nothing of kingpost's."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def token(secret, exp=None, **caches):
    """Sign a token, for example `token("s", main="rw")`."""
    bits = {name: dict.fromkeys(bits, 1) for name, bits in caches.items()}
    claims = {"sub": "t", "exp": exp or int(time.time()) + 600, "https://jwt.attic.rs/v1": {"caches": bits}}
    return signed(secret.encode(), claims)


def main(config):
    mode = config.get("mode", "")
    answers = (
        type("Bound", (Other,), {"mode": mode}) if mode in NO_ATTIC else attic_api.handler(Attic(config))
    )
    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer((config["bind"], config["port"]), answers).serve_forever()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
