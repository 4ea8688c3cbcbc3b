import ctypes
import os

import pytest

from kingpost.storefix import effects


def test_two_names_change_places(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "other").write_text("other")
    if not effects.exchange(tmp_path / "one", tmp_path / "below" / "other"):
        pytest.skip("this kernel or file system cannot exchange names")
    assert (tmp_path / "one").read_text() == "other"
    assert (tmp_path / "below" / "other" / "file").exists()


def test_a_file_system_that_cannot_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")

    class Old:
        """A C library before 2.28."""

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Old())
    assert effects.exchange(tmp_path / "one", tmp_path / "two") is False

    class Unable:
        @staticmethod
        def renameat2(*_):
            ctypes.set_errno(22)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Unable())
    assert effects.exchange(tmp_path / "one", tmp_path / "two") is False
    assert (tmp_path / "one").read_text() == "1"


def test_a_name_that_is_gone_is_an_error(tmp_path):
    (tmp_path / "one").touch()
    with pytest.raises(FileNotFoundError):
        effects.exchange(tmp_path / "one", tmp_path / "gone")
    assert os.listdir(tmp_path) == ["one"]
