"""docs/store-fix.md: what it shows is what the program prints, but for times, ids and places."""

import contextlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from tests.storefix.paper import hash_part, remove

from kingpost.storefix import cli, findings, nar
from kingpost.storefix.database import SCHEMA

PAGE = Path(__file__).parents[2] / "docs/store-fix.md"
CACHE = "https://cache.example.org"
HASHES = {"git-2.44.1": "d983asl7vnn6fwgb72p070n14wxgsfd7", "curl-8.7.1": "c5pagiikp6wcyn8pjpyvw4wgjxvap6x6"}
SYSTEM, OLD = "nixos-system-node1-24.05", "nixos-system-node1-23.11"
NEEDS = {
    "glibc-2.39": (), "zlib-1.3.1": ("glibc-2.39",), "openssl-3.0.13": ("glibc-2.39",),
    "bash-5.2": ("glibc-2.39",), "curl-8.7.1": ("zlib-1.3.1", "openssl-3.0.13"),
    "git-2.44.1": ("curl-8.7.1", "bash-5.2"), "etc": ("bash-5.2",), "units": ("bash-5.2",),
    OLD: ("etc", "units"), SYSTEM: ("git-2.44.1", "etc", "units"),
}  # fmt: skip


def path_of(name):
    return f"/nix/store/{HASHES.get(name) or hash_part(name)}-{name}"


@pytest.fixture
def roots(tmp_path):
    """The node of the incident before it, and a copy of it to fetch from."""
    root = tmp_path / "node1"
    state = root / "nix/var/nix"
    for directory in (
        root / "nix/store",
        state / "db",
        state / "gcroots",
        state / "profiles",
        root / "etc/nix",
    ):
        directory.mkdir(parents=True)
    (root / "etc/nix/nix.conf").write_text("substituters =\n")
    (state / "db/schema").write_text("10")
    (state / "gcroots/profiles").symlink_to("/nix/var/nix/profiles")
    with contextlib.closing(sqlite3.connect(state / "db/db.sqlite", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        for row, (name, needs) in enumerate(NEEDS.items(), 1):
            place = root / path_of(name)[1:]
            place.mkdir()
            (place / "f").write_bytes(b"\n".join([b"x" * 20_000, *map(os.fsencode, map(path_of, needs))]))
            (place / "f").chmod(0o444)
            os.utime(place / "f", (1, 1))
            os.utime(place, (1, 1))
            place.chmod(0o555)
            made = nar.digest(place)
            insert = (
                "insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?, ?, ?, 1, ?)"
            )
            connection.execute(insert, (row, path_of(name), made.nar_hash, made.nar_size))
            for other in needs:
                connection.execute(
                    "insert into Refs select ?, id from ValidPaths where path = ?", (row, path_of(other))
                )
    for number, name in enumerate((OLD, SYSTEM), 1):
        (state / f"profiles/system-{number}-link").symlink_to(path_of(name))
    (state / "profiles/system").symlink_to("system-2-link")
    twin = tmp_path / "cache"
    subprocess.run(["cp", "-a", root, twin], check=True)
    yield root, twin
    remove(root)
    remove(twin)


def run(root, twin, *words):
    """Give what a command prints, as it would be on the node itself."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        cli.main([*words, "--root", str(root)])
    return said.getvalue().replace(f" --root {root}", "").replace(str(root), "").replace(str(twin), CACHE)


def plain(text):
    """Put words for what differs from run to run."""
    text = re.sub(r"\b\d+\.\d s\b", "TIME", text)
    text = re.sub(r"\d{12}-[0-9a-f]{16}", "RUN", text)
    return re.sub(r"Plan [0-9a-f]{16}", "Plan ID", text).rstrip()


def shown(command):
    """Give the output that the page shows for a command."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(), re.MULTILINE)
    text = next(block for block in blocks if f"    $ {command}\n" in block)
    text = re.sub(r"^    ", "", text, flags=re.MULTILINE).split(f"$ {command}\n", 1)[1]
    return plain(text.split("\n$ ", 1)[0])


def test_the_incident(roots, tmp_path):
    root, twin = roots
    for name in HASHES:
        shutil.rmtree(root / path_of(name)[1:])
    plan = str(tmp_path / "plan.json")
    more = ["--from", str(twin), "--no-check-sigs", "--no-rebuild"]
    assert plain(run(root, twin, "scan")) == shown("store-fix scan")
    said = run(root, twin, "plan", "-o", plan, *more).replace(plan, "plan.json")
    assert plain(said) == shown("store-fix plan -o plan.json")
    assert plain(run(root, twin, "apply", plan, *more[:3])) == shown("store-fix apply plan.json")


def test_every_code_of_a_finding_is_explained():
    codes = {value for name, value in vars(findings).items() if name.isupper() and name not in
             ("PROBLEM", "NOTE", "EXPLAINED", "TYPE_CHECKING")}  # fmt: skip
    assert codes == set(findings.EXPLAINED)
    assert {code for code in codes if f"`{code}`" not in PAGE.read_text()} == set()
