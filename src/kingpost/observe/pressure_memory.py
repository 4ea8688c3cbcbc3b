"""Memory now: what each limited unit uses, pressure stall information, and the budget in effect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import approximate_size, format_size
from kingpost.observe import pressure_codes as codes
from kingpost.observe.declared import unit_limits
from kingpost.observe.looking import Question, answer_to
from kingpost.observe.pressure_eviction import evictions
from kingpost.topology.budget import host_budget

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.base.verdict import Verdict
    from kingpost.observe.looking import Answer
    from kingpost.render.nix_hosts import OnHost

#: Percent of the last minute in which nobody got on (`full`), from which on it is called high.
FULL: Final = {"memory": 10.0, "io": 40.0}
#: A virtual machine's kernel and firmware keep some of the declared memory for themselves.
KEPT_BY_FIRMWARE: Final = 0.06
_NEAR: Final = 0.9

#: Properties first, then the control group's own files: version 2's, else version 1's.
_UNIT: Final = """
systemctl show {unit} --property=LoadState,MemoryCurrent,MemoryPeak,MemoryMax,MemoryHigh,ControlGroup || exit 1
group=$(systemctl show {unit} --property=ControlGroup --value)
[ -n "$group" ] || exit 0
for top in /sys/fs/cgroup /sys/fs/cgroup/unified; do
  [ -r "$top$group/memory.events" ] && tr ' ' '=' <"$top$group/memory.events"
  [ -r "$top$group/memory.peak" ] && echo "peak=$(cat "$top$group/memory.peak")"
done
old=/sys/fs/cgroup/memory$group
[ -r "$old/memory.max_usage_in_bytes" ] && echo "peak=$(cat "$old/memory.max_usage_in_bytes")"
[ -r "$old/memory.oom_control" ] && grep '^oom_kill ' "$old/memory.oom_control" | tr ' ' '='
exit 0
"""


def questions(on: OnHost) -> Iterator[Question]:
    """Ask for the host's memory, its pressure, and each limited unit's."""
    yield Question("meminfo", "cat /proc/meminfo")
    yield Question("pressure", "grep . /proc/pressure/memory /proc/pressure/io")
    for unit in unit_limits(on):
        yield Question(f"memory {unit}", _UNIT.format(unit=unit))


def judge(on: OnHost, answers: Mapping[str, Answer]) -> Iterator[Verdict]:
    """Give the host's verdicts, then each unit's, then the budget's."""
    yield from _pressure(on, answers)
    memory = _meminfo(answers)
    if memory:
        yield from _host(on, memory)
        yield from _eviction(on, answers, memory)
    rows = {unit: _rows(answer_to(answers, f"memory {unit}")) for unit in unit_limits(on)}
    for unit, declared in unit_limits(on).items():
        yield from _unit(on, unit, declared, rows[unit], answer_to(answers, f"memory {unit}").why)
    yield from _budget(on, rows, memory)


def _rows(answer: Answer) -> dict[str, str]:
    return dict(line.split("=", 1) for line in answer.text.splitlines() if "=" in line)


def size(text: str | None) -> int | None:
    """Give a number of bytes as systemd or a control group writes it; None for none (infinity, not set)."""
    # 2^64 - 1 is what systemd prints for "not accounted", and version 1 rounds "no limit" to pages of 2^63.
    return int(text) if text and text.isdigit() and int(text) < 1 << 62 else None


def _meminfo(answers: Mapping[str, Answer]) -> dict[str, int]:
    text = answer_to(answers, "meminfo").text
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def _pressure(on: OnHost, answers: Mapping[str, Answer]) -> Iterator[Verdict]:
    answer = answer_to(answers, "pressure")
    found = re.findall(
        r"/proc/pressure/(\w+):(some|full) avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+)", answer.text
    )
    if not found:
        yield codes.NOT_ASKED.verdict(f"{on.name}: pressure", f"/proc/pressure: {answer.why}")
    for kind in FULL:
        shares = {f"{what}_avg60_percent": float(a60) for k, what, _, a60, _ in found if k == kind}
        shares |= {f"{what}_avg300_percent": float(a300) for k, what, _, _, a300 in found if k == kind}
        if not shares:
            continue
        full = shares.get("full_avg60_percent", 0.0)
        code = codes.STALLED if full >= FULL[kind] else codes.CALM
        summary = f"everybody waited {full:g}% of the last minute, somebody {shares.get('some_avg60_percent', 0.0):g}%"
        yield code.verdict(f"{on.name}: {kind} pressure", summary, shares)


