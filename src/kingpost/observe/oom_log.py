"""Kills for memory, from the kernel's log and systemd-oomd's: journalctl's JSON and short forms, and dmesg.

The kernel's lines are those of mm/oom_kill.c (`oom-kill:constraint=…` since 4.19, `Task in … killed as a result
of limit of …` before); systemd-oomd's are those of src/oom/oomd-manager.c (`Killed …`, since 256 `Marked …`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Killer = Literal["kernel", "systemd-oomd"]


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        by: Who killed.
        cgroup: Control group of what was killed; empty when the log does not say.
        limited: Control group whose limit was reached; empty when the whole host was out of memory.
        process: Name; empty for systemd-oomd, which kills a control group.
        rss_bytes: Resident memory of the process when it was killed.
        usage_bytes: Memory of the limited control group then; 0 when not said.
        limit_bytes: Its limit; 0 when not said.
        at: When, ISO 8601 or as the log has it; empty when it does not say.
        host: The log's host name; empty when it does not say.
        why: systemd-oomd's own words.

    """

    by: Killer
    cgroup: str = ""
    limited: str = ""
    process: str = ""
    rss_bytes: int = 0
    usage_bytes: int = 0
    limit_bytes: int = 0
    at: str = ""
    host: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log, without its prefix."""

    who: str
    message: str
    at: str = ""
    host: str = ""


#: What a host needs to send: every line that `kills` understands, and no other.
KEPT: Final = (
    "invoked oom-killer|memory: usage|oom-kill:|Task in .* killed as a result|ut of memory: Kill"
    "|(Killed|Marked) .* due to memory"
)

#: Nearly all lines of a journal tell of something else: they are not even read as JSON.
_TELLING: Final = re.compile(r'oom-kill|memory|Task in |"MESSAGE" ?: ?\[')

_ISO: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*"
_SYSLOG: Final = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
_SHORT: Final = re.compile(
    rf"(?P<at>{_ISO}|{_SYSLOG}) (?P<host>\S+) (?P<who>[\w.@-]+)(?:\[\d+\])?: (?P<message>.*)"
)
_DMESG: Final = re.compile(
    rf"(?:<\d+>)?(?:\[\s*(?P<since>\d+\.\d+)\]|\[(?P<date>[A-Z][^\]]+)\]|(?P<iso>{_ISO})) (?P<message>.*)"
)

_USAGE: Final = re.compile(r"memory: usage (\d+)kB, limit (\d+)kB")
_CHOICE: Final = re.compile(r"oom-kill:constraint=(\w+),")
_OLD_CHOICE: Final = re.compile(r"Task in (\S+) killed as a result of limit of (\S+)")
_KILLED: Final = re.compile(r"ut of memory: Kill(?:ed)? process \d+ \((.*?)\)")
_RSS: Final = re.compile(r"(?:anon|file|shmem)-rss:(\d+)kB")
_OOMD: Final = re.compile(r"(?:Killed|Marked) (\S+) (?:for killing )?(due to memory .*)")


def kills(lines: Iterable[str]) -> list[Kill]:
    """Give every kill that a log tells of, in its order; lines of other programs are passed over.

    Args:
        lines: Of `journalctl -o json`, of one of its short forms, or of dmesg.

    """
    found: list[Kill] = []
    states: dict[str, _Kernel] = {}
    for text in lines:
        line = _line(text) if _TELLING.search(text) else None
        if line is None:
            continue
        if line.who == "kernel":
            if kill := states.setdefault(line.host, _Kernel()).feed(line):
                found.append(kill)
        elif line.who == "systemd-oomd" and (match := _OOMD.match(line.message)):
            found.append(
                Kill("systemd-oomd", match[1], match[1], at=line.at, host=line.host, why=match[2].strip())
            )
    return found


@dataclass(slots=True)
class _Kernel:
    """What the kernel said since it was last out of memory."""

    pending: Kill = field(default_factory=lambda: Kill("kernel"))

    def feed(self, line: Line) -> Kill | None:
        message = line.message
        if "invoked oom-killer:" in message:
            self.pending = Kill("kernel")
        elif usage := _USAGE.search(message):
            used, limit = int(usage[1]) * 1024, int(usage[2]) * 1024
            self.pending = replace(self.pending, usage_bytes=used, limit_bytes=limit)
        elif choice := _CHOICE.search(message):
            # A comma may be part of no control group's name here: systemd and runtimes never use one.
            fields = dict(part.split("=", 1) for part in message.split(",") if "=" in part)
            limited = fields.get("oom_memcg", "") if choice[1] == "CONSTRAINT_MEMCG" else ""
            self.pending = replace(self.pending, cgroup=fields.get("task_memcg", ""), limited=limited)
        elif old := _OLD_CHOICE.search(message):
            self.pending = replace(self.pending, cgroup=old[1], limited=old[2])
        elif killed := _KILLED.search(message):
            rss = sum(int(size) for size in _RSS.findall(message)) * 1024
            return replace(self.pending, process=killed[1], rss_bytes=rss, at=line.at, host=line.host)
        return None


def _line(text: str) -> Line | None:
    text = text.strip("\n")
    if text.startswith("{"):
        try:
            return _entry(json.loads(text))
        except (ValueError, AttributeError, TypeError):
            return None  # cut off
    if match := _SHORT.fullmatch(text):
        return Line(match["who"], match["message"], match["at"], match["host"])
    if match := _DMESG.fullmatch(text):
        at = match["iso"] or match["date"] or (f"{match['since']} s after boot" if match["since"] else "")
        return Line("kernel", match["message"], at.replace(",", "."))
    return None


def _entry(entry: dict[str, Any]) -> Line | None:
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # journalctl's form for what is no UTF-8
        message = bytes(message).decode("utf-8", "replace")
    if not isinstance(message, str):
        return None
    # SYSLOG_IDENTIFIER is the sender's own claim; the transport and the unit are journald's.
    oomd = entry.get("_SYSTEMD_UNIT") == "systemd-oomd.service"
    who = "kernel" if entry.get("_TRANSPORT") == "kernel" else "systemd-oomd" if oomd else ""
    stamp = str(entry.get("__REALTIME_TIMESTAMP", ""))
    at = (
        datetime.fromtimestamp(int(stamp) / 1e6, UTC).isoformat(timespec="seconds") if stamp.isdigit() else ""
    )
    return Line(who, message, at, str(entry.get("_HOSTNAME", "")))


def hosts(found: Iterable[Kill]) -> Iterator[str]:
    """Give the host names that a log's kills are from."""
    yield from dict.fromkeys(kill.host for kill in found)
