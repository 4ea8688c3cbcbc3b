"""A real Nix store with a random closure, a binary cache that has all of it, and every kind of damage.

Building takes seconds, so it is done once per Nix and seed; `reset` puts the store back as it was built.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from kingpost.storefix import cli
from kingpost.storefix.locate import locate

EXPRESSION = """
let
  shell = "/bin/sh";
  make = name: inputs: script: derivation {
    inherit name; system = builtins.currentSystem; builder = shell;
    args = [ "-c" script ]; inherit inputs; PATH = "%PATH%";
  };
in rec {
%NODES%
}
"""


@dataclass
class Lab:
    """A store to break.

    Attributes:
        nix: The real Nix (see tests/real/conftest.py).
        size: Number of output paths.
        seed: Of the closure.
        paths: Node name to output path.
        edges: Node name to the nodes that it refers to.
        roots: Nodes that a gcroot keeps alive.
    """

    nix: object
    size: int = 14
    seed: int = 0
    paths: dict = field(default_factory=dict, repr=False)
    edges: dict = field(default_factory=dict, repr=False)
    roots: tuple = ()

    def __post_init__(self):
        rnd = random.Random(self.seed)
        nodes = []
        for number in range(self.size):
            inputs = rnd.sample(range(number), min(number, rnd.randrange(0, 4)))
            if number >= self.size - 4:  # the last four are a chain that nothing else refers to
                inputs = [number - 1, *inputs] if number > self.size - 4 else inputs
                inputs = [below for below in inputs if below < self.size - 4 or below == number - 1]
            self.edges[f"n{number}"] = tuple(f"n{below}" for below in inputs)
            script = (
                f"mkdir -p $out/bin; echo node {number} > $out/f; echo $inputs > $out/inputs; "
                f"head -c {rnd.randrange(10, 9000)} /dev/zero > $out/zeros; ln -s f $out/link; "
                "echo '#!/bin/sh' > $out/bin/run; chmod +x $out/bin/run"
            )
            names = " ".join(f"n{below}" for below in inputs)
            nodes.append(f'  n{number} = make "n{number}-{rnd.randrange(99)}" [ {names} ] "{script}";')
        expression = self.nix.root / "closure.nix"
        text = EXPRESSION.replace("%NODES%", "\n".join(nodes)).replace("%PATH%", os.environ["PATH"])
        expression.write_text(text)
        self.expression = expression
        (self.nix.root / "var" / "gcroots").mkdir(parents=True, exist_ok=True)
        built = self.nix.run("nix-build", "--no-out-link", expression).stdout.split()
        for path in built:
            self.paths[path.rsplit("-", 2)[1]] = path
        # Two roots: what they do not reach is dead, but registered.
        self.roots = (f"n{self.size - 1}", f"n{self.size // 2}")
        os.symlink(self.paths[self.roots[0]], self.nix.state / "gcroots" / "system")
        profiles = self.nix.state / "profiles"
        profiles.mkdir(exist_ok=True)
        for generation, node in enumerate(self.roots, 1):
            os.symlink(self.paths[node], profiles / f"web-{generation}-link")
        os.symlink("web-2-link", profiles / "web")
        self.cache = self.nix.root / "cache"
        self.nix.run("nix-store", "--generate-binary-cache-key", "lab-1", self.nix.root / "secret",
                     self.nix.root / "public")  # fmt: skip
        everything = self.nix.run("nix-store", "-qR", *built).stdout.split()
        drvs = self.nix.run("nix-store", "-qd", *built).stdout.split()
        everything += self.nix.run("nix-store", "-qR", *drvs).stdout.split()
        url = f"file://{self.cache}?secret-key={self.nix.root}/secret&compression=xz"
        self.nix.run("nix", "copy", "--to", url, *sorted(set(everything)))
        with (self.nix.root / "conf" / "nix.conf").open("a") as conf:
            conf.write(f"trusted-public-keys = {(self.nix.root / 'public').read_text()}\n")
        self.template = self.nix.root / "template"
        subprocess.run(["cp", "-a", self.nix.store, self.nix.state, self._made(self.template)], check=True)

    @staticmethod
    def _made(directory: Path) -> Path:
        directory.mkdir()
        return directory

    def reset(self) -> None:
        """Put the store back as it was built."""
        for name in ("store", "var"):
            _remove(self.nix.root / name)
            subprocess.run(["cp", "-a", self.template / name, self.nix.root / name], check=True)

    @property
    def database(self) -> Path:
        return self.nix.state / "db" / "db.sqlite"

    @property
    def store(self):
        """The StoreRoot of this store."""
        return locate(environment=self.nix.env)

    def sql(self, *statements, keys: bool = False) -> None:
        """Change the database behind Nix's back; foreign keys are off, as in a careless shell."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute(f"pragma foreign_keys = {'on' if keys else 'off'}")
            for statement, *values in statements:
                connection.execute(statement, values)

    def rows(self, statement: str, *values) -> list:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(statement, values).fetchall()

    def lose(self, *paths: str) -> None:
        """Remove paths from disk, as a crash does."""
        for path in paths:
            _remove(Path(path))

    def rewrite(self, path: str, data: bytes) -> None:
        """Overwrite a file in the store."""
        place = Path(path)
        place.parent.chmod(0o755)
        place.chmod(0o644)
        place.write_bytes(data)
        place.chmod(0o444)
        os.utime(place, (1, 1))
        place.parent.chmod(0o555)
        os.utime(place.parent, (1, 1))

    def run(self, *argv, cache: bool = True) -> tuple[int, str]:
        """Run store-fix on this store; gives exit code and everything it printed."""
        said = io.StringIO()
        words = [str(word) for word in argv]
        if cache and words[0] in ("plan", "repair", "apply"):
            words += ["--from", f"file://{self.cache}"]
        old = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.nix.env)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = cli.main(words)
        finally:
            os.environ.clear()
            os.environ.update(old)
        return code, said.getvalue()

    def repaired(self, *argv, gc: bool = True, cache: bool = True, lost: frozenset = frozenset()) -> str:
        """Repair everything, by `repair --yes` with these options, until the store is sound; gives what was said."""
        code, said = self.run("repair", "--yes", *argv, cache=cache)
        assert code == 0, said
        self.assert_sound(gc=gc, lost=lost)
        return said

    def codes(self, *argv) -> dict[str, dict]:
        """Scan, and give a finding of each code, as in the JSON."""
        code, said = self.run("scan", "--json", *argv)
        found = json.loads(said)
        assert code == (0 if found["healthy"] else 1)
        return {finding["code"]: finding for finding in found["findings"]}

    def closure(self, *nodes: str) -> set[str]:
        """The output paths that nodes need, themselves included."""
        found, todo = set(), list(nodes)
        while todo:
            node = todo.pop()
            if self.paths[node] not in found:
                found.add(self.paths[node])
                todo += self.edges[node]
        return found

    @property
    def live(self) -> set[str]:
        return self.closure(*self.roots)

    def assert_sound(self, *, lost: frozenset = frozenset(), gc: bool = True) -> None:
        """Every row on disk with its hash, every reference valid, every live path there; and Nix agrees."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            assert connection.execute("pragma foreign_key_check").fetchall() == []
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            valid = {row[0] for row in connection.execute("select path from ValidPaths")}
        assert self.live - lost <= valid, self.live - valid
        verified = self.nix.run("nix-store", "--verify", "--check-contents", check=False)
        noise = ("reading the Nix store", "checking", "reading")
        said = [line for line in verified.stderr.splitlines() if not line.startswith(noise)]
        assert verified.returncode == 0, verified.stderr
        assert not said, verified.stderr
        if gc:
            self.nix.run("nix-store", "--gc")
            for path in self.live - lost:
                assert os.path.lexists(path), f"gc deleted {path}"
            verified = self.nix.run("nix-store", "--verify", "--check-contents")
            self.nix.run("nix-build", "--no-out-link", self.expression)


def _remove(path: Path) -> None:
    """Remove a tree whose directories may be read-only."""
    if path.is_dir() and not path.is_symlink():
        for directory, _, _ in os.walk(path):
            os.chmod(directory, 0o755)
        shutil.rmtree(path)
    elif os.path.lexists(path):
        parent = path.parent
        parent.chmod(0o755)
        path.unlink()
