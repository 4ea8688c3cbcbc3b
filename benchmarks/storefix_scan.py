"""store-fix scan beside `nix-store --verify`, in one run: a healthy store, and one that has lost a tenth.

    python benchmarks/storefix_scan.py [--paths 500000] [--runs 5] [--large] [--at DIR]

The store is synthetic: real tables with ten references a path and the gaps between ids that collections leave,
empty files on disk. `--large` adds the run with 2,000,000 paths. Every figure is the median of interleaved runs,
whole processes from start to end; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

from kingpost.storefix.database import SCHEMA  # noqa: E402 -- runs from a checkout
from kingpost.storefix.sources.hashes import ALPHABET  # noqa: E402 -- likewise


def make(root: Path, paths: int) -> None:
    """Make a store of empty files with its database."""
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
    connection.execute("begin")
    connection.executemany(
        "insert into ValidPaths values (?, ?, ?, ?, ?, 96, null, ?, null)",
        (
            (row, f"{store}/{name}", "sha256:" + hashlib.sha256(name.encode()).hexdigest(), 1_700_000_000 + n,
             f"{store}/{names[n * 7 % paths]}.drv", "cache.nixos.org-1:" + "x" * 88)
            for n, (row, name) in enumerate(zip(ids, names, strict=True))
        ),
    )  # fmt: skip
    connection.executemany(
        "insert or ignore into Refs values (?, ?)",
        (
            (ids[n], ids[max(0, n - 1 - int(rnd.expovariate(1 / 2000)))])
            for n in range(1, paths)
            for _ in range(10)
        ),
    )
    connection.execute("commit")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    for name in names:
        os.close(os.open(store / name, os.O_CREAT | os.O_WRONLY, 0o444))


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
    ours = statistics.median(wall for wall, _, _ in taken["store-fix"])
    for name, figures in taken.items():
        wall = statistics.median(item[0] for item in figures)
        cpu = statistics.median(item[1] for item in figures)
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
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--at", type=Path, help="keep the store here and use it again")
    options = parser.parse_args()
    for paths in (options.paths, *([2_000_000] if options.large else [])):
        with tempfile.TemporaryDirectory() as temporary:
            root = (options.at or Path(temporary)) / f"store-{paths}"
            if not root.exists():
                make(root, paths)
            print(f"{paths:,} paths, healthy")
            compare(root, options.runs if paths <= 500_000 else 2, destroys=False)
            lost = newest(root, paths // 10)
            for name in lost:
                (root / "store" / name).unlink()
            print(f"{paths:,} paths, a tenth of them lost")
            compare(root, max(1, options.runs // 2), destroys=True)
            for name in lost:
                (root / "store" / name).touch(0o444)


if __name__ == "__main__":
    main()
