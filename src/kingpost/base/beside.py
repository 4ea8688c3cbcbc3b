"""Work that a copy of this process does beside it, on a second processor: its result, and never another one.

For pure functions only: the copy has this process's memory as it was, and nothing that happens there is seen here but
the result. Where there is no second processor or no copy can be made, where the copy fails or is killed, the function
runs in this process instead: it then gives the same result, or raises what it raised there.
"""

from __future__ import annotations

import os
import pickle
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], T], *, worth: bool = True) -> Iterator[Callable[[], T]]:
    """Begin some work for a `with` block, and give a function that waits for its result; to be called at most once.

    The copy is gone when the block ends, whether its result was wanted or not.

    Args:
        work: The function; its result can be pickled.
        worth: Whether it is worth a copy, which costs some milliseconds; otherwise it runs when asked for.

    """
    if not worth or _processors() < 2:
        yield work
        return
    try:
        reading, writing = os.pipe()
        child = os.fork()
    except OSError:  # no more processes, or no memory for one
        yield work
        return
    if not child:
        os.close(reading)
        _be_the_copy(work, writing)
    os.close(writing)
    ended = False

    def result() -> T:
        nonlocal ended
        with open(reading, "rb", closefd=False) as pipe:
            content = pipe.read()
        ended = True
        if os.waitpid(child, 0)[1] or not content:
            return work()
        found: T = pickle.loads(content)  # noqa: S301 - written by our own copy
        return found

    try:
        yield result
    finally:
        os.close(reading)
        if not ended:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _processors() -> int:
    if not hasattr(os, "fork"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _be_the_copy(work: Callable[[], T], writing: int) -> None:
    """Do the work and end; whatever fails, the original does it again."""
    status = 1
    try:
        content = memoryview(pickle.dumps(work(), protocol=pickle.HIGHEST_PROTOCOL))
        while content:
            content = content[os.write(writing, content) :]
        status = 0
    finally:
        os._exit(status)
