"""The part of atticd that a substituter meets, over a real S3 server: narinfo from a database, NARs from chunks.

After zhaofengli/attic server/src at b7c9056. What it takes over:
- narinfo is answered from the database alone; the look-up comes before the permission check, so a private cache
  without a token says 401 for what exists and 404 for what does not (api/binary_cache.rs:139-148, error.rs:192);
- no FileHash, no FileSize, one Sig (narinfo/mod.rs);
- one chunk: 307 to a presigned S3 address that is not checked (storage/s3.rs:153);
- more chunks: 200 is sent first, then each chunk is read from S3 as its own zstd frame; an error of S3 can only
  break the chunked body (attic/src/io/mod.rs:54-88);
- a chunk row that is gone: 503 IncompleteNar.
"""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import zstandard
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.real.s3_server import KEY

from kingpost.cache.narinfo import parse_narinfo

CHUNK = 64 * 1024
NAMES = {
    401: "Unauthorized",
    403: "AccessError",
    404: "NoSuchObject",
    500: "InternalServerError",
    503: "IncompleteNar",
}


@dataclass
class Nar:
    """A row of the database: the narinfo, and the key of each chunk (None: the chunk's row was deleted)."""

    info: str
    chunks: list[str | None]


@dataclass
class Attic:
    """The server's state; `tokens` maps a token to whether it may pull."""

    s3_url: str
    public: bool = True
    tokens: dict[str, bool] = field(default_factory=dict)
    rows: dict[str, Nar] = field(default_factory=dict)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log: list[str] = field(default_factory=list)
    url: str = ""
    store: str = "/nix/store"

    def __post_init__(self):
        self.s3 = boto3.client(
            "s3", endpoint_url=self.s3_url, region_name="us-east-1",
            aws_access_key_id=KEY.access_key, aws_secret_access_key=KEY.secret_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )  # fmt: skip

    @property
    def public_key(self):
        return f"main:{base64.b64encode(self.key.public_key().public_bytes_raw()).decode()}"

    def push(self, info: str, nar: bytes) -> None:
        """Store a NAR as `attic push` has it stored: cut into chunks, each compressed by itself."""
        lines = [
            line
            for line in info.splitlines()
            if not line.startswith(("File", "Sig", "Deriver", "URL", "Compr"))
        ]
        read = parse_narinfo(info)
        part = read.path.hash_part
        self.store = read.path.store
        pieces = [nar] if len(nar) <= CHUNK else [nar[at : at + CHUNK] for at in range(0, len(nar), CHUNK)]
        chunks = [f"{part}-{number}.chunk" for number in range(len(pieces))]
        for key, piece in zip(chunks, pieces, strict=True):
            self.s3.put_object(Bucket="attic", Key=key, Body=zstandard.ZstdCompressor().compress(piece))
        signature = base64.b64encode(self.key.sign(read.fingerprint().encode())).decode()
        text = "\n".join([*lines, f"URL: nar/{part}.nar", "Compression: zstd", f"Sig: main:{signature}", ""])
        self.rows[part] = Nar(text, chunks)

    def may_pull(self, authorization: str | None) -> bool | None:
        """Tell whether a request may pull; None for anonymous (a bad token is anonymous)."""
        token = ""
        if authorization and authorization.startswith("Basic "):
            token = base64.b64decode(authorization[6:]).decode().partition(":")[2]
        return True if self.public else self.tokens.get(token)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    attic: Attic

    def do_GET(self):
        _, _, cache, *rest = ["", *self.path.split("/")]
        may = self.attic.may_pull(self.headers.get("Authorization"))
        name = "/".join(rest)
        if cache != "main":
            return self.fail(404)
        if name == "nix-cache-info":
            if not may:
                return self.fail(401 if may is None else 403)
            return self.send(f"WantMassQuery: 1\nStoreDir: {self.attic.store}\nPriority: 41\n".encode())
        row = self.attic.rows.get(rest[-1].partition(".")[0])
        if row is None:
            return self.fail(404)
        if not may:
            return self.fail(401 if may is None else 403)
        if name.endswith(".narinfo"):
            return self.send(row.info.encode())
        return self.nar(row.chunks)

    def nar(self, chunks):
        if None in chunks:
            return self.fail(503)
        if len(chunks) == 1:
            url = self.attic.s3.generate_presigned_url(
                "get_object", Params={"Bucket": "attic", "Key": chunks[0]}, ExpiresIn=600
            )
            self.send_response(307)
            self.send_header("Location", url)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-nix-nar")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for key in chunks:
                data = self.attic.s3.get_object(Bucket="attic", Key=key)["Body"].read()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
        except (ClientError, BotoCoreError) as error:
            self.attic.log.append(f"Stream error: {error}")
            self.close_connection = True
        return None

    def fail(self, status):
        body = json.dumps({"code": status, "error": NAMES[status], "message": NAMES[status]}).encode()
        self.send(body, status, "application/json")

    def send(self, body, status=200, kind="text/x-nix-narinfo"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serve(attic: Attic):
    """Serve on loopback until the block ends; the cache is `main`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"attic": attic}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    attic.url = f"http://127.0.0.1:{server.server_port}/main"
    try:
        yield attic
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
        attic.s3.close()
