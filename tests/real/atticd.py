"""Attic's own server and client in a test, with exactly the files and the environment that `generate` renders.

Both are taken from PATH, or from where KINGPOST_ATTICD and KINGPOST_ATTIC point. Nothing here installs them: nixpkgs
has them as `attic-server` and `attic-client`.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sqlite3
import subprocess
import time
import tomllib
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.conftest import require_program

from kingpost.base.http import client as http_client
from kingpost.cache import token, token_keys
from kingpost.cache.token import Permission, Request
from kingpost.render.attic_config import atticd_toml, client_toml
from kingpost.render.attic_settings import attic_environment
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

HS256 = "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"
RS256 = "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64"
SECRET = base64.b64encode(b"a signing key that only tests have: 0123456789abcdef").decode()

TOPOLOGY = """
site = { name = "lab", substituters = ["attic:home/private"] }
[hosts.node]
memory = "8GiB"
[secrets.atticd]
provider = "path"
path = "ROOT/atticd.env"
[secrets.ci]
provider = "path"
path = "ROOT/ci.token"
format = "raw"
[attic.home]
host = "node"
port = PORT
bind = "127.0.0.1"
secret = "atticd"
database = { kind = "sqlite", path = "ROOT/server.db" }
storage = STORAGE
SERVER
[attic.home.caches.private]
priority = 43
[attic.home.caches.public]
public = true
[gitlab.none]
url = "http://127.0.0.1:1"
[runners.ci]
executor = "shell"
host = "node"
user = "root"
[pipelines.hosts]
runner = "ci"
build = [".#x"]
[[pipelines.hosts.push]]
cache = "attic:home/private"
policy = "required"
token = { secret = "ci" }
BUCKET
"""
BUCKET = """
[buckets.chunks]
provider = "other"
endpoint = "ENDPOINT"
credentials = "atticd"
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(
    port: int, process: subprocess.Popen, log: Path | None = None, prefix: tuple[str, ...] = ()
) -> None:
    """Wait until a server of ours listens on loopback: this one's, or that of the network which `prefix` enters."""
    dial = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
    deadline = time.monotonic() + 60
    while subprocess.run([*prefix, "python3", "-c", dial], capture_output=True, check=False).returncode:
        said = log.read_text() if log else "it does not listen"
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def lab(root: Path, *, endpoint: str = "", server: str = "") -> str:
    """Give a topology with one Attic server on loopback, whose chunks are in `root` or in an S3 bucket."""
    text = TOPOLOGY.replace("BUCKET", BUCKET.replace("ENDPOINT", endpoint) if endpoint else "")
    storage = (
        '{ kind = "bucket", bucket = "chunks" }' if endpoint else '{ kind = "local", path = "ROOT/storage" }'
    )
    text = text.replace("STORAGE", storage).replace("SERVER", server)
    return text.replace("ROOT", str(root)).replace("PORT", str(free_port()))


def platform_of(document: dict) -> Platform:
    return Platform(Topology.model_validate(document))


