"""Verdicts as metrics for node_exporter's textfile collector (one file per command, name it `*.prom`).

    kingpost_verdicts{command,status}         how many of each
    kingpost_verdict_codes{command,code}      how many of each failed code
    kingpost_failed{command,code,subject}     1 for each failed subject, at most 50
    kingpost_exit_code{command}               of the run
    kingpost_finished_seconds{command}        when it ended, seconds since 1970

Alert on the age of `kingpost_finished_seconds` too: a probe that does not run reports no failure.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from kingpost.base.verdict import Status, count, exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.base.verdict import Verdict

#: A label with a store path in it is a time series; a broken cache must not drown Prometheus.
MOST_SUBJECTS: Final = 50

_HELP: Final = {
    "kingpost_verdicts": "Verdicts of the last run by status.",
    "kingpost_verdict_codes": "Failed verdicts of the last run by code.",
    "kingpost_failed": "Subjects that failed in the last run, at most 50 of them.",
    "kingpost_exit_code": "Exit code of the last run: 0 good, 1 something failed, 3 could not look.",
    "kingpost_finished_seconds": "When the last run ended, in seconds since 1970.",
}


def render(command: str, verdicts: Sequence[Verdict], *, now: float | None = None) -> str:
    """Give the text in Prometheus' exposition format."""
    failed = [verdict for verdict in verdicts if verdict.status is Status.FAILED]
    codes = Counter(verdict.code for verdict in failed)
    subjects = sorted({(verdict.code, verdict.subject) for verdict in failed})[:MOST_SUBJECTS]
    samples: dict[str, list[tuple[dict[str, str], float]]] = {
        "kingpost_verdicts": [({"status": status}, n) for status, n in count(verdicts).items()],
        "kingpost_verdict_codes": [({"code": code}, n) for code, n in sorted(codes.items())],
        "kingpost_failed": [({"code": code, "subject": subject}, 1) for code, subject in subjects],
        "kingpost_exit_code": [({}, exit_code(verdicts))],
        "kingpost_finished_seconds": [({}, time.time() if now is None else now)],
    }
    lines = []
    for name, values in samples.items():
        if values:
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        for labels, value in values:
            written = ",".join(f'{key}="{_escaped(v)}"' for key, v in {"command": command, **labels}.items())
            lines.append(f"{name}{{{written}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
