"""Scan, compare, keys, log, roots: what is found, and that nothing is where there is nothing."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.storefix.paper import Paper, hash_part, path_of

from kingpost.storefix import contents, database, integrity, nar, pages, roots
from kingpost.storefix.compare import compare
from kingpost.storefix.database import connect


@pytest.fixture
def paper(tmp_path):
    return Paper(tmp_path)


def found(paper, *argv):
    code, said = paper.run("scan", "--json", *argv)
    document = json.loads(said)
    assert code == (0 if document["healthy"] else 1)
    assert document["schema"] == "kingpost.store-fix.scan/1"
    return {finding["code"]: finding for finding in document["findings"]}


def test_healthy(paper):
    assert set(found(paper)) == {"fsync-off"}
    assert set(found(paper, "--contents")) == {"fsync-off"}


def test_scan_changes_nothing(paper):
    before = {path: path.lstat().st_mtime_ns for path in paper.root.rglob("*") if "sqlite-" not in path.name}
    paper.run("scan", "--contents")
    after = {path: path.lstat().st_mtime_ns for path in paper.root.rglob("*") if "sqlite-" not in path.name}
    # SQLite makes its shared memory beside the database, which shows on the directory only.
    before.pop(paper.state / "db"), after.pop(paper.state / "db")
    assert before == after


def test_needed_by_names_what_matters_most(paper):
    paper.lose("d")
    needed = found(paper)["lost-path"]["needed_by"]
    assert needed[0].startswith("profile system")
    assert "gcroot gcroots/d" in needed


def test_current_generation_that_is_gone(paper):
    (paper.state / "profiles/system-1-link").unlink()
    assert found(paper)["dangling-root"]["severity"] == "problem"


def test_stale_automatic_root_is_only_a_note(paper):
    (paper.state / "gcroots/auto/x").symlink_to("/home/nobody/result")
    assert found(paper)["stale-root"]["severity"] == "note"


def test_links_of_another_machine_are_resolved_below_its_root(paper, tmp_path):
    # An absolute link of a mounted disk must not lead to this machine's files.
    shutil.move(paper.root / "nix", paper.root / "persist-nix")
    (paper.root / "nix").symlink_to("/persist-nix")
    assert set(found(paper)) == {"fsync-off"}
    assert found(paper)["fsync-off"]["subject"].startswith(str(paper.root))


@given(present=st.sets(st.integers(0, 40)), registered=st.sets(st.integers(0, 40)), odd=st.booleans())
@settings(max_examples=40, deadline=None)
def test_compare_is_the_difference_of_two_sets(tmp_path_factory, present, registered, odd):
    paper = Paper(tmp_path_factory.mktemp("compare"))
    paper.sql(("delete from Refs",), ("delete from ValidPaths",))
    for name in os.listdir(paper.real):
        paper.lose(name[33:])
    names = {number: f"{hash_part(str(number))}-{number}" for number in range(41)}
    for number in present:
        (paper.real / names[number]).touch()
    for number in registered:
        paper.sql(("insert into ValidPaths (path, hash, registrationTime) values (?, 'x', 1)",
                   f"/nix/store/{names[number]}"))  # fmt: skip
    if odd:
        paper.sql(
            ("insert into ValidPaths (path, hash, registrationTime) values ('/foo/nix/store/x', 'x', 1)",)
        )
    with contextlib.closing(connect(paper.database)) as connection:
        result = compare(paper.store, connection)
    assert result.lost == sorted(names[number].encode() for number in registered - present)
    assert result.unregistered == {names[number].encode() for number in present - registered}
    assert result.invalid == ([b"/foo/nix/store/x"] if odd else [])
    assert result.rows == len(registered) + odd


@given(
    rows=st.sets(st.integers(1, 30)),
    refs=st.sets(st.tuples(st.integers(-3, 34), st.integers(-3, 34)), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_foreign_keys_as_sqlite_finds_them(tmp_path_factory, rows, refs):
    paper = Paper(tmp_path_factory.mktemp("keys"))
    insert = "insert into ValidPaths (id, path, hash, registrationTime) values (?, ?, 'x', 1)"
    paper.sql(
        ("delete from Refs",), ("delete from ValidPaths",),
        *((insert, row, str(row)) for row in rows),
        *(("insert into Refs values (?, ?)", *pair) for pair in refs),
        *(("insert into DerivationOutputs values (?, 'out', 'x')", pair[0]) for pair in list(refs)[:1]),
    )  # fmt: skip
    connection = connect(paper.database)
    keys = integrity.foreign_keys(connection)
    assert keys.clean == (not connection.execute("pragma foreign_key_check").fetchall())
    assert set(keys.ghosts) == {b for a, b in refs if b not in rows and a in rows}
    assert keys.orphan_references == sum(a not in rows for a, _ in refs)
    connection.close()


def test_log_that_is_whole_and_log_that_is_torn(paper):
    connection = sqlite3.connect(paper.database, isolation_level=None)
    connection.execute("pragma wal_autocheckpoint = 0")
    for number in range(4):
        connection.execute("insert into DerivationOutputs values (3, ?, 'x')", (f"out{number}",))
    wal = paper.database.with_name("db.sqlite-wal")
    assert not integrity.write_ahead_log(paper.database).torn
    copy = paper.root / "copy.sqlite"
    shutil.copy(paper.database, copy)
    data = wal.read_bytes()
    middle = len(data) * 6 // 10
    torn = data[:middle] + b"garbage" + data[middle + 7 :]
    copy.with_name("copy.sqlite-wal").write_bytes(torn)
    seen = integrity.write_ahead_log(copy)
    assert seen.torn
    assert seen.frames
    assert 0 < seen.lost_commits < 4
    copy.with_name("copy.sqlite-wal").write_bytes(data[:-10])
    assert integrity.write_ahead_log(copy).partial
    connection.close()


def test_page_reader_reads_what_sqlite_reads(paper):
    connection = sqlite3.connect(paper.database, isolation_level=None)
    big = "x" * 20_000  # overflow pages
    connection.execute("update ValidPaths set sigs = ? where id = 3", (big,))
    connection.executemany(
        "insert into DerivationOutputs values (3, ?, ?)", [(f"o{number}", "y" * 50) for number in range(900)]
    )
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.execute("delete from DerivationOutputs where id < 'o2'")  # in the log only
    file = pages.PageFile(paper.database)
    seen = {name: file.tree(root) for _, name, root in pages.tables(file) if root}
    assert all(tree.whole for tree in seen.values())
    outputs = connection.execute(
        "select rowid, drv, id, path from DerivationOutputs order by rowid"
    ).fetchall()
    assert sorted((row, *values) for row, values in seen["DerivationOutputs"].rows) == outputs
    sigs = {row: values[7] for row, values in seen["ValidPaths"].rows}
    assert sigs[3] == big
    connection.close()


def test_digest_of_every_kind_of_entry(tmp_path):
    place = tmp_path / "x"
    (place / "empty").mkdir(parents=True)
    (place / "large").write_bytes(os.urandom((1 << 21) + 5))
    (place / "none").touch()
    (place / "run").write_text("x")
    (place / "run").chmod(0o755)
    os.symlink("/nowhere", place / "link")
    (place / os.fsdecode(b"odd\xff\n")).write_text("x")
    digest = nar.digest(place)
    parts = []
    nar.dump(os.fsencode(place), lambda data: parts.append(bytes(data)))
    assert len(b"".join(parts)) == digest.nar_size == nar.metadata(place).nar_size
    assert nar.metadata(place).empty_files == ("none",)
    os.mkfifo(place / "pipe")
    with pytest.raises(nar.NotArchivableError):
        nar.digest(place)


def test_hash_parts_at_the_edges_of_pieces(tmp_path):
    part = hash_part("x").encode()
    place = tmp_path / "x"
    for offset in ((1 << 20) - 200, (1 << 20) - 130, 0):
        place.write_bytes(b"." * offset + part + b"." * 300)
        assert nar.hash_parts(place, {part}) == {part}
    place.write_bytes(b"0" * 50 + part + b"0" * 50)  # in the middle of a longer run
    assert nar.hash_parts(place, {part}) == {part}


def test_a_file_in_gcroots_is_a_root_and_loops_are_none(paper):
    (paper.state / "gcroots" / os.path.basename(path_of("e"))).touch()
    (paper.state / "gcroots/loop").symlink_to("loop")
    (paper.state / "gcroots/deep").mkdir()
    (paper.state / "gcroots/deep/f").symlink_to(path_of("f") + "/bin/run")
    labels = {
        root.base_name[33:]: root.label for root in roots.find(paper.store, processes=False) if root.base_name
    }
    assert set(labels) == {"a", "d", "e", "f"}


def test_usage_and_absence(paper, tmp_path):
    assert paper.run("apply", tmp_path / "none.json")[0] == 2
    code, said = paper.run("repair")
    assert code == 0
    paper.lose("a")
    code, said = paper.run("repair")
    assert code == 2
    assert "--yes" in said
    shutil.rmtree(tmp_path / "twin")
    from kingpost.storefix import cli

    assert cli.main(["scan", "--root", str(tmp_path / "nowhere")]) == 3
    assert cli.main(["nonsense"]) == 2


def test_names_are_shown_without_control_characters(paper):
    (paper.real / os.fsdecode(b"\x1b[31mred\xff")).touch()
    code, said = paper.run("scan")
    assert code == 0
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


def test_what_nix_does_meanwhile_is_no_damage(paper, monkeypatch):
    """It registers a path after the directory was listed, collects another before, and a third while hashing."""
    names = os.listdir

    def listing(place):
        if os.fsencode(place) != os.fsencode(paper.real):
            return names(place)
        paper.sql(("delete from Refs where referrer = 3",), ("delete from ValidPaths where id = 3",))
        paper.lose("f")
        found = names(place)
        new = paper.real / f"{hash_part('new')}-new"
        new.write_text("new\n")
        digest = nar.digest(new)
        insert = "insert into ValidPaths (path, hash, registrationTime, narSize) values (?, ?, 2, ?)"
        paper.sql((insert, f"/nix/store/{new.name}", digest.nar_hash, digest.nar_size))
        return [*found, os.fsencode(new.name)]

    def collected(*args):
        paper.sql(("delete from Refs where referrer = 6",), ("delete from ValidPaths where id = 6",))
        paper.lose("e")
        return check(*args)

    check = contents.check
    monkeypatch.setattr(os, "listdir", listing)
    monkeypatch.setattr(contents, "check", collected)
    assert set(found(paper)) == {"fsync-off"}


def test_connections_see_one_state_though_somebody_writes(paper, monkeypatch):
    writes = iter(range(3))
    seen = database._state

    def state(path):
        if (number := next(writes, None)) is not None:
            paper.sql(("insert into DerivationOutputs values (3, ?, 'x')", f"out{number}"))
        return seen(path)

    monkeypatch.setattr(database, "_state", state)
    one, other = database.same_state(paper.database, 2)
    paper.sql(("insert into DerivationOutputs values (3, 'later', 'x')",))
    counts = [
        connection.execute("select count(*) from DerivationOutputs").fetchone() for connection in (one, other)
    ]
    assert counts == [(3,), (3,)]
    assert one is not other
    one.close(), other.close()


def test_one_connection_serves_all_where_somebody_writes_all_the_time(paper, monkeypatch):
    monkeypatch.setattr(database, "_state", lambda _path: object())
    one, other = database.same_state(paper.database, 2)
    assert one is other
    one.close()
    assert set(found(paper)) == {"fsync-off"}


def test_an_index_that_has_lost_an_entry(paper):
    query = "select rootpage from sqlite_master where name = 'sqlite_autoindex_ValidPaths_1'"
    with paper.database.open("r+b") as file:
        file.seek(
            (paper.rows(query)[0][0] - 1) * 4096 + 3
        )  # the number of cells, behind the kind of the page
        count = int.from_bytes(file.read(2), "big")
        file.seek(-2, os.SEEK_CUR)
        file.write((count - 1).to_bytes(2, "big"))
    assert "5 entries" in found(paper)["database-malformed"]["summary"]


def test_a_child_that_ends_badly_says_no():
    assert integrity.in_child(lambda: True)
    assert not integrity.in_child(lambda: False)
    # As by SIGBUS when the disk does not give a mapped page back.
    assert not integrity.in_child(lambda: os.kill(os.getpid(), signal.SIGKILL) or True)


@pytest.mark.parametrize("name", [".", "..", ".-x", "..-x"])
def test_names_of_dots_are_none(paper, name):
    row = "insert into ValidPaths (path, hash, registrationTime) values (?, 'x', 1)"
    path = f"/nix/store/{hash_part('x')}-{name}"
    paper.sql((row, path))
    (paper.real / os.path.basename(path)).touch()
    assert found(paper)["invalid-row"]["subject"] == path


def test_directories_of_builds_are_leftovers_unless_something_is_being_built(paper):
    build = paper.state / "builds" / "nix-812-1" / "build"
    build.mkdir(parents=True)
    (build / "file").touch()
    outside = paper.root / "outside"
    outside.mkdir()
    (paper.state / "builds" / "link").symlink_to(outside)
    with (paper.real / f"{hash_part('x')}-x.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "leftover" not in found(paper)
    assert found(paper)["leftover"]["severity"] == "note"
    paper.lose("c")  # leftovers alone are no reason to repair
    code, said = paper.run("repair", "--yes")
    assert code == 0, said
    assert os.listdir(paper.state / "builds") == []
    assert outside.is_dir()
    paper.assert_sound()


def test_a_full_disk_and_a_nix_that_does_not_flush_are_named_as_causes(paper, monkeypatch):
    full = os.statvfs_result((4096, 4096, 1 << 20, 9, 9, 1 << 16, 1 << 15, 1 << 15, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    seen = found(paper)
    assert seen["disk-full"]["severity"] == "problem"
    assert seen["disk-full"]["evidence"]["free_bytes"] == 9 * 4096
    assert seen["fsync-off"]["severity"] == "note"
    monkeypatch.undo()
    (paper.root / "etc/nix/nix.conf").write_text("substituters =\nfsync-store-paths = true\n")
    assert set(found(paper)) == set()


def test_no_more_inodes_are_a_full_disk_too(paper, monkeypatch):
    spent = os.statvfs_result((4096, 4096, 1 << 20, 1 << 19, 1 << 19, 1 << 16, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: spent)
    assert "0 inodes are free" in found(paper)["disk-full"]["summary"]
