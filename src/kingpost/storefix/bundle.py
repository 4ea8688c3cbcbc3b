"""Make the one file: this folder as a program that any Python >= 3.9 runs, with the same bytes every time.

Nothing in it is compressed: no release of zlib changes the bytes, and a Python without zlib runs it.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Dict

NAME = "kingpost-store-fix.pyz"
_PACKAGE = "kingpost_store_fix"
_SHEBANG = b"#!/usr/bin/env python3\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold
_MAIN = f"""\
import sys

if sys.version_info < (3, 9):
    sys.exit("kingpost-store-fix: Python %s is too old, 3.9 is needed" % sys.version.split()[0])

from {_PACKAGE}.cli import main

sys.exit(main())
"""


def build() -> bytes:
    """Give the file's bytes: from the folder, or itself when this runs from the file."""
    archive = getattr(globals()["__loader__"], "archive", None)
    if archive is not None:
        return Path(archive).read_bytes()
    written = io.BytesIO()
    written.write(_SHEBANG)
    with zipfile.ZipFile(written, "a") as zipped:
        for name, data in sorted(_files().items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o100444 << 16
            entry.create_system = 3  # Unix, whatever builds it
            zipped.writestr(entry, data)
    return written.getvalue()


def _files() -> Dict[str, bytes]:
    here = Path(__file__).parent
    files = {"__main__.py": _MAIN.encode()}
    for path in here.rglob("*.py"):
        files[f"{_PACKAGE}/{path.relative_to(here).as_posix()}"] = path.read_bytes()
    return files


def main() -> int:
    """Write the file to the path given: `tools/build-pyz OUT`."""
    if len(sys.argv) != 2:
        print("usage: build-pyz OUT", file=sys.stderr)
        return 2
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(build())
    out.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
