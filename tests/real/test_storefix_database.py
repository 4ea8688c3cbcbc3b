"""The database as a whole, what goes back to before, and plans: on stores that real Nix built."""

import os
import sqlite3
from pathlib import Path

import pytest


@pytest.mark.parametrize("text", ["", "99x"])
def test_schema_file(lab, text):
    (lab.nix.state / "db" / "schema").write_text(text)
    assert lab.codes()["schema-version"]["severity"] == "problem"
    lab.repaired()


def test_newer_schema_is_not_written_to(lab):
    (lab.nix.state / "db" / "schema").write_text("11")
    lab.lose(lab.paths["n0"])
    before = lab.database.read_bytes()
    code, said = lab.run("repair", "--yes")
    assert code == 1
    assert "newer kingpost" in said
    assert lab.database.read_bytes() == before


def test_damaged_narinfo_cache(lab):
    cache = lab.nix.root / "home" / ".cache" / "nix" / "binary-cache-v6.sqlite"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_bytes(b"no database" * 100)
    assert "narinfo-cache" in lab.codes()
    lab.repaired()


def damage_page(path: Path, number: int, data: bytes | None = None) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * 4096)
        file.write(data or os.urandom(4096))


def test_database_with_any_one_page_overwritten(lab):
    with sqlite3.connect(lab.database) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    pages = lab.database.stat().st_size // 4096
    for number in range(1, pages + 1):
        lab.reset()
        damage_page(lab.database, number, b"\xff" * 4096)
        code, said = lab.run("repair", "--yes", "--contents", "--adopt")
        assert code == 0, f"page {number}: {said}"
        lab.assert_sound(gc=number % 5 == 0)


@pytest.mark.parametrize("how", ["zeroed header", "halved", "empty", "removed", "text"])
def test_database_that_is_none(lab, how):
    data = lab.database.read_bytes()
    for suffix in ("-wal", "-shm"):
        Path(f"{lab.database}{suffix}").unlink(missing_ok=True)
    if how == "removed":
        lab.database.unlink()
    else:
        lab.database.write_bytes({
            "zeroed header": b"\0" * 100 + data[100:],
            "halved": data[: len(data) // 8192 * 4096],
            "empty": b"",
            "text": b"hello\n" * 1000,
        }[how])  # fmt: skip
    assert lab.codes().keys() & {"database-malformed", "database-missing"}
    lab.repaired("--contents")
    assert lab.run("scan", "--contents")[0] == 0


def test_truncated_and_garbled_log(lab):
    # A Nix that is killed leaves rows in the log; garbage in it loses those behind without a word.
    connection = sqlite3.connect(lab.database, isolation_level=None)
    connection.execute("pragma wal_autocheckpoint = 0")
    top = lab.paths[lab.roots[0]]
    with sqlite3.connect(lab.database) as other:
        info = other.execute(
            "select path, hash, registrationTime, narSize from ValidPaths where path = ?", (top,)
        ).fetchone()
        below = [
            row[0]
            for row in other.execute(
                "select reference from Refs join ValidPaths on id = referrer where path = ? and id != reference",
                (top,),
            )
        ]
    other.close()
    connection.execute("delete from ValidPaths where path = ?", (top,))
    connection.execute("pragma wal_checkpoint(truncate)")
    for number in range(5):  # each its own transaction
        connection.execute(
            "insert or ignore into DerivationOutputs values ((select min(id) from ValidPaths), ?, 'x')",
            (f"t{number}",),
        )
    connection.execute(
        "insert into ValidPaths (path, hash, registrationTime, narSize) values (?, ?, ?, ?)", info
    )
    for row in below:
        connection.execute(
            "insert into Refs values ((select id from ValidPaths where path = ?), ?)", (top, row)
        )
    wal = Path(f"{lab.database}-wal").read_bytes()
    main = lab.database.read_bytes()
    connection.close()
    lab.database.write_bytes(main)
    Path(f"{lab.database}-shm").unlink(missing_ok=True)
    Path(f"{lab.database}-wal").write_bytes(wal[:5000] + b"garbage!" + wal[5008:])
    found = lab.codes()
    assert found["torn-wal"]["evidence"]["lost_transactions"] > 0
    assert "live-orphan" in found
    lab.repaired()


def test_undo_brings_the_database_back(lab):
    lab.sql(("delete from ValidPaths where path = ?", lab.paths[lab.roots[0]]), keys=True)
    lab.rewrite(lab.paths["n1"] + "/f", b"")
    before = dump(lab)
    lab.repaired("--contents", gc=False)
    assert dump(lab) != before
    code, said = lab.run("undo")
    assert code == 0, said
    assert dump(lab) == before
    assert lab.run("undo")[0] == 2


def test_undo_of_a_salvage(lab):
    lab.database.write_bytes(b"hello\n" * 1000)
    Path(f"{lab.database}-wal").unlink(missing_ok=True)
    code, said = lab.run("plan", "-o", lab.nix.root / "p.json")
    assert code == 1, said
    code, said = lab.run("apply", lab.nix.root / "p.json")
    assert lab.rows("select count(*) from ValidPaths") == [(0,)]
    assert lab.run("undo")[0] == 0
    assert lab.database.read_bytes() == b"hello\n" * 1000


def test_undo_refuses_after_nix_has_registered(lab):
    lab.lose(lab.paths["n0"])
    lab.repaired(gc=False)
    lab.sql(("delete from ValidPaths where path = ?", lab.paths[lab.roots[0]]), keys=True)
    lab.repaired(gc=False)
    (lab.nix.root / "new").write_text("new")
    lab.nix.run("nix-store", "--add", lab.nix.root / "new")
    code, said = lab.run("undo")
    assert code == 1
    assert "--force" in said
    assert lab.run("undo", "--force")[0] == 0


def dump(lab):
    return [
        lab.rows(f"select * from {table} order by 1, 2")
        for table in ("ValidPaths", "Refs", "DerivationOutputs")
    ]


def test_recorded_plan_replays_identically(lab):
    plan = lab.nix.root / "plan.json"
    dumps = []
    for _ in range(2):
        lab.reset()
        lab.lose(lab.paths["n0"], lab.paths["n4"])
        lab.sql(("delete from ValidPaths where path = ?", lab.paths[lab.roots[0]]), keys=True)
        if not dumps:
            assert lab.run("plan", "-o", plan)[0] == 1
        code, said = lab.run("apply", plan)
        assert code == 0, said
        dumps.append(dump(lab))
        lab.assert_sound()
    assert dumps[0] == dumps[1]


def test_plan_is_refused_once_the_store_has_changed(lab):
    plan = lab.nix.root / "plan.json"
    lab.lose(lab.paths["n0"])
    assert lab.run("plan", "-o", plan)[0] == 1
    (lab.nix.root / "new2").write_text("new2")
    lab.nix.run("nix-store", "--add", lab.nix.root / "new2")
    code, said = lab.run("apply", plan)
    assert code == 1
    assert "not as it was" in said
    edited = plan.read_text().replace("n0", "n1")
    plan.write_text(edited)
    code, said = lab.run("apply", plan)
    assert code == 2
    assert "changed after it was made" in said
