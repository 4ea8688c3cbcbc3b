"""The writer: what it changes, what it refuses, and what is left when it is killed or runs out of space."""

import errno
import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kingpost.base.errors import InvalidInputError, KingpostError
from kingpost.render import confined, journal
from kingpost.render.confined import ConfinedDirectory, is_confined
from kingpost.render.manifest import MANIFEST, Manifest, digest
from kingpost.render.tree import Change, Tree, plan, write

OLD = Tree({"a.toml": "a = 1\n", "hosts/n/b": "old b\n", "hosts/n/gone": "x\n", "old/only": "o"}, "t1", "1")
NEW = Tree({"a.toml": "a = 1\n", "hosts/n/b": "new b\n", "hosts/m/c/d": "d\n", "e": ""}, "t2", "1")


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_bytes().decode()
        for path in sorted(root.rglob("*"))
        if path.is_file() and journal.FOLDER not in path.parts
    }


def expected(tree: Tree, root: Path) -> dict[str, str]:
    return dict(sorted({**tree.files, MANIFEST: plan(root, tree).manifest.decode()}.items()))


def test_writes_the_tree_with_a_manifest_of_its_digests(tmp_path):
    write(tmp_path / "new" / "out", OLD)
    root = tmp_path / "new" / "out"
    assert contents(root) == expected(OLD, root)
    manifest = json.loads((root / MANIFEST).read_text())
    assert manifest["topology"] == "t1"
    assert manifest["files"]["a.toml"] == digest(b"a = 1\n")
    assert not (root / journal.FOLDER).exists()


@given(st.dictionaries(st.text(), st.text()), st.text(), st.text())
def test_a_manifest_is_json_as_json_itself_would_lay_it_out(files, topology, version):
    text = Manifest(topology, version, files, "i").render().decode()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
    assert json.loads(text)["files"] == files
    assert list(json.loads(text)["files"]) == sorted(files)


def test_leaves_unchanged_files_alone_and_prunes_only_its_own(tmp_path):
    write(tmp_path, OLD)
    (tmp_path / "old" / "mine").write_text("a person's\n")
    before = (tmp_path / "a.toml").stat()
    done = write(tmp_path, NEW)
    after = (tmp_path / "a.toml").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert [(c.path, c.change) for c in done.changes] == [
        ("e", Change.CREATE),
        ("hosts/m/c/d", Change.CREATE),
        ("hosts/n/b", Change.UPDATE),
        ("hosts/n/gone", Change.REMOVE),
        ("old/only", Change.REMOVE),
    ]
    assert done.unchanged == 1
    assert contents(tmp_path) == {**expected(NEW, tmp_path), "old/mine": "a person's\n"}


def test_a_second_write_touches_nothing(tmp_path):
    write(tmp_path, OLD)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not write(tmp_path, OLD).stale
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_emptied_folder_goes_with_its_last_file(tmp_path):
    write(tmp_path, OLD)
    write(tmp_path, NEW)
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("path", ["hosts/n/b", "hosts/n/gone"])
def test_refuses_to_replace_or_remove_what_a_person_edited(tmp_path, path):
    write(tmp_path, OLD)
    (tmp_path / path).write_text("edited\n")
    before = contents(tmp_path)
    with pytest.raises(KingpostError, match=f"not as kingpost left it: {path}"):
        write(tmp_path, NEW)
    assert contents(tmp_path) == before
    write(tmp_path, NEW, force=True)
    assert contents(tmp_path) == expected(NEW, tmp_path)


def test_refuses_to_replace_a_file_that_was_never_its_own(tmp_path):
    (tmp_path / "a.toml").write_text("mine\n")
    with pytest.raises(KingpostError, match=r"a\.toml"):
        write(tmp_path, OLD)
    assert contents(tmp_path) == {"a.toml": "mine\n"}


def test_adopts_a_file_that_is_already_as_it_should_be(tmp_path):
    (tmp_path / "a.toml").write_text("a = 1\n")
    write(tmp_path, OLD)
    assert contents(tmp_path) == expected(OLD, tmp_path)


def test_an_edit_that_says_the_same_as_the_topology_is_none(tmp_path):
    write(tmp_path, OLD)
    (tmp_path / "hosts/n/b").write_text("new b\n")
    write(tmp_path, NEW)
    assert contents(tmp_path) == expected(NEW, tmp_path)


