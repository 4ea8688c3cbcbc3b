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
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from kingpost.cache.fetch import Access, Throttle, open_cache
from kingpost.cache.signatures import trusted_keys
from kingpost.observe import audit_codes as codes
from kingpost.observe.audit import Auditor, Known, Outcome, Target, subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from types import TracebackType

#: Tasks given to a process beyond what its threads are busy with, so that no thread waits for the next one.
_AHEAD: Final = 4


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker needs to know. The token in `access` is never shown."""

    url: str
    access: Access
    keys: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    attempts: int = 3
    bytes_per_second: float | None = None

    def auditor(self, *, share: int = 1) -> Auditor:
        """Open the cache; a process gets its share of the bandwidth."""
        throttle = Throttle(self.bytes_per_second / share) if self.bytes_per_second else None
        cache = open_cache(self.url, replace(self.access, throttle=throttle))
        credentials = bool(getattr(cache, "has_credentials", self.access.token))
        upstreams = tuple(open_cache(url, replace(self.access, token="")) for url in self.upstreams)
        return Auditor(cache, trusted_keys(self.keys), credentials, upstreams, self.attempts)


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
            for hands in self._hands:
                hands.begin()
        self._waiting: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Add a task; it begins when a hand is free."""
        self.outstanding += 1
        self._waiting.append(task)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            hands = min((h for h in self._hands if h.room > 0), key=lambda h: h.busy, default=None)
            if hands is None:
                return
            hands.give(self._waiting.popleft())

    def next(self) -> tuple[Task, Outcome]:
        """Wait for the next outcome; there must be a task outstanding."""
        while True:
            found = self._take()
            self._hand_out()
            if found is not None:
                self.outstanding -= 1
                return found

    def _take(self) -> tuple[Task, Outcome] | None:
        if len(self._hands) == 1 and isinstance(self._hands[0], _Threads):
            return self._hands[0].take()
        return _take_from([hands for hands in self._hands if isinstance(hands, _Process)], self._job.url)

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
    """Threads or a process; `busy` tasks are with it, `room` more may be given."""

    busy: int = 0
    most: int = 0

    @property
    def room(self) -> int:
        return self.most - self.busy

    def begin(self) -> None:
        """Start what must be started after every process was forked."""

    def give(self, task: Task) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until it is gone."""


class _Threads(_Hands):
    def __init__(self, auditor: Auditor, threads: int) -> None:
        self.most = threads + _AHEAD
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Task, Outcome | BaseException]] = queue.SimpleQueue()
        self._auditor = auditor
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._done.put((task, perform(self._auditor, task)))
            except BaseException as error:  # noqa: BLE001 - raised again by who takes the outcome
                self._done.put((task, error))

    def give(self, task: Task) -> None:
        self.busy += 1
        self._tasks.put(task)

    def take(self) -> tuple[Task, Outcome]:
        task, found = self._done.get()
        self.busy -= 1
        if isinstance(found, BaseException):
            raise found
        return task, found

    def end(self) -> None:
        for _ in self._threads:
            self._tasks.put(None)
        self._auditor.cache.close()


class _Process(_Hands):
    """A forked worker: tasks go in by one pipe and outcomes come back by it."""

    def __init__(self, job: Job, threads: int, share: int) -> None:
        import multiprocessing  # noqa: PLC0415 - only when there are processes

        self.most = threads + _AHEAD
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

    def give(self, task: Task) -> None:
        self._number += 1
        self.tasks[self._number] = task
        self.busy += 1
        with suppress(OSError):  # a worker that died is noticed when its outcomes are taken
            self.pipe.send((self._number, task))

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
                pipe.send((number, outcome))

        threading.Thread(target=_until_broken, args=(answer,), daemon=True).start()
        while True:
            number, task = pipe.recv()
            with lock:
                numbers[id(task)] = number
            hands.give(task)
    except EOFError:
        code = 0
    finally:
        os._exit(code)


def _serve_alone(pipe: Connection, auditor: Auditor) -> NoReturn:
    """Do one task after the other, without threads that would wait for each other; ends as the pipe does."""
    while True:
        number, task = pipe.recv()
        pipe.send((number, perform(auditor, task)))


def _until_broken(answer: Callable[[], None]) -> None:
    """End the worker when its parent no longer listens, or when something in it broke."""
    try:
        answer()
    finally:
        os._exit(1)


def _take_from(processes: list[_Process], url: str) -> tuple[Task, Outcome] | None:
    from multiprocessing import connection  # noqa: PLC0415 - only when there are processes

    by_pipe: dict[Any, _Process] = {hands.pipe: hands for hands in processes if hands.tasks}
    for ready in connection.wait(list(by_pipe)):
        hands = by_pipe[ready]
        try:
            number, outcome = hands.pipe.recv()
        except (EOFError, OSError):
            number, task = hands.tasks.popitem()
            hands.busy = hands.most + len(hands.tasks)  # gets no further task
            named = subject(task.target.path or task.target.hash_part, url)
            verdict = codes.NOT_LOOKED.verdict(
                named, "the worker process ended while it looked: out of memory?"
            )
            return task, Outcome(task.target, named, (verdict,), present=None)
        hands.busy -= 1
        return hands.tasks.pop(number), outcome
    return None


def perform(auditor: Auditor, task: Task) -> Outcome:
    """Do one task."""
    return auditor.is_present(task.target) if task.only_presence else auditor.audit(task.target, task.known)
