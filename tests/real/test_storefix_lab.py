"""Every kind of damage, singly, on stores that real Nix built; afterwards real Nix finds nothing wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest


def test_healthy_store_is_left_alone(lab):
    assert lab.run("scan")[0] == 0
    assert lab.run("scan", "--contents")[0] == 0
    lab.repaired()


def test_one_lost_path(lab):
    lab.lose(lab.paths["n0"])
    assert "lost-path" in lab.codes()
    lab.repaired("--contents")


def test_two_missing_levels_under_a_present_path(lab):
    # Where every `nix-store --verify` of real Nix aborts with a foreign key failure.
    lab.lose(lab.paths["n11"], lab.paths["n12"])
    failed = lab.nix.run("nix-store", "--verify", check=False)
    assert "constraint failed" in failed.stderr
    said = lab.repaired()
    assert "2 fetch" in said


def test_everything_lost(lab):
    lab.lose(*lab.paths.values())
    lab.repaired()


def test_dead_paths_without_any_source_are_dropped(lab):
    dead = sorted(set(lab.paths.values()) - lab.live)
    lab.lose(dead[0])
    said = lab.repaired("--offline", "--no-rebuild", cache=False)
    assert "nothing alive needs it" in said


def test_dead_paths_are_fetched_unless_told_otherwise(lab):
    dead = sorted(set(lab.paths.values()) - lab.live)
    lab.lose(*dead)
    lab.repaired("--drop-dead", gc=False)
    assert not any(map(os.path.lexists, dead))
    lab.reset()
    lab.lose(*dead)
    lab.repaired(gc=False)
    assert all(map(os.path.lexists, dead))


def test_lost_without_a_cache_is_rebuilt(lab):
    lab.lose(*sorted(lab.live))
    said = lab.repaired("--offline", cache=False)
    assert "rebuild" in said


def test_live_path_that_nothing_has_is_left_and_named(lab):
    lost = lab.paths["n0"]
    assert lost in lab.live
    lab.lose(lost)
    code, said = lab.run("repair", "--yes", "--offline", "--no-rebuild", cache=False)
    assert code == 1
    assert f"--allow-cut {lost}" in said
    assert "current system" in said or "gcroots/system" in said or "profile web" in said
    assert lab.rows("select count(*) from ValidPaths where path = ?", lost) == [(1,)]


def test_cut_names_what_becomes_incomplete(lab):
    lost = lab.paths["n0"]
    referrers = {lab.paths[node] for node, below in lab.edges.items() if "n0" in below} & lab.live
    lab.lose(lost)
    options = ("--offline", "--no-rebuild", "--allow-cut", lost)
    code, said = lab.run("plan", "--json", *options, cache=False)
    assert code == 1
    cut = [action for action in json.loads(said)["actions"] if action["kind"] == "cut"]
    assert set(cut[0]["others"]) == referrers
    lab.repaired(*options, cache=False, lost=frozenset({lost}), gc=False)


def test_referrer_of_a_lost_row_that_is_registered_anew_settles_it(lab):
    """What is fetched because its row has no usable hash brings its references along."""
    live = [node for node in lab.edges if lab.paths[node] in lab.live]
    above, below = next((node, one) for node in live for one in lab.edges[node] if lab.edges[one])
    lab.lose(lab.paths[below])
    lab.sql(("delete from ValidPaths where path = ?", lab.paths[below]))
    lab.sql(("update ValidPaths set hash = 'zz' where path = ?", lab.paths[above]))
    lab.repaired("--contents")


@pytest.mark.parametrize("cache", [True, False])
def test_wrong_size_does_not_cost_the_reference_to_a_lost_row(lab, cache):
    """A row is never written anew without a reference whose name is lost: that shortens a closure in silence."""
    live = [node for node in lab.edges if lab.paths[node] in lab.live]
    above, below = next((node, one) for node in live for one in lab.edges[node] if lab.edges[one])
    lab.lose(lab.paths[below])
    lab.sql(("delete from ValidPaths where path = ?", lab.paths[below]))
    lab.sql(("update ValidPaths set narSize = 7 where path = ?", lab.paths[above]))
    if cache:
        lab.repaired("--contents")
        return
    before = lab.rows("select count(*) from Refs")
    code, said = lab.run("repair", "--yes", "--contents", "--offline", "--no-rebuild", cache=False)
    assert code == 1
    assert f"--allow-cut {lab.paths[above]}" in said
    assert lab.rows("select count(*) from Refs") == before
    assert lab.live - {lab.paths[below]} <= {row[0] for row in lab.rows("select path from ValidPaths")}


CHAIN = """
with r as (select referrer, reference from Refs where referrer != reference)
select m.path, l.path from r join ValidPaths m on m.id = r.referrer join ValidPaths l on l.id = r.reference
where (select count(*) from r as o where o.reference = l.id) = 1 and m.path not like '%.drv'
  and exists (select 1 from r as o where o.referrer = l.id) and exists (select 1 from r as o where o.reference = m.id)
