"""What every test run shares: what runs beside what, and, at its end, an account of what was not tested and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# Tests are never timed: on a busy machine an example takes as long as it takes.
settings.register_profile("kingpost", deadline=None)
settings.load_profile("kingpost")

REAL = Path(__file__).parent / "real"
SKIP_PREFIX = "Skipped: "


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Keep each file of real tests on one worker: its daemons and namespaces are started once, and never twice."""
    for item in items:
        if REAL in item.path.parents and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def reasons(reports) -> Counter[str]:
    """Count skipped tests by reason; pytest's report of a skip holds (file, line, "Skipped: reason")."""
    return Counter(
        report.longrepr[2].removeprefix(SKIP_PREFIX)
        for report in reports
        if isinstance(report.longrepr, tuple)
    )


def pytest_terminal_summary(terminalreporter):
    found = reasons(terminalreporter.stats.get("skipped", []))
    if not found:
        return
    terminalreporter.section("not tested here")
    for reason, number in found.most_common():
        tests = "1 test" if number == 1 else f"{number} tests"
        terminalreporter.write_line(f"{tests}: {reason}")
