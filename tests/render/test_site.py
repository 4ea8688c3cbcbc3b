"""The whole tree of a fleet: in two processes the same as in one."""

import tomllib

import pytest
from benchmarks._fleet import fleet

from kingpost.base import beside
from kingpost.render import site
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform


def platform() -> Platform:
    return Platform(Topology.model_validate(tomllib.loads(fleet(50))))


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr(beside, "_processors", lambda: 2)


def test_two_processes_render_what_one_does(monkeypatch):
    in_two = site.render_site(platform())
    monkeypatch.setattr(site, "FLEET", site.FLEET + 1)
    in_one = site.render_site(platform())
    assert in_two == in_one
    assert list(in_two) == list(in_one)