"""


def test_references_of_a_lost_row_below_a_lost_row_are_kept(lab):
    """Two rows in a chain are gone: what the lower one referred to is needed as before."""
    chain = next(pair for pair in lab.rows(CHAIN) if set(pair) <= lab.live)
    lab.sql(*(("delete from ValidPaths where path = ?", path) for path in chain))
    before = lab.rows("select count(*) from Refs")
    code, said = lab.run("repair", "--yes", "--offline", "--no-rebuild", cache=False)
    assert code == 1
    assert lab.rows("select count(*) from Refs") == before, said


def test_rebuild_that_nix_could_not_end_is_not_planned(lab):
    """Nix stops at a row without a usable hash, so nothing that refers to one, directly or not, can be rebuilt."""
    below = lab.paths["n0"]
    above = {lab.paths[node] for node in lab.edges if below in lab.closure(node) and node != "n0"}
    lost = min(above & lab.live)
    lab.lose(lost)
    lab.sql(("update ValidPaths set hash = 'zz' where path = ?", below))
    _, said = lab.run("plan", "--json", "--contents", "--offline", cache=False)
    plan = json.loads(said)
    assert [action["kind"] for action in plan["actions"]] == []
    left = {item["subject"]: item["reason"] for item in plan["left"]}
    assert set(left) == {below, lost}
    assert "it needs a path whose row has no usable hash" in left[lost]
    # With the bytes on disk taken for what they should be, Nix can build again.
    lab.repaired("--contents", "--offline", "--adopt", cache=False)


@pytest.mark.parametrize("contents", [b"", b"other\n"])
def test_damaged_file(lab, contents):
    lab.rewrite(lab.paths["n1"] + "/f", contents)
    assert "damaged-content" in lab.codes(), "it was registered a moment ago: a quick scan looks at such"
    lab.sql(("update ValidPaths set registrationTime = 1 where path = ?", lab.paths["n1"]))
    assert lab.run("scan")[0] == 0
    found = lab.codes("--contents")["damaged-content"]
    assert ("of no bytes: f" in found["summary"]) == (not contents)
    lab.repaired("--contents")


def test_damaged_file_is_rebuilt_without_a_cache(lab):
    lab.rewrite(lab.paths["n1"] + "/f", b"x")
    lab.repaired("--contents", "--offline", cache=False)


def test_wrong_size_in_a_row(lab):
    lab.sql(("update ValidPaths set narSize = narSize + 8 where path = ?", lab.paths["n2"]))
    lab.repaired("--contents")
    assert lab.run("scan", "--contents")[0] == 0


def test_row_without_a_usable_hash(lab):
    lab.sql(("update ValidPaths set hash = 'sha256:zz' where path = ?", lab.paths["n2"]))
    assert "damaged-content" in lab.codes()
    lab.repaired()


def test_lost_row_of_a_live_path(lab):
    # What a truncated write-ahead log does: the next collection would delete the path.
    top = lab.paths[lab.roots[0]]
    lab.sql(("delete from ValidPaths where path = ?", top), keys=True)
    assert lab.codes()["live-orphan"]["subject"] == top
    said = lab.repaired()
    assert "vouches" in said


def test_lost_row_is_adopted_only_when_asked(lab):
    top = lab.paths[lab.roots[0]]
    before = lab.rows("select path, hash, narSize from ValidPaths where path = ?", top)
    lab.sql(("delete from ValidPaths where path = ?", top), keys=True)
    code, said = lab.run("repair", "--yes", "--offline", cache=False)
    assert code == 1
    assert "--adopt" in said
    lab.repaired("--offline", "--adopt", cache=False)
    assert lab.rows("select path, hash, narSize from ValidPaths where path = ?", top) == before


def test_partial_copy_without_a_row_is_fetched_again(lab):
    top = lab.paths[lab.roots[0]]
    lab.sql(("delete from ValidPaths where path = ?", top), keys=True)
    lab.rewrite(top + "/f", b"")
    os.utime(top, (5, 5))
    assert lab.codes()["live-orphan"]["evidence"]["state"] == "partial"
    lab.repaired()


def test_references_to_a_row_that_is_not_there(lab):
    lost = lab.paths["n0"]
    lab.sql(("delete from ValidPaths where path = ?", lost))
    found = lab.codes()
    assert "ghost-reference" in found
    lab.repaired()
    assert os.path.lexists(lost)


def test_ghosts_are_told_from_disk_without_a_cache(lab):
    lost = lab.paths["n0"]
    lab.sql(("delete from ValidPaths where path = ?", lost))
    lab.repaired("--offline", "--adopt", cache=False)


def test_references_of_a_row_that_is_not_there(lab):
    # NixOS/nix#6843: every garbage collection fails from now on.
    [(top,)] = lab.rows("select path from ValidPaths where path like '%-n13-%.drv'")
    lab.sql(("delete from ValidPaths where path = ?", top))
    assert "orphan-references" in lab.codes()
    lab.repaired()


def test_outputs_of_a_derivation_that_is_not_there(lab):
    lab.sql(("insert into DerivationOutputs values (99999, 'out', ?)", lab.paths["n0"]))
    assert "orphan-outputs" in lab.codes()
    lab.repaired()


def test_realisations_that_point_nowhere(lab):
    lab.sql(
        (("create table Realisations (id integer primary key autoincrement not null, drvPath text not null, "
         "outputName text not null, outputPath integer not null, signatures text, "
         "foreign key (outputPath) references ValidPaths(id) on delete cascade)"),),
        ("insert into Realisations values (1, 'x', 'out', 99999, null)",),
    )  # fmt: skip
    assert "orphan-rows" in lab.codes()
    lab.repaired()


@pytest.mark.parametrize(
    "path", ["/foo/nix/store/{h}-x", "{store}/{h}-", "{store}/{h}-a/b", "{store}/../{h}-x"]
)
def test_rows_that_can_be_no_path(lab, path):
    path = path.format(h="0" * 32, store=lab.nix.store)
    lab.sql(
        ("insert into ValidPaths (path, hash, registrationTime) values (?, ?, 1)", path, "sha256:" + "0" * 64)
    )
    assert "invalid-row" in lab.codes()
    lab.repaired()


def test_rows_that_are_no_text(lab):
    name = str(lab.nix.store).encode() + b"/" + b"0" * 32 + b"-\xff\x00\n"
    lab.sql(("insert into ValidPaths (path, hash, registrationTime) values (cast(? as text), ?, 1)",
             name, "sha256:" + "0" * 64))  # fmt: skip
    assert "invalid-row" in lab.codes()
    lab.repaired()


def test_dangling_generation_whose_row_is_gone_too(lab):
    # `nix-store --verify` drops the row with exit code 0; the next collection deletes the closure.
    top = lab.paths[lab.roots[0]]
    lab.lose(top)
    lab.sql(("delete from ValidPaths where path = ?", top), keys=True)
    found = lab.codes()
    assert "dangling-root" in found
    said = lab.repaired()
    assert os.path.lexists(top)
    assert "it is missing" in said


def test_dangling_generation_that_nothing_has(lab):
    # Generation 2 is the current one: it is never moved. Generation 1 is, if the user says so.
    other = lab.paths[lab.roots[0]]
    lab.lose(other)
    lab.sql(("delete from ValidPaths where path = ?", other), keys=True)
    code, said = lab.run("repair", "--yes", "--offline", cache=False)
    assert code == 1
    assert f"--allow-cut {other}" in said
    code, said = lab.run("repair", "--yes", "--offline", "--allow-cut", other, cache=False)
    assert code == 0, said
    link = lab.nix.state / "profiles" / "web-1-link"
    assert not link.is_symlink()
    assert lab.run("undo")[0] == 0
    assert str(link.readlink()) == other


def test_leftovers_are_removed_and_sources_named_lock_are_not(lab):
    store = lab.nix.store
    base = Path(lab.paths["n3"]).name
    (store / f"{base}.lock").write_bytes(b"")
    (store / f"{base}.chroot").mkdir()
    (store / f"{base}.chroot" / "x").write_bytes(b"x")
    (store / ".tmp-link-12-34").write_bytes(b"")
    (store / "tmp-12-34").mkdir()
    kept = store / ("1" * 32 + "-flake.lock")
    kept.write_text("{}")
    assert "leftover" in lab.codes()
    (store / ("2" * 32 + "-partial")).mkdir()
    lab.lose(lab.paths["n0"])
    lab.repaired(gc=False)
    assert not [*store.glob("*.chroot"), *store.glob("tmp-*")]
    assert kept.exists()


def test_damaged_links(lab):
    lab.nix.run("nix-store", "--optimise")
    links = lab.nix.store / ".links"
    link = min(links.iterdir())
    link.unlink()
    link.write_bytes(b"something else")
    assert "damaged-link" in lab.codes("--contents")
    lab.repaired("--contents")


def test_a_running_build_and_collection_are_not_disturbed(lab):
    lab.lose(lab.paths["n0"])
    lock = lab.nix.store / (Path(lab.paths["n0"]).name + ".lock")
    lock.write_bytes(b"")
    with holding(lock):
        code, said = lab.run("repair", "--yes")
        assert code == 3
        assert "being built or copied" in said
    with holding(lab.nix.state / "gc.lock"):
        code, said = lab.run("repair", "--yes", "--wait", "0.3")
        assert code == 3
        assert "Nix is at work" in said
    lab.repaired()


@contextlib.contextmanager
def holding(path):
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_serve_process_of_a_dead_session_is_shown_and_not_ended(lab):
    fifo = lab.nix.root / "fifo"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    # The shell ends and the server stays, as when the ssh that started it has gone.
    script = f"{lab.nix.bin}/nix-store --serve --write <> {fifo} >/dev/null 2>&1 & echo $!"
    started = subprocess.run(
        ["sh", "-c", script], env=lab.nix.env, capture_output=True, text=True, check=True
    )
    pid = int(started.stdout)
    try:
        end = time.monotonic() + 20
        while "serve-process" not in (found := lab.codes()) and time.monotonic() < end:
            time.sleep(0.1)
        assert found["serve-process"]["evidence"]["pid"] == pid
        code, said = lab.run("repair", "--yes")
        assert code == 1
        assert f"kill {pid}" in said
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while "serve-process" in lab.codes() and time.monotonic() < end:
        time.sleep(0.1)
    assert "serve-process" not in lab.codes()
