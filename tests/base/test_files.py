"""Files are replaced as a whole; what only has a file's name is written to."""

import os
import stat
from pathlib import Path

import pytest

from kingpost.base.errors import KingpostError
from kingpost.base.files import write_atomically


def test_a_file_is_replaced_and_has_its_mode(tmp_path):
    for text in ("long " * 1000, "short"):
        write_atomically(tmp_path / "x", text, mode=0o600)
        assert (tmp_path / "x").read_text() == text
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="/dev/shm cannot be written here")
def test_a_file_in_memory_is_a_file():
    path = Path(f"/dev/shm/kingpost-test-{os.getpid()}")
    try:
        for text in ("one", "two"):
            write_atomically(path, text)
            assert path.read_text() == text
    finally:
        path.unlink()


def test_what_is_open_keeps_being_what_it_is(tmp_path):
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        before = (tmp_path / "log").stat().st_ino
        write_atomically(Path(f"/dev/fd/{log.fileno()}"), "after\n")
    assert (tmp_path / "log").read_text() == "before\nafter\n"
    assert (tmp_path / "log").stat().st_ino == before


def test_a_pipe_and_a_device_stay():
    reading, writing = os.pipe()
    write_atomically(Path(f"/proc/self/fd/{writing}"), "text")
    os.close(writing)
    assert os.read(reading, 10) == b"text"
    os.close(reading)
    write_atomically(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(KingpostError, match="No space left"):
        write_atomically(Path("/dev/full"), "text")
    assert Path("/dev/full").is_char_device()


def test_where_it_cannot_be_written_is_said(tmp_path):
    with pytest.raises(KingpostError, match="cannot be written") as raised:
        write_atomically(tmp_path / "none" / "x", "text")
    assert raised.value.where == str(tmp_path / "none" / "x")
