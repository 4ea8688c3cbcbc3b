"""Where an observing command's verdicts go: the same options and the same ending for every command.

A command declares the options by these types, and ends with `return finish(...)`:

    def command(json: Json = False, junit: Junit = None, prometheus: Prometheus = None,
                ledger: LedgerFile = None, no_ledger: NoLedger = False) -> int:
        outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
        return finish("doctor", verdicts, outputs)

A command that runs for long records as it goes, so that a kill loses nothing:

        with Recorder("cache audit", outputs) as recorder:
            ...
            recorder.add([verdict])
            return finish("cache audit", verdicts, outputs, recorder=recorder)
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from kingpost.base.errors import CannotLookError
from kingpost.base.files import write_atomically
from kingpost.base.ledger import Ledger
from kingpost.base.verdict import exit_code, report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from kingpost.base.verdict import Verdict

_FILE = {"metavar": "FILE", "dir_okay": False}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/json.md).")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML, for GitLab.", **_FILE)]
Prometheus = Annotated[
    Path | None,
    typer.Option("--prometheus", help="Write metrics for node_exporter's textfile collector.", **_FILE),
]
LedgerFile = Annotated[
    Path | None, typer.Option("--ledger", help="Record in this ledger, not the default one.", **_FILE)
]
NoLedger = Annotated[bool, typer.Option("--no-ledger", help="Record nothing.")]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The options above, as given."""

    json: bool = False
    junit: Path | None = None
    prometheus: Path | None = None
    ledger: Path | None = None
    no_ledger: bool = False


class Recorder:
    """One run in the ledger. A run without an end was killed.

    A ledger that was named must open. Whatever else fails is said once on stderr, since an observation is worth more
    than its record.
    """

    def __init__(self, command: str, outputs: Outputs) -> None:
        self.ledger: Ledger | None = None
        self._run = 0
        self._ended = False
        if outputs.no_ledger:
            return
        try:
            self.ledger = Ledger(outputs.ledger)
            self._run = self.ledger.start(command)
        except CannotLookError as error:
            if outputs.ledger is not None:
                raise
            self._give_up(error)

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Append verdicts, in one transaction."""
        if self.ledger is not None:
            try:
                self.ledger.add(self._run, verdicts)
            except CannotLookError as error:
                self._give_up(error)

    def end(self, code: int) -> None:
        """Record the exit code."""
        if self.ledger is not None and not self._ended:
            self._ended = True
            try:
                self.ledger.finish(self._run, code)
            except CannotLookError as error:
                self._give_up(error)

    def _give_up(self, error: CannotLookError) -> None:
        print(f"kingpost: warning: not recorded: {error}", file=sys.stderr)
        if self.ledger is not None:
            self.ledger.close()
            self.ledger = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ledger is not None:
            self.ledger.close()


def finish(
    command: str,
    verdicts: Sequence[Verdict],
    outputs: Outputs,
    *,
    recorder: Recorder | None = None,
    note: str = "",
    **extra: Any,
) -> int:
    """Present verdicts in every form that was asked for and give the exit code.

    Args:
        command: As the user typed it, without `kingpost`: `cache audit`.
        verdicts: What was found, in order.
        outputs: The command's options.
        recorder: Of a command that recorded its verdicts as it went; else all are recorded here.
        note: One sentence for the terminal's last line.
        extra: Further keys of the JSON document.

    """
    code = exit_code(verdicts)
    if recorder is not None:
        recorder.end(code)
    else:
        with Recorder(command, outputs) as own:
            own.add(verdicts)
            own.end(code)
    try:
        if outputs.json:
            print(json.dumps(report(command, verdicts, **extra), indent=2), flush=True)
        else:
            from kingpost.report import terminal

            terminal.show(verdicts, sys.stdout, note=note)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our pipe has gone (`| head`), and may still want the exit code
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    finally:
        write_files(command, verdicts, outputs)
    return code


def write_files(command: str, verdicts: Sequence[Verdict], outputs: Outputs) -> None:
    """Write the files that were asked for."""
    if outputs.junit is not None:
        from kingpost.report import junit

        write_atomically(outputs.junit, junit.render(command, verdicts))
    if outputs.prometheus is not None:
        from kingpost.report import prometheus

        write_atomically(outputs.prometheus, prometheus.render(command, verdicts))
