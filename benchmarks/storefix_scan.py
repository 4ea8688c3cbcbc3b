"""store-fix scan beside `nix-store --verify`, in one run: a healthy store, and one that has lost a tenth.

    python benchmarks/storefix_scan.py [--paths 500000] [--references 5] [--runs 5] [--large] [--at DIR]

The store is synthetic: real tables with the gaps between ids that collections leave, empty files on disk. It was
filled in deploys over three years, the last a few minutes ago, whose 300 paths of 64 KiB `scan` hashes too.
`--large` adds the run with 2,000,000 paths. Runs are interleaved, whole processes from start to end, and the
least of each counts: the ratios are what matters.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

from kingpost.storefix.database import SCHEMA  # noqa: E402 -- runs from a checkout
from kingpost.storefix.nar import digest  # noqa: E402 -- likewise
from kingpost.storefix.sources.hashes import ALPHABET  # noqa: E402 -- likewise

DEPLOY, LAST = 400, 300  # paths that are registered together; of them the last ones, which have contents
SPAN = 3 * 365 * 86400  # seconds


def make(root: Path, paths: int, references: int) -> None:
    """Make a store of empty files, but for the last ones, with its database."""
    store, state = root / "store", root / "var"
    for directory in (
        store,
        state / "db",
        state / "gcroots",
        state / "profiles",
        root / "conf",
        root / "home",
    ):
        directory.mkdir(parents=True)
    (root / "conf" / "nix.conf").write_text("build-users-group =\nsubstituters =\n")
    (state / "db" / "schema").write_text("10")
    rnd = random.Random(1)
    ids, row = [], 0
    while len(ids) < paths:
        row += 1 if rnd.random() > 0.3 else rnd.randrange(2, 5)
        ids.append(row)
    names = ["".join(rnd.choices(ALPHABET, k=32)) + f"-package-name-{n % 97}.{n % 991}" for n in range(paths)]
    connection = sqlite3.connect(state / "db" / "db.sqlite", isolation_level=None)
    connection.executescript("pragma journal_mode = wal; pragma synchronous = off;" + SCHEMA)
    for n, name in enumerate(names):
        with (store / name).open("wb") as file:
            file.write(rnd.randbytes(65536) if n >= paths - LAST else b"")
        if n >= paths - LAST:
            (store / name).chmod(0o444)
    empty = digest(store / names[0])

    def row_of(n: int, row: int, name: str) -> tuple[object, ...]:
        made = digest(store / name) if n >= paths - LAST else empty
        since = (paths - n) // DEPLOY * (SPAN // (paths // DEPLOY + 1)) + 300
        return (row, f"{store}/{name}", made.nar_hash, int(time.time()) - since,
                f"{store}/{names[n * 7 % paths]}.drv", made.nar_size, "cache.nixos.org-1:" + "x" * 88)  # fmt: skip

    connection.execute("begin")
    connection.executemany(
        "insert into ValidPaths values (?, ?, ?, ?, ?, ?, null, ?, null)",
        (row_of(n, row, name) for n, (row, name) in enumerate(zip(ids, names, strict=True))),
    )
    connection.executemany(
        "insert or ignore into Refs values (?, ?)",
        (
            (ids[n], ids[max(0, n - 1 - int(rnd.expovariate(1 / 2000)))])
            for n in range(1, paths)
            for _ in range(references)
        ),
    )
    connection.execute("commit")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def timed(argv: list[str], env: dict[str, str]) -> tuple[float, float, int]:
    """Give wall seconds, CPU seconds and the largest resident size in MiB of one process."""
    start = time.perf_counter()
    done = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(done.pid, 0)
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def environment(root: Path, extra: str) -> dict[str, str]:
    return {
        "PATH": f"{extra}:{os.environ['PATH']}",
        "HOME": str(root / "home"),
        "NIX_STORE_DIR": str(root / "store"),
        "NIX_STATE_DIR": str(root / "var"),
        "NIX_LOG_DIR": str(root / "log"),
        "NIX_CONF_DIR": str(root / "conf"),
        "NIX_REMOTE": "local",
        "NIX_USER_CONF_FILES": "/dev/null",
        "PYTHONPATH": str(HERE.parent / "src"),
    }


def nixes() -> dict[str, Path]:
    """Give the real Nix programs that tests/real/provide has made ready."""
    told = subprocess.run(
        [HERE.parent / "tests/real/provide"], capture_output=True, text=True, check=True
    ).stdout
    ready = dict(line.split("=", 1) for line in told.splitlines())
    return {
        label: Path(ready[name]) for name, label in (("nix28", "2.8"), ("nix234", "2.34")) if name in ready
    }


def compare(root: Path, runs: int, *, destroys: bool) -> None:
    """Time scan and both Nix versions in turn and print the ratios.

    `nix-store --verify` deletes the rows of lost paths: then the database is put back before each of its runs.
    """
    commands = {"store-fix": [sys.executable, "-m", "kingpost.storefix", "scan", "--json"]}
    directories = nixes()
    for version, directory in directories.items():
        commands[f"Nix {version}"] = [str(directory / "nix-store"), "--verify"]
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    saved = root / "saved.sqlite"
    database = root / "var/db/db.sqlite"
    if destroys:
        shutil.copy(database, saved)
    for _ in range(runs):
        for name, argv in commands.items():
            if destroys and name != "store-fix":
                for suffix in ("-wal", "-shm"):
                    Path(f"{database}{suffix}").unlink(missing_ok=True)
                shutil.copy(saved, database)
            taken[name].append(timed(argv, environment(root, "")))
    if destroys:
        shutil.copy(saved, database)
    ours = min(wall for wall, _, _ in taken["store-fix"])
    for name, figures in taken.items():
        wall = min(item[0] for item in figures)
        cpu = min(item[1] for item in figures)
        size = max(item[2] for item in figures)
        ratio = "" if name == "store-fix" else f"   {wall / ours:5.2f}x the time of store-fix"
        print(f"  {name:10} {wall:7.2f} s wall {cpu:7.2f} s CPU {size:5} MiB{ratio}")


def newest(root: Path, count: int) -> list[str]:
    """Give the names registered last: nothing else refers to them, so that Nix deletes their rows to the end.

    With a random tenth lost it stops at a foreign key failure after a fraction of the work.
    """
    connection = sqlite3.connect(root / "var/db/db.sqlite")
    rows = connection.execute("select path from ValidPaths order by id desc limit ?", (count,)).fetchall()
    connection.close()
    return [Path(path).name for (path,) in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=500_000)
    parser.add_argument("--references", type=int, default=5, help="of each path")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--at", type=Path, help="keep the store here and use it again")
    options = parser.parse_args()
    for paths in (options.paths, *([2_000_000] if options.large else [])):
        with tempfile.TemporaryDirectory() as temporary:
            root = (options.at or Path(temporary)) / f"store-{paths}-{options.references}"
            if not root.exists():
                make(root, paths, options.references)
            print(f"{paths:,} paths with {options.references} references each, healthy")
            compare(root, options.runs if paths <= 500_000 else 2, destroys=False)
            lost = newest(root, paths // 10)
            aside = root / "aside"
            aside.mkdir()
            for name in lost:
                (root / "store" / name).rename(aside / name)
            print(f"{paths:,} paths, a tenth of them lost")
            compare(root, max(1, options.runs // 2), destroys=True)
            for name in lost:
                (aside / name).rename(root / "store" / name)
            aside.rmdir()


if __name__ == "__main__":
    main()
