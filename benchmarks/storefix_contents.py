"""store-fix scan --contents beside `nix store verify --all`, in one run, with the page cache warm and cold.

    python benchmarks/storefix_contents.py [--runs 3]

The mix that counts is `real`, cold: a store is larger than the memory of its machine. Two more show the ends,
many small paths and only large files. Cold means that the pages of this store's files, and no others, were dropped
(posix_fadvise); warm, that the runs before left everything in memory, as far as the kernel kept it.

Cold, the aim is 1.5 times Nix's throughput. Warm, no program reaches that: SHA-256 sets the limit, which both do by
the same instructions, and what it alone would take on all cores is shown. On two cores of a Xeon with SHA extensions
it is 0.36 s of the 0.45 s that Nix 2.34 takes for `large`, and 1.5 times as fast would be 0.30 s. There store-fix takes
0.54 s, of which 0.1 s are Python's start, on one core; for `small` 0.35 s (Nix 0.28 s), for `real` 1.21 s (Nix 1.20 s).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from storefix_scan import environment, nixes, timed


def fill(directory: Path, mix: str) -> None:
    """Make what is then added to a store.

    `real` is like the closure of a system: 2,500 paths, half of them below 80 KiB and some above 100 MiB, of files
    of which half are below 3 KiB.
    """
    rnd = random.Random(1)
    directory.mkdir()
    if mix == "real":
        for number in range(2500):
            left = int(min(rnd.lognormvariate(math.log(80 << 10), 2.2), 300 << 20))
            place = directory / f"p{number:05}"
            place.mkdir()
            large = 1 + left / (8 << 20)  # what large paths hold is large files
            for file in itertools.count():
                if file % 20 == 0:
                    here = place / f"d{file // 20:04}"
                    here.mkdir()
                size = min(left, int(rnd.lognormvariate(math.log(3 << 10), 2.0) * large))
                (here / f"f{file}").write_bytes(rnd.randbytes(size))
                left -= size
                if left <= 0:
                    break
    elif mix == "small":
        for number in range(4000):
            place = directory / f"p{number:05}" / "share"
            place.mkdir(parents=True)
            for file in range(rnd.randrange(1, 8)):
                (place / f"f{file}").write_bytes(rnd.randbytes(int(rnd.lognormvariate(8.5, 1.5))))
    else:
        for number in range(50):
            (directory / f"large{number:02}").write_bytes(rnd.randbytes(20 << 20))


def evict(directory: Path) -> None:
    """Drop the pages of every file below a directory from the page cache."""
    os.sync()
    for here, _, names in os.walk(directory):
        for name in names:
            path = Path(here) / name
            if not path.is_symlink():
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


def sha_seconds(size: int) -> float:
    """Give how long SHA-256 of so many bytes takes on all cores, with nothing to read."""
    piece = bytes(1 << 20)
    start = time.process_time()
    for _ in range(512):
        hashlib.sha256(piece).digest()
    return (time.process_time() - start) / 512 * size / len(piece) / len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    directories = nixes()
    for mix in ("real", "small", "large"):
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            for name in ("store", "var", "conf", "home"):
                (root / name).mkdir()
            (root / "conf/nix.conf").write_text(
                "build-users-group =\nsubstituters =\nexperimental-features = nix-command\n"
            )
            fill(root / "files", mix)
            adder = next(iter(directories.values())) / "nix-store"
            env = environment(root, str(adder.parent))
            added = sorted(str(path) for path in (root / "files").iterdir())
            for start in range(0, len(added), 1000):
                subprocess.run(
                    [adder, "--add", *added[start : start + 1000]],
                    env=env,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            size = sum(path.stat().st_size for path in (root / "store").rglob("*") if path.is_file())
            commands = {
                "store-fix": [sys.executable, "-m", "kingpost.storefix", "scan", "--contents", "--json"]
            }
            for version, directory in directories.items():
                commands[f"Nix {version}"] = [
                    str(directory / "nix"),
                    "store",
                    "verify",
                    "--all",
                    "--no-trust",
                ]
            for cold in (False, True):
                taken: dict[str, list[float]] = {name: [] for name in commands}
                for _ in range(options.runs):
                    for name, argv in commands.items():
                        if cold:
                            evict(root / "store")
                        taken[name].append(timed(argv, env)[0])
                ours = min(taken["store-fix"])
                bound = f"; SHA-256 alone takes {sha_seconds(size):.2f} s"
                print(f"{mix} paths, {size >> 20} MiB, {'cold' if cold else 'warm' + bound}")
                for name, figures in taken.items():
                    wall = min(figures)
                    ratio = (
                        "" if name == "store-fix" else f"   store-fix has {wall / ours:.2f}x its throughput"
                    )
                    print(f"  {name:10} {wall:6.2f} s {size / wall / 1e6:7.0f} MB/s{ratio}")


if __name__ == "__main__":
    main()