def test_a_scope_changes_nothing_outside_of_it(tmp_path):
    write(tmp_path, OLD)
    write(tmp_path, NEW, lambda path: path.startswith("hosts/n/"))
    assert contents(tmp_path).keys() == {"a.toml", "hosts/n/b", "old/only", MANIFEST}
    assert (tmp_path / "hosts/n/b").read_text() == "new b\n"
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["files"].keys() == {"a.toml", "hosts/n/b", "old/only"}
    assert manifest["topology"] == "t1"
    write(tmp_path, NEW)
    assert contents(tmp_path) == expected(NEW, tmp_path)


def test_plan_changes_nothing_and_needs_no_directory(tmp_path):
    root = tmp_path / "out"
    assert {change.change for change in plan(root, OLD).changes} == {Change.CREATE}
    assert not root.exists()


def test_a_diff_reads_like_gits(tmp_path):
    write(tmp_path, OLD)
    changes = {change.path: "".join(change.diff()) for change in plan(tmp_path, NEW).changes}
    assert changes["hosts/n/b"] == "--- a/hosts/n/b\n+++ b/hosts/n/b\n@@ -1 +1 @@\n-old b\n+new b\n"
    assert changes["old/only"].endswith("-o\n\\ No newline at end of file\n")
    assert "/dev/null" in changes["hosts/m/c/d"]


@pytest.mark.parametrize("depth", ["hosts", "hosts/n"])
def test_follows_no_symbolic_link_to_a_directory(tmp_path, depth):
    outside = tmp_path / "outside"
    (outside / "n").mkdir(parents=True)
    root = tmp_path / "out"
    (root / depth).parent.mkdir(parents=True)
    (root / depth).symlink_to(outside)
    with pytest.raises(KingpostError, match="symbolic link"):
        write(root, OLD)
    assert not list(outside.rglob("b"))
    assert contents(root) == {}


def test_follows_no_symbolic_link_to_a_file(tmp_path):
    (tmp_path / "victim").write_text("precious\n")
    root = tmp_path / "out"
    root.mkdir()
    (root / "a.toml").symlink_to(tmp_path / "victim")
    with pytest.raises(KingpostError, match="symbolic link"):
        write(root, OLD, force=True)
    assert (tmp_path / "victim").read_text() == "precious\n"


@pytest.mark.parametrize(
    "path", ["../victim", "/etc/passwd", "hosts/../../victim", "a//b", "a/\n", "", "manifest.json"]
)
def test_a_manifest_cannot_name_what_lies_elsewhere(tmp_path, path):
    (tmp_path / "victim").write_text("precious\n")
    root = tmp_path / "out"
    write(root, OLD)
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["files"][path] = digest(b"precious\n")
    (root / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InvalidInputError, match="manifest"):
        write(root, NEW)
    assert (tmp_path / "victim").read_text() == "precious\n"


@pytest.mark.parametrize(
    "step",
    [
        {"path": "../victim", "old": digest(b"precious\n")},
        {"path": "/etc/x", "old": None, "from": "0", "new": ""},
        {"path": "stolen", "old": None, "from": "../../victim", "new": ""},
        {"path": "stolen", "old": None, "from": "/etc/passwd", "new": ""},
        {"path": "x"},
        "x",
    ],
)
def test_a_journal_cannot_name_what_lies_elsewhere(tmp_path, step):
    (tmp_path / "victim").write_text("precious\n")
    root = tmp_path / "out"
    (root / journal.FOLDER).mkdir(parents=True)
    (root / journal.JOURNAL).write_text(json.dumps({"schema": "kingpost.journal/1", "steps": [step]}))
    with pytest.raises(KingpostError, match="the journal of a killed run cannot be read"):
        write(root, NEW)
    assert (tmp_path / "victim").read_text() == "precious\n"
    assert not (root / "stolen").exists()


def test_a_rendered_path_cannot_lead_outside(tmp_path):
    with pytest.raises(KingpostError, match="leads out"):
        write(tmp_path / "out", Tree({"../x": ""}, "", ""))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "content", ["<<<<<<< HEAD\n", "[]", "{}", '{"schema": "other/9", "files": {}}', "\xff"]
)
def test_a_damaged_manifest_is_explained(tmp_path, content):
    write(tmp_path, OLD)
    (tmp_path / MANIFEST).write_text(content, encoding="latin-1")
    with pytest.raises(InvalidInputError, match="the manifest cannot be read"):
        write(tmp_path, NEW)