def _host(on: OnHost, memory: Mapping[str, int]) -> Iterator[Verdict]:
    declared, actual = on.host.memory, memory.get("MemTotal", 0)
    if actual < declared * (1 - KEPT_BY_FIRMWARE):
        yield codes.SMALLER.verdict(
            f"{on.name}: memory", f"declared {format_size(declared)}, it has {approximate_size(actual)}",
            {"declared_bytes": declared, "actual_bytes": actual},
        )  # fmt: skip
    swap = memory.get("SwapTotal", 0)
    if swap < on.host.swap * 0.99:
        yield codes.SMALLER.verdict(
            f"{on.name}: swap", f"declared {format_size(on.host.swap)}, it has {approximate_size(swap)}",
            {"declared_bytes": on.host.swap, "actual_bytes": swap},
        )  # fmt: skip


def _eviction(on: OnHost, answers: Mapping[str, Answer], memory: Mapping[str, int]) -> Iterator[Verdict]:
    """Say how far it is to the point where the kubelet evicts pods for memory, if there is one."""
    if not on.clusters or "MemAvailable" not in memory:
        return
    subject, free = f"{on.name}: memory for pods", memory["MemAvailable"]
    evidence = {"available_bytes": free, "memory_bytes": memory["MemTotal"]}
    for one in evictions(on, answers):
        if one.signal == "memory.available":
            least = one.least(memory["MemTotal"])
            summary = f"{approximate_size(free)} available; {one.who}"
            code = codes.EVICTION if free < least else codes.MEMORY
            yield code.verdict(subject, summary, {**evidence, "eviction_bytes": least})
            return
    summary = f"{approximate_size(free)} available; this kubelet evicts nothing for memory: the kernel kills at none"
    yield codes.MEMORY.verdict(subject, summary, evidence)


def _unit(
    on: OnHost, unit: str, declared: Mapping[str, str], rows: Mapping[str, str], why: str
) -> Iterator[Verdict]:
    subject = f"{on.name}: {unit}"
    if "LoadState" not in rows:
        yield codes.NOT_ASKED.verdict(subject, f"systemctl: {why}")
        return
    limit, current = size(rows.get("MemoryMax")), size(rows.get("MemoryCurrent"))
    peak = size(rows.get("MemoryPeak")) or size(rows.get("peak"))
    evidence = {
        "declared_bytes": int(declared["MemoryMax"]) if "MemoryMax" in declared else None,
        "limit_bytes": limit, "current_bytes": current, "peak_bytes": peak,
    }  # fmt: skip
    if "MemoryMax" in declared and limit is None:
        words = f"declared {format_size(int(declared['MemoryMax']))}, and no limit is in effect"
        yield codes.UNLIMITED.verdict(subject, words, evidence)
    elif limit is not None and peak is not None:
        code = codes.NEAR if peak >= limit * _NEAR else codes.MEMORY
        now = f"{approximate_size(current)} now, " if current is not None else ""
        summary = f"{now}{approximate_size(peak)} at its peak, {approximate_size(limit)} its limit"
        yield code.verdict(subject, summary, evidence)


def _budget(
    on: OnHost, rows: Mapping[str, Mapping[str, str]], memory: Mapping[str, int]
) -> Iterator[Verdict]:
    """Compare the sum of the limits in effect, and of what cannot be asked for as declared, with the host."""
    budget = host_budget(on.platform.topology, on.name)
    if not budget.items:
        return
    table: list[dict[str, Any]] = []
    for item in budget.items:
        seen = rows.get(item.what, {})
        known = "LoadState" in seen
        limit = size(seen.get("MemoryMax")) if known else item.size
        table.append(
            {"what": item.what, "declared_bytes": item.size, "in_effect_bytes": limit, "asked": known}
        )
    total = sum(row["in_effect_bytes"] or 0 for row in table)
    have = memory.get("MemTotal", budget.memory)
    evidence = {
        "memory_bytes": have, "reserve_bytes": budget.reserve, "declared_total_bytes": budget.total,
        "in_effect_total_bytes": total, "items": table,
    }  # fmt: skip
    # A host that is as declared but for what its firmware keeps counts as declared.
    whole = max(have, budget.memory) if have >= budget.memory * (1 - KEPT_BY_FIRMWARE) else have
    over = total + budget.reserve > whole
    code = codes.OVER if over else codes.BUDGET
    summary = (
        f"{approximate_size(total)} of limits in effect ({approximate_size(budget.total)} declared), "
        f"{approximate_size(budget.reserve)} in reserve, {approximate_size(have)} there"
    )
    yield code.verdict(f"{on.name}: budget", summary, evidence)
