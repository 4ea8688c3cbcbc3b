"""A server that answers like atticd where doctor looks, run inside a namespace: `python3 attic_like.py CONFIG-JSON`.

After zhaofengli/attic server/src at b7c9056: Host check (middleware.rs), access (access/http.rs: a bad token is
anonymous), cache-config, get-missing-paths, and the redirect of a single-chunk NAR. `mode` makes it something
else: `static` (a page for every path), `busy` (429), `broken` (500), `s3`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import sys
import time

CONFIG = json.loads(sys.argv[1]) if __name__ == "__main__" else {}


def unpad(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self):  # noqa: C901 - one line per thing that a server may be
        time.sleep(CONFIG.get("delay", 0))
        mode = CONFIG.get("mode", "attic")
        if mode == "static":
            return self.send(200, "<html>Welcome</html>", "text/html")
        if mode == "busy":
            return self.send(429, "", headers={"Retry-After": "17"})
        if mode == "s3":
            return self.send(
                403, "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "application/xml"
            )
        if mode == "broken":
            return self.fail(500, "InternalServerError")
        if CONFIG.get("allowed") and self.headers.get("Host") not in CONFIG["allowed"]:
            return self.fail(400, "RequestError", "General request error: Bad Host")
        parts = self.path.strip("/").split("/")
        if parts[0] == "_api":
            return self.api(parts)
        cache = parts[0]
        if len(parts) == 1:
            return self.send(200, "<html>Attic</html>", "text/html")
        if not self.may(cache, "r"):
            return self.denied(cache)
        if parts[1] == "nix-cache-info":
            return self.send(200, "WantMassQuery: 1\nStoreDir: /nix/store\nPriority: 41\n")
        if parts[1].endswith(".narinfo"):
            return self.send(200, f"StorePath: /nix/store/{parts[1][:32]}-x\nURL: nar/{parts[1][:32]}.nar\n")
        if parts[1] == "nar" and CONFIG.get("redirect"):
            return self.send(307, "", headers={"Location": CONFIG["redirect"]})
        return self.fail(404, "NoSuchObject")

    def api(self, parts):
        if parts[2] == "get-missing-paths":
            cache = next(iter(CONFIG["caches"]))
            return self.send(200, '{"missing_paths": []}') if self.may(cache, "w") else self.denied(cache)
        cache = parts[3]
        if not self.may(cache, "r"):
            return self.denied(cache)
        endpoint = CONFIG.get("api_endpoint") or f"http://{self.headers['Host']}/"
        answer = {"api_endpoint": endpoint, "is_public": CONFIG["caches"][cache], **CONFIG.get("config", {})}
        return self.send(200, json.dumps(answer))

    def bits(self, cache):
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            head, body, signature = token.split(".")
            good = hmac.new(CONFIG["secret"].encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
            claims = json.loads(unpad(body))
            if kind != "Bearer" or unpad(signature) != good or claims["exp"] < time.time():
                return {}
            return claims["https://jwt.attic.rs/v1"]["caches"].get(cache, {})
        except (ValueError, KeyError):
            return {}

    def may(self, cache, bit):
        public = CONFIG["caches"].get(cache)
        return public is not None and (bool(self.bits(cache).get(bit)) or (bit == "r" and public))

    def denied(self, cache):
        bits = self.bits(cache)
        if cache not in CONFIG["caches"]:
            return self.fail(404, "NoSuchCache") if bits else self.fail(401, "Unauthorized")
        return (
            self.fail(403, "AccessError")
            if bits or CONFIG["caches"][cache]
            else self.fail(401, "Unauthorized")
        )

    def fail(self, code, name, message=""):
        self.send(code, json.dumps({"code": code, "error": name, "message": message}), "application/json")

    def send(self, code, text, kind="text/plain", headers=None):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def token(secret, exp=None, **caches):
    """Sign a token, for example `token("s", main="rw")`."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    bits = {name: dict.fromkeys(bits, 1) for name, bits in caches.items()}
    claims = {"sub": "t", "exp": exp or int(time.time()) + 600, "https://jwt.attic.rs/v1": {"caches": bits}}
    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


if __name__ == "__main__":
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    http.server.ThreadingHTTPServer((CONFIG["bind"], CONFIG["port"]), Handler).serve_forever()