def test_a_file_where_a_directory_belongs_is_explained(tmp_path):
    (tmp_path / "hosts").write_text("")
    with pytest.raises(KingpostError, match="not a directory"):
        write(tmp_path, OLD)


def test_a_directory_where_a_file_belongs_is_explained(tmp_path):
    (tmp_path / "a.toml").mkdir()
    with pytest.raises(KingpostError, match="where a file is to be written"):
        write(tmp_path, OLD)


def test_two_writers_do_not_meet(tmp_path):
    with (
        ConfinedDirectory(tmp_path) as directory,
        journal.locked(directory),
        pytest.raises(KingpostError, match="another kingpost"),
    ):
        write(tmp_path, OLD)


def test_output_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(KingpostError, match="cannot be used: Not a directory"):
        write(tmp_path / "out", OLD)


NEED_SPACE = ("write", "fsync", "mkdir", "rename")
BOUNDARIES = ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir")


class Interrupted:
    """Stands in for `os` in the writer's modules: at the nth boundary it kills, or fails as a full disk does."""

    def __init__(self, at: int, *, fail: bool):
        self.left, self.fail, self.fired = at, fail, False

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in BOUNDARIES:
            return real

        def call(*arguments, **options):
            self.left -= 1
            if self.left == 0 and not self.fail:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.left <= 0 and self.fail and not self.fired and name in NEED_SPACE:
                self.fired = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call


