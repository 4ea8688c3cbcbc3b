"""Every kind of damage, singly, on stores that real Nix built; afterwards real Nix finds nothing wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real.conftest import NIX_VERSIONS, Nix, require
from tests.storefix.lab import Lab


@pytest.fixture(scope="module", params=list(NIX_VERSIONS))
def built(request, tmp_path_factory):
    nix = Nix(request.param, require(NIX_VERSIONS[request.param]), tmp_path_factory.mktemp("lab") / "nix")
    return Lab(nix)


@pytest.fixture
def lab(built):
    built.reset()
    return built


def test_healthy_store_is_left_alone(lab):
    assert lab.run("scan")[0] == 0
    assert lab.run("scan", "--contents")[0] == 0
    code, said = lab.run("repair", "--yes")
    assert code == 0, said
    lab.assert_sound()


def test_one_lost_path(lab):
    lab.lose(lab.paths["n0"])
    assert lab.run("scan")[0] == 1
    code, said = lab.run("repair", "--yes", "--contents")
    assert code == 0, said
    lab.assert_sound()


def test_everything_lost(lab):
    lab.lose(*lab.paths.values())
    code, said = lab.run("repair", "--yes")
    assert code == 0, said
    lab.assert_sound()


def test_lost_without_any_source_and_dead(lab):
    dead = sorted(set(lab.paths.values()) - lab.live)
    assert dead
    lab.lose(*dead)
    code, said = lab.run("repair", "--yes", "--offline", "--no-rebuild", cache=False)
    assert code == 0, said
    lab.assert_sound()


def test_lost_without_a_cache_is_rebuilt(lab):
    lab.lose(*sorted(lab.live))
    code, said = lab.run("repair", "--yes", "--offline", cache=False)
    assert code == 0, said
    lab.assert_sound()


def test_truncated_file(lab):
    lab.rewrite(lab.paths["n1"] + "/f", b"")
    assert lab.run("scan")[0] == 0
    code, said = lab.run("scan", "--contents")
    assert code == 1
    assert "of no bytes: f" in said
    code, said = lab.run("repair", "--yes", "--contents")
    assert code == 0, said
    lab.assert_sound()
