"""Hash every registered path, with every core and a full queue for the disk.

Reading many small files is work for Python itself, so processes share it, not threads. They are forked, so that
nothing has to be sent to them but numbers; each takes the next batch from a pipe when it is done with one. While
everything is in memory there is one a core; once one had to wait for the disk there are many.
"""
# Descriptors, not pathlib: pipes and paths of bytes.

from __future__ import annotations

import gc
import json
import os
import select
import sys
import warnings
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from . import nar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_WORKERS_A_CORE = 8
_MOST_WAITING = 64  # no disk is faster for more, and each takes a descriptor
_BATCH_PATHS = 32
_BATCH_BYTES = 8 << 20


class Task(NamedTuple):
    """A path to hash: its number in the database (or any other), its place, what it should come to.

    Attributes:
        key: Handed back with what is wrong.
        place: Where it is on this machine.
        nar_hash: `sha256:` and hexadecimal digits.
        nar_size: Bytes; 0 is unknown.

    """

    key: int
    place: bytes
    nar_hash: str
    nar_size: int


class Wrong(NamedTuple):
    """What is wrong with a path: either an error, or what it came to instead."""

    key: int
    error: str = ""
    nar_hash: str = ""
    nar_size: int = 0


def link_task(directory: bytes, name: bytes, size: int) -> Task | None:
    """Give the task for a file of `.links`, whose name is the hash of its NAR; None if the name is none."""
    from .sources import hashes  # with what sources need, which a scan mostly does not

    try:
        expected = hashes.from_nix32(name.decode("ascii"), 32)
    except ValueError:
        return None
    return Task(-1, directory + b"/" + name, "sha256:" + expected.hex(), size)


def check(
    tasks: Sequence[Task], advance: Callable[[int, int], None], workers: int | None = None
) -> list[Wrong]:
    """Hash all paths and give those that are not what they should be.

    Args:
        tasks: What to hash, in the order in which it is best read.
        advance: Called with the number of paths and of bytes done since the last call.
        workers: Most processes; by default up to eight a core, since on a cold cache most wait for the disk.

    """
    batches = _batches(tasks)
    cores = len(os.sched_getaffinity(0))
    most = min(workers or max(cores, min(_WORKERS_A_CORE * cores, _MOST_WAITING)), len(batches))
    if most <= 1:
        return _alone(tasks, batches, advance)
    return _shared(tasks, batches, advance, min(cores, most), most)


def _batches(tasks: Sequence[Task]) -> list[tuple[int, int]]:
    """Cut the tasks into ranges; those with the most bytes come first, so that all cores end together."""
    ranges: list[tuple[int, int, int]] = []
    start = size = 0
    for position, task in enumerate(tasks):
        size += task.nar_size
        if size >= _BATCH_BYTES or position - start + 1 >= _BATCH_PATHS:
            ranges.append((size, start, position + 1))
            start, size = position + 1, 0
    if start < len(tasks):
        ranges.append((size, start, len(tasks)))
    big = sorted((item for item in ranges if item[0] >= _BATCH_BYTES), reverse=True)
    return [(a, b) for _, a, b in big] + [(a, b) for size, a, b in ranges if size < _BATCH_BYTES]


def _alone(
    tasks: Sequence[Task], batches: list[tuple[int, int]], advance: Callable[[int, int], None]
) -> list[Wrong]:
    wrong = []
    for start, end in batches:
        found, size = _check_batch(tasks[start:end])
        wrong += found
        advance(end - start, size)
    return wrong


def _check_batch(tasks: Sequence[Task]) -> tuple[list[Wrong], int]:
    """Give what is wrong with some paths, and how many bytes were hashed."""
    wrong, size = [], 0
    for task in tasks:
        try:
            digest = nar.digest(task.place)
        except (OSError, nar.NotArchivableError) as error:
            wrong.append(Wrong(task.key, error=str(error)))
            continue
        size += digest.nar_size
        if digest.nar_hash != task.nar_hash or task.nar_size not in (0, digest.nar_size):
            wrong.append(Wrong(task.key, nar_hash=digest.nar_hash, nar_size=digest.nar_size))
    return wrong, size


