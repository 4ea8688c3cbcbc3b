"""A small store made by hand below a root directory, and its twin to fetch from: no Nix needed, a few milliseconds."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from kingpost.storefix import cli, nar
from kingpost.storefix.database import SCHEMA
from kingpost.storefix.locate import locate
from kingpost.storefix.sources.hashes import ALPHABET

NAMES = "abcdef"
# Each refers to the next one, a also to c, f to itself only. Roots: a (current generation), d.
EDGES = {"a": "bc", "b": "c", "c": "d", "d": "", "e": "d", "f": "f"}
LIVE = set("abcd")


def hash_part(name: str) -> str:
    digest = hashlib.sha256(name.encode()).digest()
    return "".join(ALPHABET[byte % 32] for byte in digest[:32])


def path_of(name: str) -> str:
    return f"/nix/store/{hash_part(name)}-{name}"


class Paper:
    """A store below `root`, and the same below `twin`.

    Args:
        directory: Where to make both.
    """

    def __init__(self, directory: Path):
        self.root = directory / "root"
        self.twin = directory / "twin"
        self.build(self.twin)
        self.reset()

    @property
    def real(self) -> Path:
        return self.root / "nix/store"

    @property
    def state(self) -> Path:
        return self.root / "nix/var/nix"

    @property
    def database(self) -> Path:
        return self.state / "db" / "db.sqlite"

    @property
    def store(self):
        return locate(str(self.root))

    def place(self, name: str) -> Path:
        return self.root / path_of(name).lstrip("/")

    def reset(self) -> None:
        if self.root.exists():
            remove(self.root)
        subprocess.run(["cp", "-a", self.twin, self.root], check=True)

    @staticmethod
    def build(root: Path) -> None:
        store, state = root / "nix/store", root / "nix/var/nix"
        for directory in (store, state / "db", state / "gcroots/auto", state / "profiles", root / "etc/nix"):
            directory.mkdir(parents=True)
        (root / "etc/nix/nix.conf").write_text("substituters =\n")
        (state / "gcroots/profiles").symlink_to("/nix/var/nix/profiles")
        (state / "gcroots/d").symlink_to(path_of("d"))
        (state / "profiles/system-1-link").symlink_to(path_of("a"))
        (state / "profiles/system").symlink_to("system-1-link")
        (state / "db/schema").write_text("10")
        (state / "db/big-lock").touch()
        connection = sqlite3.connect(state / "db/db.sqlite", isolation_level=None)
        connection.execute("pragma synchronous = off")
        connection.execute("pragma journal_mode = wal")
        connection.executescript(SCHEMA)
        for number, name in enumerate(reversed(NAMES), 1):
            place = root / path_of(name).lstrip("/")
            (place / "bin").mkdir(parents=True)
            (place / "f").write_text("\n".join([name, *map(path_of, EDGES[name])]))
            (place / "bin/run").write_text("#!/bin/sh\n")
            (place / "bin/run").chmod(0o555)
            (place / "f").chmod(0o444)
            (place / "link").symlink_to("f")
            for here in (place / "bin/run", place / "f", place / "link", place / "bin", place):
                os.utime(here, (1, 1), follow_symlinks=False)
            for here in (place / "bin", place):
                here.chmod(0o555)
            digest = nar.digest(place)
            connection.execute(
                "insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?, ?, ?, 1, ?)",
                (number * 3, path_of(name), digest.nar_hash, digest.nar_size),
            )
        for name, below in EDGES.items():
            for other in below:
                connection.execute(
                    "insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b "
                    "where a.path = ? and b.path = ?",
                    (path_of(name), path_of(other)),
                )
        connection.execute("pragma wal_checkpoint(truncate)")
        connection.close()

    def sql(self, *statements, keys: bool = False) -> None:
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("pragma synchronous = off")
            connection.execute(f"pragma foreign_keys = {'on' if keys else 'off'}")
            for statement, *values in statements:
                connection.execute(statement, values)

    def rows(self, statement: str, *values) -> list:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(statement, values).fetchall()

    def dump(self) -> list:
        """Every row, to compare."""
        tables = ("ValidPaths", "Refs", "DerivationOutputs")
        return [self.rows(f"select * from {table} order by 1, 2") for table in tables]

    def lose(self, *names: str) -> None:
        for name in names:
            remove(self.place(name))

    def rewrite(self, name: str, data: bytes) -> None:
        place = self.place(name)
        place.chmod(0o755)
        (place / "f").chmod(0o644)
        (place / "f").write_bytes(data)
        (place / "f").chmod(0o444)
        place.chmod(0o555)

    def run(self, command: str, *argv, source: bool = True) -> tuple[int, str]:
        """Run store-fix on this store; gives exit code and everything it printed."""
        words = [command, "--root", str(self.root), *map(str, argv)]
        if command in ("plan", "repair", "apply"):
            words.append("--no-check-sigs")
        if source and command in ("plan", "repair", "apply"):
            words += ["--from", str(self.twin)]
        if command in ("plan", "repair"):
            words.append("--no-rebuild")
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(words)
        return code, said.getvalue()

    def assert_sound(self, expected: str = NAMES) -> None:
        """Rows are those expected, on disk with their hash, with all their references; nothing is left over."""
        assert self.rows("pragma foreign_key_check") == []
        assert self.rows("pragma integrity_check") == [("ok",)]
        rows = dict(self.rows("select path, hash from ValidPaths"))
        assert set(rows) == {path_of(name) for name in expected}
        for name in expected:
            assert nar.digest(self.place(name)).nar_hash == rows[path_of(name)]
            below = self.rows(
                "select b.path from Refs join ValidPaths a on a.id = referrer join ValidPaths b on b.id = reference "
                "where a.path = ?", path_of(name))  # fmt: skip
            assert {path for (path,) in below} == {path_of(other) for other in EDGES[name]}


def remove(path: Path) -> None:
    """Remove a tree whose directories may be read-only."""
    if path.is_dir() and not path.is_symlink():
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o755)
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
