"""store-fix scan --contents beside `nix store verify --all`, in one run, with the page cache warm and cold.

    python benchmarks/storefix_contents.py [--runs 3]

Two mixes: many small paths, and large files. Cold means that the pages of this store's files, and no others,
were dropped (posix_fadvise). SHA-256 sets the limit when everything is in memory: both programs use the same
instructions for it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from storefix_scan import environment, nixes, timed


def fill(directory: Path, mix: str) -> None:
    rnd = random.Random(1)
    directory.mkdir()
    if mix == "small":
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    directories = nixes()
    for mix in ("small", "large"):
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
                ours = statistics.median(taken["store-fix"])
                print(f"{mix} paths, {size >> 20} MiB, {'cold' if cold else 'warm'}")
                for name, figures in taken.items():
                    wall = statistics.median(figures)
                    ratio = (
                        "" if name == "store-fix" else f"   store-fix has {wall / ours:.2f}x its throughput"
                    )
                    print(f"  {name:10} {wall:6.2f} s {size / wall / 1e6:7.0f} MB/s{ratio}")


if __name__ == "__main__":
    main()
