from __future__ import annotations

import tomllib

import pytest

from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform


@pytest.fixture
def platform():
    """Make a platform of a TOML text."""

    def make(text: str) -> Platform:
        return Platform(Topology.model_validate(tomllib.loads(text)))

    return make
