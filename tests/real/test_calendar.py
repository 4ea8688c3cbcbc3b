"""What the topology takes for a time, systemd takes too; what it refuses, systemd refuses."""

from __future__ import annotations

import subprocess

import pytest
from tests.real.conftest import require

from kingpost.topology.types import _calendar

TIMES = (
    "daily", "hourly", "semiannually", "Mon 04:00", "Mon..Fri *-*-* 04:00", "*:0/15", "Sat,Sun 20:00", "*-*-1,15",
    "*-*~1", "Fri *-*~07/1", "2026-12-31 23:59:59", "Mon,Wed..Fri *-1/3-* 00/2:30 Europe/Berlin", "daily UTC",
    "monday", "05:40:23.42", "*:*:0/30", "12-31", "Mon-Fri 10:00", "weekly Europe/Berlin",
)  # fmt: skip
NONE = ("every night", "at 5", "04", "Mo 4:00", "Mon 4", "tomorrow", "*-*-* 4:5 every", "daily;reboot")


@pytest.mark.real
@pytest.mark.parametrize("text", [*TIMES, *NONE])
def test_times_are_systemds(text):
    require("systemd")
    accepted = subprocess.run(["systemd-analyze", "calendar", text], capture_output=True, check=False)
    assert (accepted.returncode == 0) == (text in TIMES)
    if text in TIMES:
        assert _calendar(text) == text
    else:
        with pytest.raises(ValueError, match="is no time"):
            _calendar(text)
