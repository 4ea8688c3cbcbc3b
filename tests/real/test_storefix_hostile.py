"""Try to make the repair lose something: sources that lie, orphans that look like trash, a hostile workshop."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.real.conftest import NIX_VERSIONS, Nix, require
from tests.storefix.caches import Server, answer
from tests.storefix.lab import Lab

from kingpost.storefix import effects
from kingpost.storefix.nar import digest


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "nix"
    return Lab(Nix("2.34", require(NIX_VERSIONS["2.34"]), root), size=8, seed=3)


def references(lab, path):
    query = (
        "select path from Refs join ValidPaths on id = reference "
        "where referrer = (select id from ValidPaths where path = ?) order by path"
    )
    return [row[0] for row in lab.rows(query, path)]


def lying_cache(lab, folder, change):
    """Copy the lab's cache without signatures, each narinfo changed by `change`."""
    shutil.copytree(lab.cache, folder)
    for narinfo in folder.glob("*.narinfo"):
        lines = [line for line in narinfo.read_text().splitlines() if not line.startswith("Sig:")]
        narinfo.write_text("\n".join(change(lines)) + "\n")
    return f"file://{folder}"


def a_referrer(lab):
    """Give a live path that refers to two or more others."""
    for path in sorted(lab.live):
        others = [one for one in references(lab, path) if one != path]
        if len(others) >= 2:
            return path, others
    raise AssertionError("the closure of this seed has none")


def test_an_unsigned_source_cannot_shorten_a_closure(lab, tmp_path):
    """Its bytes are proven by the hash in our database; the references that it names are not."""
    path, others = a_referrer(lab)
    ghost = others[0]
    lab.sql(("delete from ValidPaths where path = ?", ghost))

    def no_references(lines):
        return ["References: " if line.startswith("References:") else line for line in lines]

    url = lying_cache(lab, tmp_path / "lies", no_references)
    lab.run("repair", "--yes", "--no-rebuild", "--offline", "--from", url, cache=False)
    kept = references(lab, path)
    assert set(others[1:]) <= set(kept), "what it still referred to must stay"
    dangling = lab.rows("select count(*) from Refs where reference not in (select id from ValidPaths)")
    assert ghost in kept or dangling != [(0,)], "the lost reference must not be forgotten silently"
    # The honest cache then mends it.
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    assert references(lab, path) == others or set(others) <= set(references(lab, path))
    lab.assert_sound()


def test_an_unsigned_source_cannot_exchange_a_reference(lab, tmp_path):
    """As many references as were lost, all of them signed and real, but not the ones that stood there."""
    path, others = a_referrer(lab)
    ghost = others[0]
    wrong = next(one for one in sorted(lab.paths.values()) if one not in others and one != path)
    lab.sql(("delete from ValidPaths where path = ?", ghost))

    def exchanged(lines):
        return [line.replace(Path(ghost).name, Path(wrong).name) for line in lines]

    url = lying_cache(lab, tmp_path / "lies", exchanged)
    lab.run("repair", "--yes", "--no-rebuild", "--offline", "--from", url)
    assert wrong not in references(lab, path)
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    assert set(references(lab, path)) >= set(others)
    lab.assert_sound()


@pytest.mark.parametrize("said", ["0123456789abcdfghijklmnpqrsvwxyz-nowhere", ""], ids=["too many", "none"])
def test_wrong_references_of_an_unsigned_source_do_not_keep_its_bytes_from_being_used(lab, tmp_path, said):
    """The row is there and says what the path refers to; of the source only the bytes are wanted."""
    path, _ = a_referrer(lab)
    before = references(lab, path)
    lab.lose(path)
    url = lying_cache(
        lab,
        tmp_path / "lies",
        lambda lines: [f"References: {said}" if line.startswith("References:") else line for line in lines],
    )
    code, printed = lab.run("repair", "--yes", "--no-rebuild", "--offline", "--from", url, cache=False)
    assert code == 0, printed
    assert references(lab, path) == before
    lab.assert_sound()


