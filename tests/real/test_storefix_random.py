"""Damage of all kinds in random combinations on random closures: afterwards the store is sound, says real Nix.

KINGPOST_EXAMPLES sets the number of examples for each store (default 3); `make soak` takes many more. KINGPOST_SEEDS
names the closures that are damaged (default "1 2").
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.real.conftest import NIX_VERSIONS, Nix, require
from tests.storefix.lab import Lab

EXAMPLES = int(os.environ.get("KINGPOST_EXAMPLES", "3"))
SEEDS = tuple(map(int, os.environ.get("KINGPOST_SEEDS", "1 2").split()))


@pytest.fixture(
    scope="module", params=[(version, seed) for version in NIX_VERSIONS for seed in SEEDS], ids=str
)
def lab(request, tmp_path_factory):
    version, seed = request.param
    nix = Nix(version, require(NIX_VERSIONS[version]), tmp_path_factory.mktemp("random") / "nix")
    return Lab(nix, size=18 - 4 * (seed % 2), seed=seed)


FORGET_ALL_ABOVE = """
create temp table g as with recursive r(id) as (
    select id from ValidPaths where path = ? union select referrer from Refs join r on reference = r.id
) select id from r
"""


def forget_row(lab, path, _):
    """Deregister a path in a way that foreign keys allow: with all that refers to it."""
    lab.sql(
        (FORGET_ALL_ABOVE, path),
        ("delete from Refs where referrer in (select id from g)",),
        ("delete from ValidPaths where id in (select id from g)",),
        keys=True,
    )


def truncate(lab, path, _):
    if os.path.lexists(path + "/f"):
        lab.rewrite(path + "/f", b"")


def lose_derivation(lab, _, pick):
    drvs = sorted(map(str, Path(lab.nix.store).glob("*.drv")), key=lambda drv: Path(drv).name[32:])
    lab.lose(*drvs[pick % 7 : pick % 7 + 1])


def leave_partial_copy(lab, path, _):
    lab.lose(path)
    lab.sql(("delete from ValidPaths where path = ?", path))
    Path(path).mkdir()


def add_foreign_row(lab, _, pick):
    path = f"/elsewhere/store/{'1' * 32}-x{pick}"
    row = "insert or ignore into ValidPaths (path, hash, registrationTime) values (?, ?, 1)"
    lab.sql((row, path, "sha256:" + "0" * 64))


GHOST = "insert or ignore into Refs select 99999, id from ValidPaths where path = ?"
KINDS = {
    "lose": lambda lab, path, _: lab.lose(path),
    "lose derivation": lose_derivation,
    "truncate": truncate,
    "forget row": forget_row,
    "forget row carelessly": lambda lab, path, _: lab.sql(("delete from ValidPaths where path = ?", path)),
    "references of nobody": lambda lab, path, _: lab.sql((GHOST, path)),
    "junk": lambda lab, _, pick: (lab.nix.store / f"junk-{pick}").write_text("junk"),
    "lock": lambda _, path, __: Path(path + ".lock").write_bytes(b""),
    "no hash": lambda lab, path, _: lab.sql(("update ValidPaths set hash = 'zz' where path = ?", path)),
    "wrong size": lambda lab, path, _: lab.sql(("update ValidPaths set narSize = 7 where path = ?", path)),
    "foreign row": add_foreign_row,
    "partial copy": leave_partial_copy,
}


def damage(lab, chosen):
    lab.reset()
    for kind, pick in chosen:
        # By name and not by hash, which differs with the store's place: an example means the same wherever it runs.
        KINDS[kind](lab, lab.paths[sorted(lab.paths)[pick % len(lab.paths)]], pick)


damages = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 1000)), min_size=1, max_size=8)
options = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    # A usual run has the same examples each time; `make soak`, with more of them, looks for new ones.
    derandomize=EXAMPLES <= 20,
    # Each step of shrinking repairs a store with real Nix: only where time does not matter.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if EXAMPLES > 20 else [])],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(chosen=damages)
@options
def test_with_a_cache_everything_comes_back(lab, chosen):
    damage(lab, chosen)
    code, said = lab.run("repair", "--yes", "--contents")
    assert code == 0, said
    lab.assert_sound()
    assert lab.run("scan", "--contents")[0] == 0


def still_alive(lab, known):
    """What the roots need as far as rows or bytes still tell: nobody can know what a path that is gone needed."""
    nodes = {path: node for node, path in lab.paths.items()}
    found, todo = set(), [lab.paths[root] for root in lab.roots]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            if path in known or Path(path, "inputs").exists():
                todo += [lab.paths[below] for below in lab.edges[nodes[path]]]
    return found


@given(chosen=damages)
@options
def test_without_any_source_nothing_is_lost_unsaid(lab, chosen):
    lab.reset()
    before = {row[0] for row in lab.rows("select path from ValidPaths")}
    damage(lab, chosen)
    known = {row[0] for row in lab.rows("select path from ValidPaths")}
    alive = still_alive(lab, known)
    code, said = lab.run("repair", "--yes", "--contents", "--offline", "--full", cache=False)
    assert code in (0, 1), said
    after = {row[0] for row in lab.rows("select path from ValidPaths")}
    for path in (before & known) - after:
        assert path in said
    for path in alive & known:
        # Alive and registered: still registered, whatever had to be done or left.
        assert path in after, said
    if code == 0:
        lab.assert_sound(lost=frozenset(lab.live - after), gc=False)
    else:
        assert "Left as it is" in said or "This store is damaged" in said
    # What a second run does is nothing: the first came to its end.
    _, said = lab.run("plan", "--json", "--contents", "--offline", "--no-rebuild", cache=False)
    assert not [line for line in said.splitlines() if '"kind": "drop"' in line], said
