"""Hash every registered path, with every core and a full queue for the disk.

Reading many small files is work for Python itself, so processes share it, not threads. They are forked, so that
nothing has to be sent to them but numbers; each takes the next batch from a pipe when it is done with one.
"""
# Descriptors, not pathlib: pipes and paths of bytes.

from __future__ import annotations

import json
import os
import select
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from . import nar

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORKERS_A_CORE = 8
_BATCH_PATHS = 64
_BATCH_BYTES = 32 << 20
_MOST_TEXT = 400  # of an error, so that one line of a pipe stays one write


@dataclass(frozen=True)
class Task:
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


@dataclass(frozen=True)
class Wrong:
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
        workers: Processes; by default eight a core, since on a cold cache most of them wait for the disk.

    """
    batches = _batches(tasks)
    count = min(workers or _WORKERS_A_CORE * len(os.sched_getaffinity(0)), len(batches))
    if count <= 1:
        return _alone(tasks, batches, advance)
    return _forked(tasks, batches, advance, count)


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
        done = 0
        for task in tasks[start:end]:
            found, size = _check_one(task)
            done += size
            if found:
                wrong.append(found)
        advance(end - start, done)
    return wrong


def _check_one(task: Task) -> tuple[Wrong | None, int]:
    try:
        digest = nar.digest(task.place)
    except (OSError, nar.NotArchivableError) as error:
        return Wrong(task.key, error=str(error)[:_MOST_TEXT]), 0
    if digest.nar_hash == task.nar_hash and task.nar_size in (0, digest.nar_size):
        return None, digest.nar_size
    return Wrong(task.key, nar_hash=digest.nar_hash, nar_size=digest.nar_size), digest.nar_size


def _forked(
    tasks: Sequence[Task],
    batches: list[tuple[int, int]],
    advance: Callable[[int, int], None],
    count: int,
) -> list[Wrong]:
    """Share the batches among `count` processes."""
    work_out, work_in = os.pipe()
    result_out, result_in = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    children = []
    try:
        for _ in range(count):
            with warnings.catch_warnings():
                # Python 3.12 warns of a fork beside threads: the child takes no lock, hashes and ends.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if not child:
                _work(tasks, batches, work_out, result_in, (work_in, result_out))
            children.append(child)
        os.close(work_out)
        os.close(result_in)
        work_out = result_in = -1
        feed, work_in = work_in, -1
        wrong = _serve(len(batches), feed, result_out, advance)
    finally:
        for fd in (work_out, work_in, result_out, result_in):
            if fd >= 0:
                os.close(fd)
        failed = [os.waitpid(child, 0)[1] for child in children]
    if any(failed):
        raise OSError(f"a process that hashed paths ended early (status {max(failed)})")
    return wrong


def _work(
    tasks: Sequence[Task], batches: list[tuple[int, int]], work: int, results: int, others: tuple[int, int]
) -> None:
    """Be a child: take numbers of batches until there are no more. Never returns."""
    status = 1
    try:
        for fd in others:
            os.close(fd)
        while True:
            number = os.read(work, 4)
            if not number:
                break
            start, end = batches[int.from_bytes(number, "little")]
            done = 0
            for task in tasks[start:end]:
                found, size = _check_one(task)
                done += size
                if found:
                    line = json.dumps([found.key, found.error, found.nar_hash, found.nar_size])
                    os.write(results, line.encode() + b"\n")
            os.write(results, f"{end - start} {done}\n".encode())
        status = 0
    finally:
        os._exit(status)


def _serve(batches: int, work: int, results: int, advance: Callable[[int, int], None]) -> list[Wrong]:
    """Hand out batches and collect what is wrong, until the children have closed their end."""
    wrong: list[Wrong] = []
    given = 0
    rest = b""
    os.set_blocking(work, False)
    while True:
        ready, free, _ = select.select([results], [work] if given < batches else [], [])
        if free:
            try:
                while given < batches:
                    os.write(work, given.to_bytes(4, "little"))
                    given += 1
            except BlockingIOError:
                pass
            if given == batches:
                os.close(work)
        if ready:
            data = os.read(results, 1 << 16)
            if not data:
                return wrong
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"["):
                    wrong.append(Wrong(*json.loads(line)))
                else:
                    paths, size = line.split()
                    advance(int(paths), int(size))