@dataclass
class Atticd:
    """A running server. `secrets` is what its environment file would hold; `log` is what it said."""

    topology: str
    root: Path
    secrets: dict[str, str] = field(default_factory=lambda: {HS256: SECRET})
    prefix: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    process: subprocess.Popen | None = None

    def __post_init__(self) -> None:
        self.platform = platform_of(tomllib.loads(self.topology))

    def declared(self, reads: str = "private", **caches) -> Platform:
        """Give the platform as a topology with other facts of its caches has it; its site reads one of them."""
        document = tomllib.loads(self.topology)
        for name, facts in caches.items():
            document["attic"]["home"]["caches"].setdefault(name, {}).update(facts)
        document["site"]["substituters"] = [f"attic:home/{reads}"]
        return platform_of(document)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.platform.topology.attic['home'].port}"

    @property
    def database(self) -> Path:
        return self.root / "server.db"

    @property
    def log(self) -> str:
        return (self.root / "atticd.log").read_text()

    def environment(self) -> dict[str, str]:
        rendered = attic_environment(self.platform, "home")
        kept = {name: value for name, value in rendered.items() if name not in self.without}
        return {"HOME": str(self.root), "PATH": os.defpath, "RUST_LOG": "info", **kept, **self.secrets}

    def start(self, edit=lambda text: text) -> None:
        """Start it as the rendered unit does: with the rendered configuration, and nothing else of this machine's."""
        config = self.root / "atticd.toml"
        config.write_text(edit(atticd_toml(self.platform, "home")))
        argv = [*self.prefix, require_program("atticd"), "--config", config]
        with (self.root / "atticd.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=self.environment(), stdout=log, stderr=log, cwd=self.root
            )
        wait_for(int(self.url.rpartition(":")[2]), self.process, self.root / "atticd.log", self.prefix)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    def sql(self, statement: str, *values) -> list[tuple]:
        """Look into, or change, the database behind the server's back."""
        with closing(sqlite3.connect(self.database, timeout=20)) as opened, opened:
            return opened.execute(statement, values).fetchall()

    def token(self, **grants: str) -> str:
        """Mint a token: `token(private="pull push")`; a `_` is written for `*`."""
        asked = {
            name.replace("_", "*"): frozenset(map(Permission, words.split()))
            for name, words in grants.items()
        }
        key = token_keys.parse(self.secrets.get(HS256) or self.secrets[RS256], origin="a test")
        return token.mint(Request(grants=asked, subject="test"), key, int(time.time()))

    def create(self, *names: str, store: str = "/nix/store") -> None:
        """Make caches as `attic cache create` does; one that the topology calls public is."""
        caches = self.platform.topology.attic["home"].caches
        held = self.token(_="create-cache pull")
        with http_client() as client:
            for name in names:
                body = {
                    "keypair": "Generate", "is_public": caches[name].public, "store_dir": store,
                    "priority": caches[name].priority, "upstream_cache_key_names": list(caches[name].upstream_keys),
                }  # fmt: skip
                answer = client.post(
                    f"{self.url}/_api/v1/cache-config/{name}",
                    json=body,
                    headers={"Authorization": f"Bearer {held}"},
                )
                assert answer.status_code == 200, answer.text

    def configure(self, cache: str, **changes) -> None:
        """Change a cache as `attic cache configure` does."""
        held = self.token(_="configure-cache configure-cache-retention pull")
        with http_client() as client:
            answer = client.patch(
                f"{self.url}/_api/v1/cache-config/{cache}",
                json=changes,
                headers={"Authorization": f"Bearer {held}"},
            )
            assert answer.status_code == 200, answer.text

    def upload(self, cache: str, nix, *paths: str) -> None:
        """Upload paths as `attic push` does (client/src/push.rs), one request each; for tests without the client."""
        headers = {"Authorization": f"Bearer {self.token(_='pull push')}"}
        with http_client() as client:
            for path in paths:
                info, nar = dumped(nix, cache, path)
                answer = client.put(
                    f"{self.url}/_api/v1/upload-path",
                    content=nar,
                    headers={**headers, "X-Attic-Nar-Info": json.dumps(info)},
                )
                assert answer.status_code == 200, answer.text

    def chunk_files(self) -> list[Path]:
        """Give the files of the local storage, without its own mark."""
        return [path for path in (self.root / "storage").rglob("*.chunk") if path.is_file()]


def dumped(nix, cache: str, path: str) -> tuple[dict, bytes]:
    """Give what Attic's client sends of a path: X-Attic-Nar-Info, and the NAR."""
    digest, size, references = (
        nix.run("nix-store", "--query", what, path).stdout.split()
        for what in ("--hash", "--size", "--references")
    )
    info = {
        "cache": cache, "store_path_hash": Path(path).name[:32], "store_path": path,
        "references": [Path(one).name for one in references], "system": None, "deriver": None,
        "sigs": [], "ca": None, "nar_hash": digest[0], "nar_size": int(size[0]),
    }  # fmt: skip
    argv = [nix.bin / "nix-store", "--dump", path]
    return info, subprocess.run(argv, env=nix.env, capture_output=True, check=True).stdout


@contextmanager
def running(root: Path, *, endpoint: str = "", server: str = "", store: str = "/nix/store", **options):
    """Run a server with its two caches, for paths of a Nix store, until the block ends."""
    require_program("atticd")
    root.mkdir(parents=True, exist_ok=True)
    found = Atticd(lab(root, endpoint=endpoint, server=server), root, **options)
    try:
        found.start()
        found.create("private", "public", store=store)
        yield found
    finally:
        found.stop()


@dataclass
class Client:
    """Attic's client with the configuration that is rendered for a context, beside a private Nix."""

    server: Atticd
    nix: object
    home: Path

    def __post_init__(self) -> None:
        self.program = require_program("attic")
        context = self.server.platform.contexts["shell:node/ci"]
        (self.home / "attic").mkdir(parents=True)
        (self.home / "attic" / "config.toml").write_text(client_toml(self.server.platform, context))
        (self.server.root / "ci.token").write_text(self.server.token(private="pull push", public="pull push"))

    @property
    def env(self) -> dict[str, str]:
        return {
            **self.nix.env,
            "XDG_CONFIG_HOME": str(self.home),
            "PATH": f"{self.program.parent}:{self.nix.env['PATH']}",
        }

    def run(self, *argv, check=True, **options):
        done = subprocess.run(
            [self.program, *map(str, argv)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )
        assert not check or done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
        return done