def test_what_is_registered_from_disk_gets_the_modes_and_times_of_a_store(lab):
    """Nix was killed after it had written everything, and before it had made it read-only."""
    path = Path(min(lab.live))
    lab.sql(("delete from ValidPaths where path = ?", str(path)))
    for place in (path, *path.rglob("*")):
        if not place.is_symlink():
            place.chmod(0o755 if place.is_dir() or place.stat().st_mode & 0o100 else 0o644)
        os.utime(place, follow_symlinks=False)
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    for place in (path, *path.rglob("*")):
        status = place.lstat()
        assert status.st_mtime == 1, place
        assert place.is_symlink() or status.st_mode & 0o777 in (0o444, 0o555), place
    lab.assert_sound()


@pytest.mark.parametrize("suffix", [".check", ".chroot", ".old-12-34"])
def test_a_needed_path_that_is_named_like_trash_is_kept(lab, suffix):
    """As after a lost write-ahead log: on disk, needed by a root, without a row."""
    folder = lab.nix.root / "tmp" / f"thing{suffix}"
    folder.mkdir(exist_ok=True)
    (folder / "data").write_text("precious\n")
    path = Path(lab.nix.run("nix-store", "--add", folder).stdout.strip())
    (lab.nix.state / "gcroots" / "precious").symlink_to(path)
    lab.sql(("delete from ValidPaths where path = ?", str(path)))
    lab.lose(min(lab.live))  # so that there is something to repair
    lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert (path / "data").read_text() == "precious\n"


def test_the_copy_that_nix_moved_aside_is_kept_while_it_is_the_only_one(lab):
    """Nix was killed between its two renames: `<path>.old-PID-N` is all that there is of the path."""
    path = Path(min(lab.live))
    aside = path.with_name(f"{path.name}.old-77-88")
    path.parent.chmod(0o755)
    path.rename(aside)
    lab.run("repair", "--yes", "--no-rebuild", "--offline", cache=False)
    assert aside.exists()
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    lab.assert_sound()


@pytest.mark.parametrize("way", ["symlink", "foreign directory", "incoming is a symlink"])
def test_a_workshop_that_somebody_else_made_is_not_used(lab, tmp_path, way):
    """Builders without a sandbox may write to the store directory, which has the sticky bit."""
    outside = tmp_path / "outside"
    outside.mkdir()
    workshop = lab.nix.store / ".store-fix"
    if way == "symlink":
        workshop.symlink_to(outside)
    else:
        workshop.mkdir()
        if way == "incoming is a symlink":
            (workshop / "incoming").symlink_to(outside)
        else:
            os.chown(workshop, 65534, 65534)
    lost = min(lab.live)
    lab.lose(lost)
    lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert list(outside.iterdir()) == []
    assert not (way == "foreign directory" and os.path.lexists(lost)), (
        "unpacked where another could interfere"
    )
    if way != "incoming is a symlink":
        subprocess.run(["rm", "-rf", workshop], check=True)
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    lab.assert_sound()


def test_a_damaged_path_that_is_in_use_is_never_missing(lab, monkeypatch):
    """It may be the C library of the running system."""
    path = min(lab.live)
    lab.rewrite(f"{path}/f", b"damaged\n")
    absent = []
    monkeypatch.setattr(effects, "boundary", lambda name: os.path.lexists(path) or absent.append(name))
    code, said = lab.run("repair", "--yes", "--contents", "--no-rebuild", "--offline")
    assert code == 0, said
    assert absent == []
    lab.assert_sound()


def test_a_source_that_breaks_its_promise_is_followed_by_the_next(lab, tmp_path):
    lost = sorted(lab.live)[:3]
    lab.lose(*lost)
    bad = tmp_path / "bad"
    shutil.copytree(lab.cache, bad)
    for nar in (bad / "nar").iterdir():
        nar.write_bytes(nar.read_bytes()[:40])
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline", "--from", f"file://{bad}")
    assert code == 0, said
    lab.assert_sound()


