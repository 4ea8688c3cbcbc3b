"""How doctor takes what a way gives back; that ways lead somewhere is shown in tests/real/test_doctor.py."""

from __future__ import annotations

import json
import tomllib

import pytest

from kingpost.base.process import Completed
from kingpost.observe import doctor, dropping, looking
from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.docker import RunningContainer
from kingpost.observe.executors.interface import Over
from kingpost.observe.executors.local import Here
from kingpost.observe.executors.ssh import DroppedError, Ssh, raise_if_dropped
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


def says(text):
    """Give a host that answers every question so."""

    def host(_argv, *, stdin, **_):
        mark = stdin.partition("mark=")[2].split("\n")[0]
        return Completed((), 0, f"{mark} begin switch\n{text}\n{mark} end 0 \n", "")

    return host


@pytest.fixture
def codes(monkeypatch):
    """Give the codes of a walk whose visits are answered in turn."""

    def give(*answers, host=None):
        left = list(answers)
        good = Completed((), 0, json.dumps({"results": [ANSWER]}), "")
        monkeypatch.setattr(dropping, "WAITS", (0.0, 0.0))
        monkeypatch.setattr(doctor, "run", lambda *_, **__: left.pop(0) if left else good)
        monkeypatch.setattr(looking, "run", host or says(""))
        platform = Platform(Topology.model_validate(tomllib.loads(TOPOLOGY)))
        walk = Walk(frozenset({"host:a"}), frozenset({"attic:home"}))
        found = examine(platform, Entrance(platform, None, {"host:a": Ssh("a")}), walk)
        return sorted(v.code for v in found)  # of both dialers, which ask at the same time

    return give


@pytest.mark.parametrize(
    "said",
    ["switch its lock is held", "switch nixos-rebuild-switch-to-configuration.service runs", "system 40"],
)
def test_a_connection_that_drops_in_a_switch_is_expected(codes, said):
    assert codes(DROP, host=says(said)) == ["KP-CONTEXT-DROPPED", "KP-ROUTE-OK", "KP-ROUTE-OK"]


@pytest.mark.parametrize(
    "said",
    ["", "system 4000", "system x", "up 0", "started tailscaled.service 0", "started sshd.service 900"],
)
def test_one_that_drops_without_a_switch_is_not(codes, said):
    assert codes(DROP, host=says(said)) == ["KP-CONTEXT-UNSTABLE", "KP-ROUTE-OK", "KP-ROUTE-OK"]


def test_one_whose_host_cannot_say_why_is_not(codes):
    assert codes(DROP, host=lambda *_, **__: REFUSED) == ["KP-CONTEXT-UNSTABLE", "KP-ROUTE-OK", "KP-ROUTE-OK"]


def test_a_host_that_stays_away_is_skipped(codes):
    assert codes(*[DROP] * 6) == ["KP-CONTEXT-NOT-ENTERED"] * 2


@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host a port 22: Connection refused",
        "kex_exchange_identification: Connection closed by remote host",
        "kex_exchange_identification: read: Connection reset by peer",
        "Host key verification failed.",
    ],
)
def test_a_connection_that_never_was_is_no_drop(codes, said):
    assert codes(*[Completed((), 255, "", said)] * 2) == ["KP-CONTEXT-NOT-ENTERED"] * 2


def test_only_ssh_drops():
    """A program in a container may end with 255 and these words too."""
    ssh, here = Ssh("a"), Here()
    with pytest.raises(DroppedError):
        raise_if_dropped(Over(ssh, RunningContainer("c")), DROP)
    raise_if_dropped(here, DROP)
    raise_if_dropped(Over(here, RunningContainer("c")), DROP)
    raise_if_dropped(ssh, Completed((), 1, "", DROP.stderr))
