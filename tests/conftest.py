"""What every test run shares: an account, at its end, of what was not tested here and why."""

from __future__ import annotations

from collections import Counter

SKIP_PREFIX = "Skipped: "


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
