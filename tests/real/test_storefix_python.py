"""The one file on a Python that has zstd of its own (3.14), on a store and a cache that real Nix made."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.real.conftest import require
from tests.storefix.lab import _remove

HERE = Path(__file__).parents[2]

# Neither the C library nor the program may help: what is left is `compression.zstd`.
ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
from kingpost_store_fix import cli
from kingpost_store_fix.sources import decompress
decompress._from_library = decompress.which = lambda *_, **__: None
from compression import zstd
made = []
real = zstd.ZstdDecompressor
zstd.ZstdDecompressor = lambda *args: made.append(real(*args)) or made[-1]
code = cli.main(sys.argv[2:])
print(f"{len(made)} decompressors")
sys.exit(code)
"""


@pytest.fixture
def python():
    return require("python314") / "python3.14"


@pytest.fixture
def pyz(tmp_path):
    out = tmp_path / "kingpost-store-fix.pyz"
    subprocess.run([HERE / "tools/build-pyz", out], check=True)
    return out


@pytest.fixture
def broken(nix_new):
    """Give a Nix whose store has lost two paths that a cache, compressed with zstd, has."""
    paths = []
    for number in range(2):
        file = nix_new.root / f"file{number}"
        file.write_bytes(os.urandom(1 << 20) * 2)
        paths.append(nix_new.run("nix-store", "--add", file).stdout.strip())
    nix_new.run("nix", "copy", "--to", f"file://{nix_new.root}/cache?compression=zstd", *paths)
    for path in paths:
        _remove(Path(path))
    return nix_new, paths


def test_zstd_is_undone_by_the_standard_library_alone(python, pyz, broken):
    nix, paths = broken
    words = ["repair", "--yes", "--offline", "--no-rebuild", "--from", f"file://{nix.root}/cache", "--quiet"]
    environment = {name: value for name, value in nix.env.items() if name.startswith("NIX_")}
    done = subprocess.run(
        [python, "-W", "error", "-I", "-S", "-c", ALONE, pyz, *words],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 fetch" in done.stdout
    assert "2 decompressors" in done.stdout
    assert all(map(os.path.lexists, paths))
    nix.run("nix-store", "--verify", "--check-contents")


def test_the_one_file_runs_as_it_is(python, pyz, broken):
    nix, paths = broken
    argv = [python, "-W", "error", "-I", "-S", pyz]
    environment = {name: value for name, value in nix.env.items() if name.startswith("NIX_")}
    scan = subprocess.run([*argv, "scan"], env=environment, capture_output=True, text=True, check=False)
    assert (scan.returncode, scan.stderr) == (1, "")
    assert all(path in scan.stdout for path in paths)
    words = [
        "repair",
        "--yes",
        "--offline",
        "--no-rebuild",
        "--contents",
        "--from",
        f"file://{nix.root}/cache",
    ]
    done = subprocess.run([*argv, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    nix.run("nix-store", "--verify", "--check-contents")
