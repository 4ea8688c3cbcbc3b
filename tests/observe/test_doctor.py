"""How doctor takes what a way gives back; that ways lead somewhere is shown in tests/real/test_doctor.py."""

from __future__ import annotations

import json
import tomllib

import pytest

from kingpost.base.process import Completed
from kingpost.observe import doctor
from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.ssh import Ssh
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TOPOLOGY = """
site = { name = "s", substituters = [] }
[hosts.a]
memory = "8GiB"
[attic.home]
host = "a"
port = 8080
caches.main.public = true
"""
ANSWER = {"resolve": {}, "connect": {"address": "127.0.0.1", "seconds": 0.01},
          "requests": {"anonymous": {"status": 200, "body": "StoreDir: /nix/store"}}}  # fmt: skip
DROP = Completed((), 255, "", "client_loop: send disconnect: Broken pipe\n")
REFUSED = Completed((), 255, "", "ssh: connect to host a port 22: Connection refused\n")


@pytest.fixture
def codes(monkeypatch):
    """Give the codes of a walk whose visits are answered in turn."""

    def give(*answers):
        left = list(answers)
        good = Completed((), 0, json.dumps({"results": [ANSWER]}), "")
        monkeypatch.setattr(doctor, "COMES_BACK", 0.0)
        monkeypatch.setattr(doctor, "run", lambda *_, **__: left.pop(0) if left else good)
        platform = Platform(Topology.model_validate(tomllib.loads(TOPOLOGY)))
        walk = Walk(frozenset({"host:a"}), frozenset({"attic:home"}))
        found = examine(platform, Entrance(platform, None, {"host:a": Ssh("a")}), walk)
        return sorted(v.code for v in found)  # of both dialers, which ask at the same time

    return give


def test_a_connection_that_drops_once_is_expected(codes):
    assert codes(DROP) == ["KP-CONTEXT-DROPPED", "KP-ROUTE-OK", "KP-ROUTE-OK"]


def test_a_host_that_stays_away_is_skipped(codes):
    assert codes(DROP, DROP, DROP, DROP) == ["KP-CONTEXT-NOT-ENTERED"] * 2


def test_a_refusal_is_no_drop(codes):
    assert codes(REFUSED, REFUSED) == ["KP-CONTEXT-NOT-ENTERED"] * 2
