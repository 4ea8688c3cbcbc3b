"""Many hands: threads that wait for the network, in processes that share the work of the processor.

A thread is enough for a server far away; a local cache is limited by decompression and hashing, where Python's lock
would let small NARs wait for each other. Worker processes are forked before any thread starts, hold nothing that
outlives them, and end when the pipe to their parent does, however the parent died.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from kingpost.cache.fetch import Access, Throttle, open_cache
from kingpost.cache.signatures import trusted_keys
from kingpost.observe import audit_codes as codes
from kingpost.observe.audit import Auditor, Known, Outcome, Target, subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection
    from types import TracebackType

#: Tasks given to a process beyond what its threads are busy with, so that no thread waits for the next one.
_AHEAD: Final = 4
#: Tasks in one message to a process that does one after the other: a message costs half as much as a small path.
_BATCH: Final = 16
#: Seconds for which outcomes are gathered into one message.
_GATHER: Final = 0.05


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker needs to know. The token in `access` is never shown."""

    url: str
    access: Access
    keys: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    attempts: int = 3
    bytes_per_second: float | None = None
    store: str = ""

    def auditor(self, *, share: int = 1) -> Auditor:
        """Open the cache; a process gets its share of the bandwidth."""
        throttle = Throttle(self.bytes_per_second / share) if self.bytes_per_second else None
        cache = open_cache(self.url, replace(self.access, throttle=throttle))
        credentials = bool(getattr(cache, "has_credentials", self.access.token))
        upstreams = tuple(open_cache(url, replace(self.access, token="")) for url in self.upstreams)
        keys = trusted_keys(self.keys)
        return Auditor(cache, keys, credentials, upstreams, self.attempts, store=self.store)


@dataclass(frozen=True, slots=True)
class Task:
    """A path to audit, or only to ask for."""

    target: Target
    only_presence: bool = False
    known: Known | None = None


