"""Bind addresses: what `ss` shows against the computed listeners and the tunnels' ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to
from kingpost.topology.paths import ANY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit

_EVERY = frozenset({"*", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def questions(_visit: Visit) -> Iterator[Question]:
    """Ask for the listening TCP sockets."""
    yield Question("sockets", "ss -Hltn")


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare each declared listener's address with what listens on its port."""
    on = visit.on
    wanted = [(one.service, str(one.bind), one.port) for one in on.platform.listeners_on(on.name)]
    wanted += [(f"tunnel {name}", str(t.listen[0]), t.listen[1]) for name, t in on.tunnels.items()]
    answer = answer_to(visit.answers, "sockets")
    for service, address, port in wanted:
        item = f"{service} listens on"
        if answer.code:
            yield visit.not_asked(item, f"ss: {answer.why}")
            continue
        found = listening(answer.text).get(port, [])
        declared, seen = f"{address}:{port}", [f"{one}:{port}" for one in found]
        if not found:
            yield visit.differs(codes.NOT_LISTENING, item, declared, None)
        elif address in found or (address == str(ANY) and _EVERY & set(found)):
            extra = [one for one in found if one != address and one not in {"::1", "::"}]
            wide = address != str(ANY) and bool(extra)
            yield visit.differs(codes.BIND_WIDE, item, declared, seen) if wide else visit.same(item, declared)
        elif _EVERY & set(found):
            yield visit.differs(codes.BIND_WIDE, item, declared, seen)
        else:
            yield visit.differs(codes.BIND_NARROW, item, declared, seen)


def listening(text: str) -> dict[int, list[str]]:
    """Read `ss -Hltn`: the addresses that listen on each port, without brackets and interface scopes."""
    found: dict[int, list[str]] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5 or fields[0] != "LISTEN":
            continue
        address, _, port = fields[3].rpartition(":")
        if port.isdigit():
            plain = address.partition("%")[0].strip("[]") or "*"
            found.setdefault(int(port), []).append(plain)
    return found
