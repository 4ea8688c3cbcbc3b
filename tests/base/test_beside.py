"""Work in a copy of the process: the same result, the same error, and nothing left behind."""

import errno
import os
import signal

import pytest

from kingpost.base import beside as module
from kingpost.base.beside import beside


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr(module, "_processors", lambda: 2)


def no_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_the_work_is_done_in_another_process():
    with beside(os.getpid) as result:
        assert result() != os.getpid()
    assert no_children()


@pytest.mark.parametrize("processors", [1, 2])
def test_what_is_not_worth_a_copy_or_has_no_processor_is_done_here(monkeypatch, processors):
    monkeypatch.setattr(module, "_processors", lambda: processors)
    with beside(os.getpid, worth=processors == 1) as result:
        assert result() == os.getpid()


def test_a_result_may_be_larger_than_a_pipe():
    large = {f"hosts/{number}": "x" * 1000 for number in range(5000)}
    with beside(lambda: large) as result:
        assert result() == large


def test_an_error_there_is_raised_here():
    with beside(lambda: 1 / 0) as result, pytest.raises(ZeroDivisionError):
        result()
    assert no_children()


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0)])
def test_a_copy_that_dies_leaves_its_work_to_the_original(end):
    here = os.getpid()
    with beside(lambda: "done" if os.getpid() == here else end()) as result:
        assert result() == "done"
    assert no_children()


def test_a_result_that_cannot_be_sent_is_computed_here():
    with beside(lambda: lambda: "done") as result:
        assert result()() == "done"


def test_no_copy_outlives_the_block():
    def wait():
        signal.pause()

    with pytest.raises(KeyError), beside(wait):
        raise KeyError
    assert no_children()


def test_where_no_process_can_be_made_it_is_done_here(monkeypatch):
    def full():
        raise OSError(errno.EAGAIN, "")

    monkeypatch.setattr(os, "fork", full)
    with beside(os.getpid) as result:
        assert result() == os.getpid()
