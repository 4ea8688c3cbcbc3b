"""The ledger opens for every process that wants it, also for all of them at once on a file that is not there yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kingpost.base.errors import CannotLookError
from kingpost.base.ledger import Ledger, opened

RUN = (
    "import sys\nfrom pathlib import Path\nfrom kingpost.base.ledger import Ledger\n"
    "book = Ledger(Path(sys.argv[1]))\nbook.finish(book.start('x'), 0)\nbook.close()"
)


def test_many_processes_make_it_at_once(tmp_path):
    for attempt in range(3):
        file = tmp_path / f"{attempt}.sqlite"
        running = [
            subprocess.Popen([sys.executable, "-c", RUN, file], stderr=subprocess.PIPE, text=True)
            for _ in range(6)
        ]
        said = [one.communicate()[1] for one in running]
        assert [one.returncode for one in running] == [0] * 6, said
        with opened(file) as book:
            assert book.table("runs").count == 6


def test_a_file_that_is_no_ledger(tmp_path):
    (tmp_path / "text").write_text("this is no database, and long enough to be seen as none" * 30)
    with pytest.raises(CannotLookError, match="cannot be opened"):
        Ledger(tmp_path / "text")
