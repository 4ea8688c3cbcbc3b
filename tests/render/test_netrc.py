from __future__ import annotations

import pytest

from kingpost.render.netrc import NetrcLine, netrc_lines
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform


def lines(tokens, secrets=("r", "w"), host="box", **cache):
    topology = Topology.model_validate(
        {
            "site": {"name": "x", "substituters": ["attic:home/main"]},
            "hosts": {"box": {"memory": "8GiB"}},
            "attic": {
                "home": {
                    "host": "box",
                    "port": 8080,
                    "caches": {"main": {"public": False, **cache}},
                    "tokens": tokens,
                },
            },
            "secrets": {name: {"provider": "agenix", "format": "raw"} for name in secrets}
            | {"elsewhere": {"provider": "agenix", "hosts": ["other"]}},
        }
    )
    platform = Platform(topology)
    return netrc_lines(platform, host, platform.cache_uses(f"host:{host}"))


@pytest.mark.parametrize(
    ("tokens", "secret"),
    [
        ({"a": {"pull": ["main"], "secret": "r"}}, "r"),
        ({"a": {"pull": ["*"], "secret": "r"}}, "r"),
        ({"a": {"pull": ["*"], "push": ["*"], "secret": "w"}, "b": {"pull": ["main"], "secret": "r"}}, "r"),
        ({"a": {"pull": ["*"], "push": ["main"], "secret": "w"}}, None),
        ({"a": {"pull": ["other"], "secret": "r"}}, None),
        ({"a": {"pull": ["main"]}}, None),
        ({"a": {"pull": ["main"], "secret": "elsewhere"}}, None),
        ({}, None),
    ],
)
def test_the_weakest_token_that_may_pull(tokens, secret):
    assert lines(tokens) == ((NetrcLine("127.0.0.1", secret),) if secret else ())


def test_a_public_cache_needs_none():
    assert lines({"a": {"pull": ["main"], "secret": "r"}}, public=True) == ()
