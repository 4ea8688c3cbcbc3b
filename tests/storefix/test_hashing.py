"""What a quick scan hashes: the paths that were registered last, which a power cut leaves empty."""

from __future__ import annotations

import io
import sqlite3

import pytest

from kingpost.storefix.database import SCHEMA
from kingpost.storefix.hashing import RECENT_SECONDS, _newest, hash_contents
from kingpost.storefix.locate import locate
from kingpost.storefix.nar import digest
from kingpost.storefix.progress import Progress

NOW = 1_700_000_000
OLD, NEW = f"{'a' * 32}-old", f"{'b' * 32}-new"


@pytest.fixture
def store(tmp_path):
    """Make a store of two files, of which the first was registered long before the second."""
    real, state = tmp_path / "nix" / "store", tmp_path / "nix" / "var" / "nix"
    real.mkdir(parents=True)
    (state / "db").mkdir(parents=True)
    (state / "db" / "schema").write_text("10")
    connection = sqlite3.connect(state / "db" / "db.sqlite")
    connection.executescript(SCHEMA)
    for row, (name, when) in enumerate(((OLD, NOW - RECENT_SECONDS - 1), (NEW, NOW)), 1):
        (real / name).write_text("content\n")
        (real / name).chmod(0o444)
        made = digest(real / name)
        nar_hash, size = made.nar_hash, made.nar_size
        connection.execute(
            "insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?, ?, ?, ?, ?)",
            (row, f"/nix/store/{name}", nar_hash, when, size),
        )
    connection.commit()
    connection.close()
    return locate(root=str(tmp_path))


def looked(store, *, everything, without=()):
    connection = sqlite3.connect(store.database)
    try:
        return hash_contents(
            store, connection, Progress(io.StringIO()), everything=everything, without=without
        )
    finally:
        connection.close()


def empty(store, name):
    path = store.real_store / name
    path.chmod(0o644)
    path.write_text("")
    path.chmod(0o444)


def test_a_quick_look_sees_what_was_registered_last(store):
    empty(store, OLD)
    empty(store, NEW)
    quick, whole = looked(store, everything=False), looked(store, everything=True)
    assert (quick.paths, set(quick.wrong)) == (1, {2})
    assert (whole.paths, set(whole.wrong)) == (2, {1, 2})


def test_a_sound_store_is_sound(store):
    assert not looked(store, everything=False).wrong
    assert not looked(store, everything=True).wrong


def test_rows_that_have_nothing_to_hash_are_left_out(store):
    (store.real_store / NEW).unlink()
    assert looked(store, everything=False, without={2}).paths == 0


def test_the_newest_are_taken_until_they_are_too_large():
    class Sized:
        def __init__(self, nar_size):
            self.nar_size = nar_size

    tasks = [Sized(6), Sized(6), Sized(1)]
    assert _newest(tasks, 12) == tasks[:2]
    assert _newest(tasks, 5) == tasks[:1], "one path is always looked at"
    assert _newest(tasks, 100) == tasks