class Crew:
    """Takes tasks and gives outcomes, in no particular order.

    Args:
        job: What to look at.
        threads: How many paths at once, in all.
        processes: Over how many processes these threads are spread; 1 means in this one.

    """

    def __init__(self, job: Job, *, threads: int, processes: int = 1) -> None:
        self.outstanding = 0
        self._job = job
        each = -(-threads // processes)
        self._hands: Sequence[_Hands]
        if processes == 1:
            self._hands = [_Threads(job.auditor(), threads)]
        else:
            self._hands = [_Process(job, each, processes) for _ in range(processes)]
        self._waiting: deque[Task] = deque()
        self._found: deque[tuple[Task, Outcome]] = deque()

    def submit(self, tasks: Iterable[Task]) -> None:
        """Add tasks; they begin when a hand is free."""
        before = len(self._waiting)
        self._waiting.extend(tasks)
        self.outstanding += len(self._waiting) - before
        self._hand_out()

    def _hand_out(self) -> None:
        for hands in sorted(self._hands, key=lambda hands: hands.busy):
            while self._waiting and (room := hands.room(len(self._waiting) // len(self._hands))) > 0:
                hands.give([self._waiting.popleft() for _ in range(min(room, _BATCH, len(self._waiting)))])

    def next(self) -> tuple[Task, Outcome]:
        """Wait for the next outcome; there must be a task outstanding."""
        while not self._found:
            self._found.extend(self._take())
            self._hand_out()
        self.outstanding -= 1
        return self._found.popleft()

    def _take(self) -> Iterable[tuple[Task, Outcome]]:
        if isinstance(self._hands[0], _Threads):
            return [self._hands[0].take()]
        processes = [hands for hands in self._hands if isinstance(hands, _Process)]
        if any(hands.tasks for hands in processes):
            return _take_from(processes, self._job.url)
        words = "every worker process ended: out of memory?"
        left = [(task, _not_looked(task, self._job.url, words)) for task in self._waiting]
        self._waiting.clear()
        return left

    def drop(self) -> list[Task]:
        """Take back the tasks that were not begun."""
        dropped = list(self._waiting)
        self._waiting.clear()
        self.outstanding -= len(dropped)
        return dropped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hands in self._hands:
            hands.end()
        for hands in self._hands:  # only now: a worker holds copies of the pipes of those forked before it
            hands.wait()


class _Hands:
    """Threads or a process: `busy` tasks are with it, up to `most` may be."""

    busy: int = 0
    most: int = 0
    threads: int = 1

    def room(self, share: int) -> int:
        """Tell how many more tasks it may have: few once its share of those that wait is, so that all end together."""
        return min(self.most, max(self.threads + 1, share)) - self.busy

    def give(self, tasks: list[Task]) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until it is gone."""


class _Threads(_Hands):
    def __init__(self, auditor: Auditor, threads: int) -> None:
        self.most = threads + _AHEAD
        self.threads = threads
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Task, Outcome | BaseException]] = queue.SimpleQueue()
        self._auditor = auditor
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._done.put((task, perform(self._auditor, task)))
            except BaseException as error:  # noqa: BLE001 - raised again by who takes the outcome
                self._done.put((task, error))

    def give(self, tasks: list[Task]) -> None:
        self.busy += len(tasks)
        for task in tasks:
            self._tasks.put(task)

    def take(self) -> tuple[Task, Outcome]:
        task, found = self._done.get()
        self.busy -= 1
        if isinstance(found, BaseException):
            raise found
        return task, found

    def end(self) -> None:
        for _ in range(self.threads):
            self._tasks.put(None)
        self._auditor.cache.close()


class _Process(_Hands):
    """A forked worker: tasks go in by one pipe and outcomes come back by it."""

    def __init__(self, job: Job, threads: int, share: int) -> None:
        import multiprocessing  # noqa: PLC0415 - only when there are processes

        self.most = threads + (_AHEAD if threads > 1 else 2 * _BATCH)
        self.threads = threads
        self.tasks: dict[int, Task] = {}
        self._number = 0
        self.pipe, other = multiprocessing.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self.pipe.close()
            _serve(other, lambda: job.auditor(share=share), threads)
        other.close()

    def give(self, tasks: list[Task]) -> None:
        numbered = list(enumerate(tasks, self._number))
        self._number += len(tasks)
        self.tasks.update(numbered)
        self.busy += len(tasks)
        with suppress(OSError):  # a worker that died is noticed when its outcomes are taken
            self.pipe.send(numbered)

    def take(self, url: str) -> list[tuple[Task, Outcome]]:
        """Receive some outcomes; if it died, its tasks were not looked at, and it gets no more."""
        try:
            found: list[tuple[int, Outcome]] = self.pipe.recv()
        except (EOFError, OSError):
            self.most = 0
            words = "the worker process ended while it looked: out of memory?"
            found = [(number, _not_looked(task, url, words)) for number, task in self.tasks.items()]
        self.busy -= len(found)
        return [(self.tasks.pop(number), outcome) for number, outcome in found]

    def end(self) -> None:
        self.pipe.close()

    def wait(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _serve(pipe: Connection, make: Callable[[], Auditor], threads: int) -> None:
    """Be a worker until the pipe closes; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()  # what was there before the fork stays: looking through it would only copy its pages
        if threads == 1:
            _serve_alone(pipe, make())
        hands = _Threads(make(), threads)
        numbers: dict[int, int] = {}
        lock = threading.Lock()

        def answer() -> None:
            while True:
                task, outcome = hands.take()
                with lock:
                    number = numbers.pop(id(task))
                pipe.send([(number, outcome)])

        threading.Thread(target=_until_broken, args=(answer,), daemon=True).start()
        while True:
            given = pipe.recv()
            with lock:
                numbers.update((id(task), number) for number, task in given)
            hands.give([task for _, task in given])
    except EOFError:
        code = 0
    finally:
        os._exit(code)


def _serve_alone(pipe: Connection, auditor: Auditor) -> NoReturn:
    """Do one task after the other, without threads that would wait for each other; ends as the pipe does."""
    while True:
        found: list[tuple[int, Outcome]] = []
        began = time.monotonic()
        for number, task in pipe.recv():
            found.append((number, perform(auditor, task)))
            if time.monotonic() - began > _GATHER:
                pipe.send(found)
                found, began = [], time.monotonic()
        if found:
            pipe.send(found)


def _until_broken(answer: Callable[[], None]) -> None:
    """End the worker when its parent no longer listens, or when something in it broke."""
    try:
        answer()
    finally:
        os._exit(1)


def _take_from(processes: list[_Process], url: str) -> list[tuple[Task, Outcome]]:
    from multiprocessing import connection  # noqa: PLC0415 - only when there are processes

    by_pipe: dict[Any, _Process] = {hands.pipe: hands for hands in processes if hands.tasks}
    return [found for ready in connection.wait(list(by_pipe)) for found in by_pipe[ready].take(url)]


def _not_looked(task: Task, url: str, words: str) -> Outcome:
    """Give the outcome of a task whose process was killed."""
    named = subject(task.target.path or task.target.hash_part, url)
    return Outcome(task.target, named, (codes.NOT_LOOKED.verdict(named, words),), present=None)


def perform(auditor: Auditor, task: Task) -> Outcome:
    """Do one task."""
    return auditor.is_present(task.target) if task.only_presence else auditor.audit(task.target, task.known)