def test_bytes_of_another_path_are_not_taken(lab, tmp_path):
    """A signed narinfo whose NAR was exchanged, and an unsigned one whose hash fits the exchanged NAR."""
    lost = min(lab.live)
    lab.lose(lost)
    evil = tmp_path / "evil"
    shutil.copytree(lab.cache, evil)
    other = next(evil.glob(f"{Path(sorted(lab.live)[1]).name[:32]}.narinfo")).read_text()
    mine = next(evil.glob(f"{Path(lost).name[:32]}.narinfo"))
    fields = dict(line.split(": ", 1) for line in other.splitlines())
    lines = [
        f"{name}: {fields[name]}"
        if (name := line.split(":")[0]) in ("URL", "NarHash", "NarSize", "FileHash", "FileSize")
        else line
        for line in mine.read_text().splitlines()
    ]
    mine.write_text("\n".join(lines) + "\n")
    code, said = lab.run(
        "repair", "--yes", "--no-rebuild", "--offline", "--from", f"file://{evil}", cache=False
    )
    assert code == 1
    assert not os.path.lexists(lost)
    assert "not signed by a trusted key" in said
    # Without checks the wrong bytes are still told from the registered ones, and named as a loss.
    code, said = lab.run(
        "plan", "--no-rebuild", "--offline", "--no-check-sigs", "--from", f"file://{evil}", cache=False
    )
    assert "with another hash than was registered" in said


def test_a_symlink_in_the_place_of_a_path_is_replaced_not_followed(lab, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("keep\n")
    path = Path(min(lab.live))
    lab.lose(str(path))
    path.symlink_to(outside)
    code, said = lab.run("repair", "--yes", "--contents", "--no-rebuild", "--offline")
    assert code == 0, said
    assert not path.is_symlink()
    assert (outside / "mine").read_text() == "keep\n"
    lab.assert_sound()


def test_undo_after_a_repair_and_after_the_same_plan_again(lab, tmp_path):
    path = min(lab.live)
    lab.rewrite(f"{path}/f", b"damaged\n")
    rows = lab.rows("select * from ValidPaths order by id")
    plan = tmp_path / "plan.json"
    assert lab.run("plan", "-o", plan, "--contents", "--no-rebuild", "--offline")[0] == 1
    for _ in range(2):
        code, said = lab.run("apply", plan, "--offline")
        assert code == 0, said
        code, said = lab.run("apply", plan, "--offline")
        assert code == 0, f"a plan that is done already is no error\n{said}"
        assert digest(path).nar_hash == dict(lab.rows("select path, hash from ValidPaths"))[path]
        code, said = lab.run("undo")
        assert code == 0, said
        assert lab.rows("select * from ValidPaths order by id") == rows
    assert lab.run("undo")[0] == 2, "there is nothing left to undo"
    lab.assert_sound()


def test_a_garbage_collection_that_slips_in_before_a_rebuild_is_waited_for(lab, tmp_path):
    """Changing a lock from exclusive to shared gives it away for a moment (flock(2))."""
    lost = min(lab.live)
    lab.lose(lost)
    holder = subprocess.Popen(
        ["flock", "--exclusive", lab.nix.state / "gc.lock", "sleep", "1"], stdin=subprocess.DEVNULL
    )
    code, said = lab.run("repair", "--yes", "--offline", "--wait", "30", cache=False)
    holder.wait(30)
    assert code == 0, said
    lab.assert_sound()


def test_ctrl_c_ends_a_slow_download_at_once(lab, tmp_path):
    lost = min(lab.live)
    lab.lose(lost)
    files = {
        str(place.relative_to(lab.cache)): place.read_bytes()
        for place in lab.cache.rglob("*")
        if place.is_file()
    }
    server = Server(files)
    begun = threading.Event()

    def drip(handler):
        body = files[handler.path.removeprefix("/cache/")]
        answer(handler, 200, body[:64], length=len(body))
        begun.set()
        for byte in body[64:]:
            time.sleep(0.2)
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                return

    server.faults[".nar.xz"] = drip
    # A shell has what it runs in the background ignore SIGINT, and tests may run there.
    words = ["-m", "kingpost.storefix", "repair", "--yes", "--no-rebuild", "--offline", "--from"]
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, *words, server.url],
        env=lab.nix.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert begun.wait(30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        server.close()
    assert process.returncode == 130
    assert "what was done stays done" in said
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    lab.assert_sound()