def interrupted_write(root: Path, tree: Tree, at: int, *, fail: bool = False) -> int:
    """Write in a child that is interrupted at the nth boundary; gives its wait status."""
    child = os.fork()
    if child == 0:
        fake = Interrupted(at, fail=fail)
        confined.os = journal.os = fake
        try:
            write(root, tree)
        except KingpostError as error:
            os._exit(3 if "No space left" in str(error) else 4)
        except BaseException:  # noqa: BLE001 - whatever it was, the child must end here
            os._exit(5)
        os._exit(6 if fake.fired else 0)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def quick(tmp_path):
    """Give a folder in memory where there is one: these tests sync thousands of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="kingpost-", dir=memory) as folder:
        yield Path(folder)


def copies(tmp_path: Path):
    number = 0
    while True:
        number += 1
        root = tmp_path / str(number)
        write(root, OLD)
        (root / "mine").write_text("a person's\n")
        yield number, root


def test_killed_anywhere_it_leaves_the_old_tree_or_one_that_the_next_run_finishes(quick):
    old, new, seen_old, seen_mixed = None, None, 0, 0
    for number, root in copies(quick):
        old = old or contents(root)
        new = new or {**expected(NEW, root), "mine": "a person's\n"}
        status = interrupted_write(root, NEW, number)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        found = contents(root)
        committed = (root / journal.JOURNAL).exists()
        if not committed:
            assert found in (old, new)
        for path, text in found.items():
            assert text in (old.get(path), new.get(path)), f"half of {path} at boundary {number}"
        if not committed:  # what it had prepared goes with the next run
            write(root, OLD)
            assert not any(one.is_dir() and not list(one.iterdir()) for one in root.rglob("*"))
        seen_old += found == old
        seen_mixed += found not in (old, new)
        if committed:
            assert plan(root, NEW).stale
            write(root, OLD)  # what was begun is finished first, whatever comes next
            assert contents(root) == {**expected(OLD, root), "mine": "a person's\n"}
        write(root, NEW)
        assert contents(root) == dict(sorted(new.items()))
        assert not (root / journal.FOLDER).exists()
    assert number > 40
    assert seen_old > 10
    assert seen_mixed > 3


def test_a_full_disk_anywhere_leaves_the_old_tree_or_one_that_the_next_run_finishes(quick):
    failures = 0
    for number, root in copies(quick):
        old = contents(root)
        status = interrupted_write(root, NEW, number, fail=True)
        if os.WEXITSTATUS(status) == 0:
            break
        assert os.WEXITSTATUS(status) == 3
        failures += 1
        if not (root / journal.JOURNAL).exists():
            assert contents(root) == old
            assert not (root / journal.FOLDER).exists()
            assert not (root / "hosts" / "m").exists()
        write(root, NEW)
        assert contents(root) == {**expected(NEW, root), "mine": "a person's\n"}
    assert failures > 20


def test_a_killed_recovery_is_finished_too(quick):
    begun = begun_write(quick / "find")
    for number, root in copies(quick):
        new = {**expected(NEW, root), "mine": "a person's\n"}
        interrupted_write(root, NEW, begun + 4)
        assert (root / journal.JOURNAL).exists()
        if os.WIFEXITED(interrupted_write(root, NEW, number)):
            break
        write(root, NEW)
        assert contents(root) == new
    assert number > 10


def begun_write(folder: Path) -> int:
    """Give the first boundary at which a killed write leaves a journal."""
    for number, root in copies(folder):
        interrupted_write(root, NEW, number)
        if (root / journal.JOURNAL).exists():
            return number
    raise AssertionError


def test_an_edit_between_a_kill_and_the_next_run_is_not_lost(quick):
    root = quick / str(begun_write(quick))
    (root / "hosts/n/b").write_text("edited\n")
    with pytest.raises(KingpostError, match="edited since a run was killed"):
        write(root, NEW)
    assert (root / "hosts/n/b").read_text() == "edited\n"
    write(root, NEW, force=True)
    assert contents(root) == {**expected(NEW, root), "mine": "a person's\n"}


def test_a_new_folder_that_somebody_made_meanwhile_keeps_what_is_theirs(quick):
    root = quick / str(begun_write(quick))
    (root / "hosts/m/c").mkdir(parents=True)
    (root / "hosts/m/c/theirs").write_text("a person's\n")
    write(root, NEW)
    new = {**expected(NEW, root), "hosts/m/c/theirs": "a person's\n", "mine": "a person's\n"}
    assert contents(root) == dict(sorted(new.items()))
    assert not (root / journal.FOLDER).exists()


def test_a_file_in_a_new_folder_that_somebody_made_meanwhile_is_not_lost(quick):
    root = quick / str(begun_write(quick))
    (root / "hosts/m/c").mkdir(parents=True)
    (root / "hosts/m/c/d").write_text("a person's\n")
    with pytest.raises(KingpostError, match="hosts/m/c/d was edited since a run was killed"):
        write(root, NEW)
    assert (root / "hosts/m/c/d").read_text() == "a person's\n"
    write(root, NEW, force=True)
    assert contents(root) == dict(sorted({**expected(NEW, root), "mine": "a person's\n"}.items()))


def test_a_killed_merge_into_such_a_folder_is_finished_too(quick):
    at = begun_write(quick / "find")
    for number, root in copies(quick):
        interrupted_write(root, NEW, at)
        (root / "hosts/m/c").mkdir(parents=True)
        (root / "hosts/m/c/d").write_text("d\n")
        if os.WIFEXITED(interrupted_write(root, NEW, number)):
            break
        write(root, NEW)
        assert contents(root) == dict(sorted({**expected(NEW, root), "mine": "a person's\n"}.items()))
    assert number > 10


@pytest.mark.parametrize("library", [None, object()], ids=["linux", "macos"])
def test_many_files_are_made_durable_at_once(tmp_path, monkeypatch, library):
    if library:
        monkeypatch.setattr(journal.ctypes, "CDLL", lambda *_, **__: library)
    many = Tree({f"hosts/h{n}/f": f"{n}\n" for n in range(600)}, "t", "1")
    write(tmp_path, many)
    assert contents(tmp_path) == expected(many, tmp_path)
    write(tmp_path, NEW)
    assert contents(tmp_path) == expected(NEW, tmp_path)


FOLDERS = st.lists(st.sampled_from(["a", "dir", "ü"]), max_size=2)
NAMES = st.sampled_from(["f", "x y", "'"])
TREES = st.dictionaries(
    st.builds(lambda folders, name: "/".join([*folders, name]), FOLDERS, NAMES),
    st.text(max_size=20),
    max_size=8,
)


@given(TREES, TREES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_tree_follows_any_other(tmp_path_factory, first, second):
    root = tmp_path_factory.mktemp("tree")
    for files in (first, second, second):
        tree = Tree(files, "t", "1")
        before = plan(root, tree)
        write(root, tree)
        found = {path: text for path, text in contents(root).items() if path != MANIFEST}
        assert found == files
        assert before.stale or files == second or not files


@given(st.text())
@settings(deadline=None)
def test_a_confined_path_never_leaves(path):
    if is_confined(path):
        resolved = os.path.normpath(f"/root/{path}")
        assert resolved.startswith("/root/")
        assert "\0" not in path
