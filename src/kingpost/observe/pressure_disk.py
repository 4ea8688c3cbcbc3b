"""Disks: space and inodes of each mount with the threshold that comes next, and what could be freed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from kingpost.base.units import approximate_size
from kingpost.observe import pressure_codes as codes
from kingpost.observe.looking import Question, answer_to, words
from kingpost.observe.pressure_eviction import evictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kingpost.base.verdict import Verdict
    from kingpost.observe.looking import Answer
    from kingpost.observe.pressure_eviction import Eviction
    from kingpost.render.nix_hosts import OnHost

_VIRTUAL: Final = frozenset(
    {
        "tmpfs",
        "devtmpfs",
        "ramfs",
        "overlay",
        "squashfs",
        "iso9660",
        "efivarfs",
        "proc",
        "sysfs",
        "fuse.portal",
    }
)
STORE: Final = "/nix/store"
#: Percent of inodes left, on any disk; also the kubelet's nodefs.inodesFree.
INODES: Final = 5
#: Nothing of its own: ext4 keeps 5 % for root, and a full disk stops everything on it.
FULL: Final = 5

_SPACE: Final = "df -PkT 2>/dev/null || df -Pk"
_INODES: Final = "df -Pi"
_DEAD: Final = (
    "dead=$(nix-store --gc --print-dead 2>/dev/null) || exit 1; [ -n \"$dead\" ] || { echo '0 0'; exit 0; }; "
    "printf '%s\\n' \"$dead\" | xargs nix-store --query --size 2>/dev/null | "
    "awk '{ paths++; bytes += $1 } END { print paths + 0, bytes + 0 }'"
)
_MIN_FREE: Final = (
    "x='--extra-experimental-features nix-command'; "
    "{ nix $x config show 2>/dev/null || nix $x show-config; } | sed -n 's/^min-free = //p'"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted disk, in bytes.

    Attributes:
        path: Where.
        size: All of it.
        free: What may still be written.
        inodes: All of them; 0 where the file system has no fixed number.
        inodes_free: What is left of them.

    """

    path: str
    size: int
    free: int
    inodes: int = 0
    inodes_free: int = 0


@dataclass(frozen=True, slots=True)
class Threshold:
    """What happens when less than this is free."""

    free: int
    who: str


def questions(on: OnHost, docker: tuple[str, ...], *, dead: bool) -> Iterator[Question]:
    """Ask for space and inodes; with `dead`, also for what could be freed (which reads the whole store)."""
    yield Question("space", _SPACE)
    yield Question("inodes", _INODES)
    yield Question("min-free", _MIN_FREE)
    if dead:
        yield Question("dead paths", _DEAD)
    if on.host.docker:
        yield Question("docker space", words((*docker, "system", "df", "--format", "{{json .}}")))


def judge(on: OnHost, answers: Mapping[str, Answer], *, dead: bool) -> Iterator[Verdict]:
    """Give one verdict for each mount, and what could be freed."""
    space = answer_to(answers, "space")
    found = mounts(space.text, answer_to(answers, "inodes").text)
    if not found:
        yield codes.NOT_ASKED.verdict(f"{on.name}: disks", f"df: {space.why}")
    low = answer_to(answers, "min-free").text.strip()
    limits = evictions(on, answers)
    for mount in found:
        thresholds = list(_thresholds(mount, found, int(low) if low.isdigit() else 0, limits))
        yield _space(on, mount, thresholds)
        if mount.inodes and mount.inodes_free * 100 < mount.inodes * INODES:
            share = 100 * mount.inodes_free / mount.inodes
            yield codes.INODES.verdict(
                f"{on.name}: {mount.path} inodes", f"{mount.inodes_free} of {mount.inodes} are left ({share:.1f}%)",
                {"inodes": mount.inodes, "inodes_free": mount.inodes_free},
            )  # fmt: skip
    if dead:
        yield _dead(on, answer_to(answers, "dead paths"))
    if on.host.docker:
        yield _docker(on, answer_to(answers, "docker space"))


