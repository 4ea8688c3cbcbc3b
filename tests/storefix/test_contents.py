"""How processes share what is to be hashed."""

import itertools
import os
import signal
import types

import pytest

from kingpost.storefix import contents, nar


@pytest.mark.parametrize("workers", [1, 3])
def test_contents_are_checked_by_any_number_of_processes(tmp_path, workers):
    tasks = []
    for number in range(200):
        place = tmp_path / str(number)
        place.write_text(str(number))
        digest = nar.digest(place)
        wrong = number % 50 == 7
        tasks.append(
            contents.Task(
                number, os.fsencode(place), "sha256:no" if wrong else digest.nar_hash, digest.nar_size
            )
        )
    tasks.append(contents.Task(999, os.fsencode(tmp_path / "gone"), "sha256:x", 1))
    done = []
    wrong = contents.check(tasks, lambda paths, size: done.append((paths, size)), workers)
    assert sorted(item.key for item in wrong) == [7, 57, 107, 157, 999]
    assert sum(paths for paths, _ in done) == len(tasks)


@pytest.fixture
def many(tmp_path):
    """Tasks enough for several batches, each of which is of the same sound file."""
    place = tmp_path / "file"
    place.write_text("content\n")
    digest = nar.digest(place)
    return [contents.Task(n, os.fsencode(place), digest.nar_hash, digest.nar_size) for n in range(2000)]


@pytest.mark.parametrize("waits", [False, True])
def test_more_processes_come_once_one_waited_for_the_disk(many, monkeypatch, waits):
    forks = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(
        contents, "getrusage", lambda _: types.SimpleNamespace(ru_nvcsw=waits and next(count))
    )
    count = itertools.count()
    assert contents.check(many, lambda *_: None) == []
    assert len(forks) == (16 if waits else 2)


def test_a_process_that_dies_while_hashing_is_no_clean_result(many, monkeypatch):
    parent = os.getpid()

    def killed(_place):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(nar, "digest", killed)
    with pytest.raises(OSError, match="ended early"):
        contents.check(many, lambda *_: None, 3)


def test_hashing_that_is_broken_off_leaves_no_process(many, monkeypatch):
    forked = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(fork()) or forked[-1])

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contents.check(many, interrupted, 3)
    assert len(forked) >= 2
    for child in forked:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