def _shared(
    tasks: Sequence[Task],
    batches: list[tuple[int, int]],
    advance: Callable[[int, int], None],
    first: int,
    most: int,
) -> list[Wrong]:
    """Share the batches among `first` processes, or `most` of them once one had to wait for the disk."""
    sys.stdout.flush()
    sys.stderr.flush()
    wrong: list[Wrong] = []
    crew = _Crew(tasks, batches)
    try:
        crew.grow(first)
        for paths, size, waited, found in crew.reports():
            if waited:
                crew.grow(most)
            wrong += [Wrong(*fields) for fields in found]
            advance(paths, size)
    finally:
        status = crew.dismiss()
    if status:
        raise OSError(f"a process that hashed paths ended early (status {status})")
    return wrong


class _Crew:
    """Processes that take the numbers of batches from one pipe; each reports through a pipe of its own."""

    def __init__(self, tasks: Sequence[Task], batches: Sequence[tuple[int, int]]) -> None:
        self._tasks, self._batches = tasks, batches
        self._children: list[int] = []
        self._reports: dict[int, bytes] = {}  # a descriptor to read: the beginning of a line
        self._take, self._give = os.pipe()
        os.set_blocking(self._give, False)
        self._given = 0
        self._hand_out()  # before the first is there, so that it starts at once

    def grow(self, size: int) -> None:
        """Fork processes until there have been so many."""
        while len(self._children) < size:
            results, report = os.pipe()
            with warnings.catch_warnings():
                # Python 3.12 warns of a fork beside threads: the child takes no lock, hashes and ends.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if not child:
                self._work(report, (self._give, results, *self._reports))
            self._children.append(child)
            self._reports[results] = b""
            os.close(report)

    def _work(self, report: int, others: Collection[int]) -> None:
        """Be a child: take batches until there are no more. Never returns."""
        status = 1
        try:
            gc.disable()  # a collection would write to every object that is shared with the parent
            _close(others)
            at_once = 1  # path in a report of the first batch: it may be that all wait for the disk
            while True:
                number = os.read(self._take, 4)
                if not number:
                    break
                for tasks in self._cut(int.from_bytes(number, "little"), at_once):
                    waits = getrusage(RUSAGE_SELF).ru_nvcsw  # how often it gave the processor away to wait
                    wrong, size = _check_batch(tasks)
                    waited = getrusage(RUSAGE_SELF).ru_nvcsw > waits
                    os.write(report, json.dumps([len(tasks), size, waited, wrong]).encode() + b"\n")
                at_once = _BATCH_PATHS
            status = 0
        finally:
            os._exit(status)

    def _cut(self, number: int, most: int) -> Iterator[Sequence[Task]]:
        """Give the tasks of a batch, no more than `most` at a time."""
        start, end = self._batches[number]
        return (self._tasks[here : min(here + most, end)] for here in range(start, end, most))

    def _hand_out(self) -> None:
        """Write as many numbers as the pipe takes, and close it behind the last one."""
        try:
            while self._given < len(self._batches):
                os.write(self._give, self._given.to_bytes(4, "little"))
                self._given += 1
        except BlockingIOError:
            return
        _close([self._give])
        self._give = -1

    def reports(self) -> Iterator[tuple[int, int, bool, list[Any]]]:
        """Give of each batch, or part of one: paths, bytes, whether the disk was waited for, what is wrong."""
        while self._reports:
            to_give = [self._give] if self._give >= 0 else []
            ready, free, _ = select.select([*self._reports], to_give, [])
            if free:
                self._hand_out()
            for fd in ready:
                data = os.read(fd, 1 << 16)
                *lines, self._reports[fd] = (self._reports[fd] + data).split(b"\n")
                yield from map(json.loads, lines)
                if not data:
                    del self._reports[fd]
                    _close([fd])

    def dismiss(self) -> int:
        """Let all end after the batch that they are at; give the worst status of any."""
        _close([self._take, self._give, *self._reports])
        return max((os.waitpid(child, 0)[1] for child in self._children), default=0)


def _close(descriptors: Collection[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)
