"""Many new folders are staged by two processes: the same tree as by one, whatever happens to the second."""

import os
import signal
from pathlib import Path

import pytest

from kingpost.base import beside
from kingpost.base.errors import KingpostError
from kingpost.render import journal
from kingpost.render.confined import ConfinedDirectory
from kingpost.render.tree import Tree, write

FILES = {
    f"{top}/h{number}/{name}": f"{top} {number} {name}\n"
    for top in ("hosts", "ci", "clusters")
    for number in range(60)
    for name in ("a.nix", "b.toml", "c/d.conf")
}


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr(beside, "_processors", lambda: 2)


def tree():
    assert len(FILES) > journal._MANY
    return Tree(FILES, "topology", "1")


def contents(root):
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def no_children():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def in_the_copy(monkeypatch, act):
    """Let something happen in the second process once it has staged a few files."""
    here, write_all, seen = os.getpid(), ConfinedDirectory.write_all, []

    def watched(directory, folder, files, **options):
        write_all(directory, folder, files, **options)
        seen.append(folder)
        if os.getpid() != here and len(seen) == 5:
            act()

    monkeypatch.setattr(ConfinedDirectory, "write_all", watched)
    return seen


def test_two_processes_share_the_folders(monkeypatch, tmp_path):
    here = in_the_copy(monkeypatch, lambda: None)
    write(tmp_path / "out", tree())
    assert contents(tmp_path / "out") == FILES
    assert 0 < len(here) < len({str(Path(path).parent) for path in FILES}), "the rest was staged elsewhere"
    assert no_children()


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0)])
def test_a_copy_that_dies_half_way_is_made_good(monkeypatch, tmp_path, end):
    in_the_copy(monkeypatch, end)
    write(tmp_path / "out", tree())
    assert contents(tmp_path / "out") == FILES
    assert not (tmp_path / "out" / ".kingpost").exists()
    assert no_children()


def test_what_fails_there_fails_here_and_leaves_nothing(monkeypatch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    write_all = ConfinedDirectory.write_all

    def full(directory, folder, files, **options):
        if folder.endswith("/h59"):
            raise OSError(28, "No space left on device")
        write_all(directory, folder, files, **options)

    monkeypatch.setattr(ConfinedDirectory, "write_all", full)
    with pytest.raises(KingpostError, match="No space left"):
        write(tmp_path / "out", tree())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert no_children()


@pytest.mark.parametrize("sizes", [[], [3], [5, 90, 40, 45], [1, 1, 1, 300], [300, 1, 1], [2] * 7])
def test_halves_are_all_and_about_as_much(sizes):
    folders = [
        journal._Folder(str(number), [journal.Step(f"{number}/{n}", None, b"", "") for n in range(size)])
        for number, size in enumerate(sizes)
    ]
    one, other = journal._halves(folders)
    assert [*one, *other] == folders
    first = sum(len(folder.steps) for folder in one)
    assert first >= sum(sizes) / 2
    assert first - (len(one[-1].steps) if one else 0) <= sum(sizes) / 2