def mounts(space: str, inodes: str) -> list[Mount]:
    """Read `df -PkT` (or `df -Pk`) and `df -Pi`; a disk that is mounted twice is given once, by its shortest path."""
    counted = {}
    for line in inodes.splitlines()[1:]:
        if match := re.fullmatch(r"\S+ +(\d+|-) +(?:\d+|-) +(\d+|-) +\S+ +(/.*)", line):
            counted[match[3]] = tuple(int(text) if text.isdigit() else 0 for text in match.group(1, 2))
    found: dict[tuple[str, str], Mount] = {}
    pattern = re.compile(r"(\S+) +(?:([a-z][\w.]*) +)?(\d+) +\d+ +(\d+) +\S+ +(/.*)")
    for line in space.splitlines()[1:]:
        match = pattern.fullmatch(line)
        if (
            not match
            or (match[2] or match[1]) in _VIRTUAL
            or match[5].startswith(("/proc", "/sys", "/dev", "/run"))
        ):
            continue
        inode_counts = counted.get(match[5], (0, 0))
        mount = Mount(match[5], int(match[3]) * 1024, int(match[4]) * 1024, *inode_counts)
        key = (match[1], match[3])
        if key not in found or len(mount.path) < len(found[key].path):
            found[key] = mount
    return sorted(found.values(), key=lambda mount: mount.path)


def holds(found: list[Mount], path: str) -> Mount | None:
    """Give the mount that a path is on."""
    inside = [mount for mount in found if PurePosixPath(path).is_relative_to(mount.path)]
    return max(inside, key=lambda mount: len(mount.path), default=None)


def _thresholds(
    mount: Mount, found: list[Mount], min_free: int, evictions: Sequence[Eviction]
) -> Iterator[Threshold]:
    yield Threshold(mount.size * FULL // 100, f"{FULL}% left, where writes begin to fail")
    if min_free and mount == holds(found, STORE):
        yield Threshold(min_free, "Nix's min-free, where a build stops to collect garbage")
    for one in evictions:
        if one.signal.endswith(".available") and one.path and mount == holds(found, one.path):
            yield Threshold(one.least(mount.size), one.who)


def _space(on: OnHost, mount: Mount, thresholds: list[Threshold]) -> Verdict:
    crossed = [one for one in thresholds if mount.free < one.free]
    following = max((one for one in thresholds if one not in crossed), key=lambda one: one.free, default=None)
    share = 100 * mount.free / mount.size if mount.size else 0.0
    evidence = {
        "size_bytes": mount.size, "free_bytes": mount.free, "inodes": mount.inodes, "inodes_free": mount.inodes_free,
        "thresholds": [{"free_bytes": one.free, "who": one.who} for one in thresholds],
    }  # fmt: skip
    summary = f"{approximate_size(mount.free)} of {approximate_size(mount.size)} are free ({share:.0f}%)"
    if crossed:
        summary += f", below {max(crossed, key=lambda one: one.free).who}"
    elif following:
        away = approximate_size(mount.free - following.free)
        summary += f"; next, after {away} more: {following.who}"
    return (codes.LOW if crossed else codes.DISK).verdict(f"{on.name}: {mount.path}", summary, evidence)


def _dead(on: OnHost, answer: Answer) -> Verdict:
    subject = f"{on.name}: Nix store"
    fields = answer.text.split()
    if answer.code or len(fields) != 2:
        return codes.NOT_ASKED.verdict(subject, f"nix-store --gc --print-dead: {answer.why}")
    paths, size = int(fields[0]), int(fields[1])
    summary = f"{approximate_size(size)} in {paths} paths that nothing refers to"
    return codes.DEAD.verdict(subject, summary, {"paths": paths, "dead_bytes": size})


def _docker(on: OnHost, answer: Answer) -> Verdict:
    subject = f"{on.name}: Docker"
    try:
        rows = (
            [json.loads(line) for line in answer.text.splitlines() if line.strip()] if not answer.code else []
        )
    except ValueError:
        rows = []
    if not rows:
        return codes.NOT_ASKED.verdict(subject, f"docker: {answer.why}")
    words_ = [f"{row['Type'].lower()} {row['Size']}, of it {row['Reclaimable']} unused" for row in rows]
    evidence = {row["Type"]: {"size": row["Size"], "reclaimable": row["Reclaimable"]} for row in rows}
    return codes.DEAD.verdict(subject, "; ".join(words_), evidence)
