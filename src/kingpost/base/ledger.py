"""The append-only record of what was observed and done: one SQLite file, read by `kingpost history`.

Tables:
    runs      id, command, started (UTC, ISO 8601), finished, exit_code, host, version
    verdicts  id, run, status, code, subject, summary, evidence (JSON), remedy, seen (UTC)
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from kingpost import __version__
from kingpost.base.errors import CannotLookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlite_utils import Database
    from sqlite_utils.db import Table

    from kingpost.base.verdict import Verdict


_PATIENCE: Final = 30.0  # seconds to wait for another process


def default_path() -> Path:
    """Give `$KINGPOST_LEDGER`, else `$XDG_STATE_HOME/kingpost/ledger.sqlite` (`~/.local/state`)."""
    if chosen := os.environ.get("KINGPOST_LEDGER"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "kingpost" / "ledger.sqlite"


def now() -> str:
    """Give the current time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """An open ledger. Rows are only ever added."""

    def __init__(self, path: Path | None = None) -> None:
        import sqlite3  # noqa: PLC0415 - keeps `kingpost --version` light

        import sqlite_utils  # noqa: PLC0415 - likewise

        self.path = path or default_path()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.db: Database = sqlite_utils.Database(
                sqlite3.connect(self.path, timeout=_PATIENCE, check_same_thread=False)
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise CannotLookError(
                f"the ledger cannot be opened: {error}",
                where=str(self.path),
                fix="name another file with --ledger or KINGPOST_LEDGER, or pass --no-ledger",
            ) from error

    def table(self, name: str) -> Table:
        """Give one table."""
        return cast("Table", self.db[name])

    def _prepare(self) -> None:
        """Make the tables; several processes may do so at once, and SQLite waits for no lock when it turns to WAL."""
        import sqlite3  # noqa: PLC0415 - keeps `kingpost --version` light

        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.db.execute("pragma journal_mode = wal")
                self._create()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _create(self) -> None:
        self.table("runs").create(
            {"id": int, "command": str, "started": str, "finished": str,
             "exit_code": int, "host": str, "version": str},
            pk="id", if_not_exists=True,
        )  # fmt: skip
        self.table("verdicts").create(
            {"id": int, "run": int, "status": str, "code": str, "subject": str, "summary": str,
             "evidence": str, "remedy": str, "seen": str},
            pk="id", foreign_keys=[("run", "runs", "id")], if_not_exists=True,
        )  # fmt: skip
        self.table("verdicts").create_index(["subject", "code", "seen"], if_not_exists=True)

    def start(self, command: str) -> int:
        """Record that a command began; gives the run's id."""
        row = {"command": command, "started": now(), "host": socket.gethostname(), "version": __version__}
        with self._writing():
            return int(cast("int", self.table("runs").insert(row).last_pk))

    def add(self, run: int, verdicts: Iterable[Verdict]) -> None:
        """Append verdicts to a run, in one transaction per call.

        Raises:
            CannotLookError: They cannot be written: the disk is full, for example.

        """
        seen = now()
        with self._writing():
            self.table("verdicts").insert_all(
                {
                    "run": run,
                    **{k: v for k, v in verdict.as_dict().items() if k != "evidence"},
                    "evidence": json.dumps(verdict.as_dict()["evidence"], sort_keys=True),
                    "seen": seen,
                }
                for verdict in verdicts
            )

    def finish(self, run: int, exit_code: int) -> None:
        """Record how a command ended. A run without an end was killed."""
        with self._writing():
            self.table("runs").update(run, {"finished": now(), "exit_code": exit_code})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        import sqlite3  # noqa: PLC0415 - keeps `kingpost --version` light

        try:
            yield
        except sqlite3.Error as error:
            raise CannotLookError(
                f"the ledger cannot be written: {error}",
                where=str(self.path),
                fix="make room there, or name another file with --ledger or KINGPOST_LEDGER",
            ) from error

    def history(self, subject: str = "", code: str = "", limit: int = 100) -> Iterator[dict[str, Any]]:
        """Give verdicts, newest first, whose subject contains `subject` and whose code is `code`."""
        where = "instr(subject, :subject) > 0" if subject else "1"
        if code:
            where += " and code = :code"
        yield from self.table("verdicts").rows_where(
            where, {"subject": subject, "code": code}, order_by="id desc", limit=limit
        )

    def close(self) -> None:
        """Close the file."""
        self.db.close()


@contextmanager
def opened(path: Path | None = None) -> Iterator[Ledger]:
    """Open a ledger for a `with` block."""
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        ledger.close()
