"""The part of atticd that a substituter meets, over a real S3 server: narinfo from a database, NARs from chunks.

Who may read what is as tests/cache/attic_api.py has it. What is more, after zhaofengli/attic server/src at b7c9056:
- no FileHash, no FileSize, one Sig (narinfo/mod.rs);
- one chunk: 307 to a presigned S3 address that is not checked (storage/s3.rs:153);
- more chunks: 200 is sent first, then each chunk is read from S3 as its own zstd frame; an error of S3 can only
  break the chunked body (attic/src/io/mod.rs:54-88);
- a chunk row that is gone: 503 IncompleteNar.
"""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

import boto3
import zstandard
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cache import attic_api
from tests.cache.attic_rules import BadTokenError
from tests.real.s3_server import KEY

from kingpost.cache.narinfo import parse_narinfo

CHUNK = 64 * 1024


@dataclass
class Nar:
    """A row of the database: the narinfo, and the key of each chunk (None: the chunk's row was deleted)."""

    info: str
    chunks: list[str | None]


class Attic(attic_api.Attic):
    """The server's state, with one cache `main`; `tokens` maps a token to whether it may pull (else only push)."""

    def __init__(self, s3_url: str, key: Ed25519PrivateKey | None = None) -> None:
        super().__init__(self, {"main": True})
        self.tokens: dict[str, bool] = {}
        self.rows = self.paths = {}
        self.key = key or Ed25519PrivateKey.generate()
        self.log: list[str] = []
        self.url = ""
        self.s3 = boto3.client(
            "s3", endpoint_url=s3_url, region_name="us-east-1",
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

    @property
    def public(self) -> bool:
        return self.caches["main"]

    @public.setter
    def public(self, public: bool) -> None:
        self.caches["main"] = public

    def permissions(self, token: str, cache: str, _now: int) -> frozenset[str]:
        if token not in self.tokens:
            raise BadTokenError
        return frozenset("" if cache != "main" else "r" if self.tokens[token] else "w")

    def body(self, name, kind):
        row = self.rows[name]
        if kind == "narinfo":
            return 200, row.info
        incomplete = "The requested NAR has missing chunks and needs to be repaired."
        return attic_api.error(503, "IncompleteNar", incomplete) if None in row.chunks else (200, row)


def handler(attic: Attic):
    class Handler(attic_api.handler(attic)):
        protocol_version = "HTTP/1.1"

        def reply(self, status, said):
            return self.nar(said.chunks) if isinstance(said, Nar) else super().reply(status, said)

        def nar(self, chunks):
            if len(chunks) == 1:
                url = attic.s3.generate_presigned_url(
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
                    data = attic.s3.get_object(Bucket="attic", Key=key)["Body"].read()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")
            except (ClientError, BotoCoreError) as error:
                attic.log.append(f"Stream error: {error}")
                self.close_connection = True
            return None

    return Handler


@contextmanager
def serve(attic: Attic):
    """Serve on loopback until the block ends; the cache is `main`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), handler(attic))
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
