"""Connections that break in the middle: was it a switch, which is expected, or something else?

A switch restarts what an ssh connection lives on: tailscaled (nixpkgs PR #170210), the network, sometimes sshd. So a
visit that dropped is made once more, and then the host itself is asked what happened there meanwhile.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, TypeVar

from kingpost.base.errors import KingpostError
from kingpost.observe import doctor_codes as codes
from kingpost.observe.executors.interface import Over
from kingpost.observe.executors.ssh import DroppedError
from kingpost.observe.looking import Question, answer_to, look

if TYPE_CHECKING:
    from collections.abc import Callable

    from kingpost.base.verdict import Verdict
    from kingpost.observe.executors.interface import Executor

T = TypeVar("T")

WAITS: Final = (2.0, 5.0, 10.0, 15.0)
"""Seconds before each new try: tailscaled takes some to be back, and a drop outlasts the first of them at times."""

RECENT: Final = 300.0
"""Seconds before the visit in which the system may have been replaced: a switch starts units for a while after."""

#: What a connection lives on. A unit that starts again during a visit has cut it, or may have.
_CARRIERS: Final = (
    "sshd.service", "ssh.service", "tailscaled.service", "systemd-networkd.service", "NetworkManager.service",
    "dhcpcd.service", "wg-quick-wg0.service", "firewall.service", "nftables.service",
)  # fmt: skip

#: switch-to-configuration holds a flock(2) on this file while it activates (nixpkgs
#: pkgs/by-name/sw/switch-to-configuration-ng). It is read in /proc/locks and never tried: a try could make it fail.
_SCRIPT: Final = f"""
lock=$(stat -c %i /run/nixos/switch-to-configuration.lock 2>/dev/null) &&
  grep -q "FLOCK.*:$lock 0 EOF" /proc/locks && echo 'switch its lock is held'
unit=nixos-rebuild-switch-to-configuration.service
case $(systemctl is-active $unit 2>/dev/null) in active|activating|deactivating) echo "switch $unit runs" ;; esac
changed=$(stat -c %Z /run/current-system 2>/dev/null) && echo "system $(($(date +%s) - changed))"
up=$(cut -d. -f1 /proc/uptime)
echo "up $up"
for unit in {" ".join(_CARRIERS)}; do
  since=$(systemctl show $unit --property=ActiveEnterTimestampMonotonic --value 2>/dev/null)
  [ "${{since:-0}}" -gt 0 ] 2>/dev/null && echo "started $unit $((up - since / 1000000))"
done
exit 0
"""


def visiting(way: Executor, subject: str, attempt: Callable[[], T]) -> tuple[T, list[Verdict]]:
    """Make a visit, and once its connection dropped, make it again until the host is back.

    Args:
        way: The way in.
        subject: What a verdict on a drop is about.
        attempt: The visit; it changes nothing there, so that it may be made twice.

    Returns:
        What the visit gave, and one verdict if it dropped before.

    Raises:
        KingpostError: The host cannot be entered, or dropped and is not back.

    """
    began = time.monotonic()
    try:
        return attempt(), []
    except DroppedError as error:
        dropped = error
    for wait in WAITS:
        time.sleep(wait)
        try:
            found = attempt()
        except KingpostError:
            continue
        return found, [explain(way, subject, time.monotonic() - began, dropped)]
    raise KingpostError(
        f"the connection dropped, and in the {time.monotonic() - began:.0f} s since no other one came through",
        where=dropped.where, why=dropped.why, fix="see whether the host is up; then run this again",
    )  # fmt: skip


def explain(way: Executor, subject: str, seconds: float, dropped: DroppedError) -> Verdict:
    """Ask a host why its connection dropped within these seconds: expected if a switch is the cause."""
    host = way.outer if isinstance(way, Over) else way
    evidence: dict[str, object] = {"ssh": dropped.why, "back_after_seconds": round(seconds, 1)}
    try:
        answer = answer_to(look(host, [Question("switch", _SCRIPT)], timeout=30), "switch")
    except KingpostError as error:
        summary = f"{way.describe()}: the connection dropped and came back; why is not known: {error.why}"
        return codes.UNSTABLE.verdict(subject, summary, evidence)
    switch, others = _causes(answer.text, seconds)
    if switch:
        evidence["switch"] = switch
        summary = f"{way.describe()}: the connection dropped during a switch ({switch[0]}), and came back"
        return codes.DROPPED.verdict(subject, summary, evidence)
    evidence["meanwhile"] = others
    what = "; ".join(others) if others else "no switch runs there or has just run, and nothing was restarted"
    return codes.UNSTABLE.verdict(
        subject, f"{way.describe()}: the connection dropped and came back; {what}", evidence
    )


def _causes(text: str, seconds: float) -> tuple[list[str], list[str]]:
    """Give what speaks for a switch, and what else happened within these seconds."""
    switch, others = [], []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "switch":
            switch.append(rest)
        elif kind == "system" and _is_within(rest, seconds + RECENT):
            switch.append(f"the system was replaced {rest} s ago")
        elif kind == "up" and _is_within(rest, seconds):
            others.append(f"the host was booted {rest} s ago")
        elif kind == "started":
            unit, _, age = rest.partition(" ")
            if _is_within(age, seconds + 1):
                others.append(f"{unit} was started {age} s ago")
    return switch, others


def _is_within(text: str, seconds: float) -> bool:
    return bool(re.fullmatch(r"-?\d+", text)) and int(text) <= seconds
