"""Real kills: a unit under a real systemd, a job's container of a real Docker, and the pods that kubectl prints."""

from __future__ import annotations

import subprocess
import time
import tomllib

import pytest
from tests.real.conftest import require, require_root
from tests.real.kube_api import Cluster, kubectl_words, pod, serving
from tests.real.machine import Machine
from tests.real.tls_servers import Authority
from tests.real.world import World

from kingpost.observe.entering import Entrance
from kingpost.observe.pressure import Scope, examine, from_journal
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

pytestmark = pytest.mark.xdist_group("network")

TOPOLOGY = """
site = { name = "s", substituters = [] }
[hosts.node1]
memory = "4GiB"
docker = { bip = "172.17.0.1/16", pools = [{ base = "172.20.0.0/16", size = 24 }] }
[gitlab.lab]
url = "http://127.0.0.1:1"
[runners.blog]
executor = "docker"
host = "node1"
image = "dialler:kp"
memory_per_job = "32MiB"
concurrency = 2
[limits.atticd]
host = "node1"
unit = "atticd.service"
memory_max = "48MiB"
[limits.calm]
host = "node1"
unit = "calm.service"
memory_max = "64MiB"
"""
HOG = "import time\nheld = []\nwhile True:\n    held.append(bytearray(1 << 20))\n    time.sleep(0.001)\n"
UNIT = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/env {command}\nMemoryMax={limit}\n"
FILES = {
    "/etc/hog.py": HOG,
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/systemd/system/atticd.service": UNIT.format(command="python3 /etc/hog.py", limit="48M"),
    "/etc/systemd/system/calm.service": UNIT.format(command="sleep 100000", limit="64M"),
}


def platform_of(text=TOPOLOGY):
    return Platform(Topology.model_validate(tomllib.loads(text)))


def eat(docker):
    """Run a job that needs more than it may have; gives its container, which stays."""
    run = ["run", "-d", "--network", "none", "--memory", "32m", "--memory-swap", "32m",
           "--label", "com.gitlab.gitlab-runner.type=build", "-e", "CI_JOB_TOKEN=not-a-real-token"]  # fmt: skip
    command = ["dialler:kp", "sh", "-c", "x=a; while :; do x=$x$x; done"]
    done = subprocess.run([*docker, *run, *command], capture_output=True, text=True, check=True)
    subprocess.run([*docker, "wait", done.stdout.strip()], capture_output=True, check=True, timeout=30)
    return done.stdout.strip()


def wait_for_kill(machine, unit):
    for _ in range(100):
        if (
            machine.run("systemctl", "show", unit, "--property=ActiveState").stdout.strip()
            == "ActiveState=failed"
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"{unit} was not killed")


def test_real_kills_are_mapped_to_what_the_topology_declares(tmp_path):
    require_root()
    for name in ("docker", "netns", "systemd"):
        require(name)
    platform = platform_of()
    with World(platform) as world, Machine(tmp_path / "m", world.enter("h-node1"), FILES) as machine:
        machine.run("hostname", "node1")
        machine.run("sh", "-c", "mkdir -p /run/log/journal && systemctl start systemd-journald.service calm")
        machine.run("systemctl", "start", "atticd")
        wait_for_kill(machine, "atticd")
        eat(world.docker("node1"))
        journal = tmp_path / "journal"
        journal.write_text(machine.run("journalctl", "--no-pager", "-o", "json", "--since=-2min").stdout)
        entrance = Entrance(platform, None, {"host:node1": machine.way}, docker=world.docker("node1"))
        verdicts = examine(platform, entrance, Scope(since=120.0))
    assert "not-a-real-token" not in str(verdicts)
    seen = {v.subject: v for v in verdicts}
    limit = seen["node1: atticd.service"]
    assert limit.code == "KP-OOM-LIMIT"
    job = next(v for v in verdicts if v.code == "KP-OOM-JOB")
    assert limit.evidence["limit_bytes"] == limit.evidence["declared_bytes"] == 48 << 20
    # 4 GiB less 512 MiB reserve, 48 + 64 + 2 * 32 MiB: 3408 MiB are left.
    assert (
        limit.remedy == "raise limits.atticd.memory_max from 48MiB to at most 3456MiB: the budget allows it"
    )
    assert (
        job.remedy == "raise runners.blog.memory_per_job from 32MiB to at most 1736MiB: the budget allows it"
    )
    assert seen["node1: calm.service"].code == "KP-MEMORY-OK"
    assert 0 < seen["node1: calm.service"].evidence["peak_bytes"] < 64 << 20
    assert seen["node1: budget"].code == "KP-BUDGET-OK"
    assert seen["node1: memory pressure"].code.startswith("KP-PSI-")
    assert "images" in seen["node1: Docker"].summary
    assert any(v.code.startswith("KP-DISK-") and v.subject == "node1: /" for v in verdicts)

    [again] = [v for v in from_journal(platform, journal, "node1") if v.subject == "node1: atticd.service"]
    assert again.code == "KP-OOM-LIMIT"


def test_dead_weight_of_a_real_store(nix):
    (nix.root / "file").write_text("x" * 100_000)
    for name in ("a", "b"):
        expression = f'builtins.toFile "{name}" "{name * 50000}"'
        nix.run("nix-instantiate", "--eval", "--read-write-mode", "-E", expression)
    from kingpost.observe.pressure_disk import _DEAD

    done = subprocess.run(["sh", "-c", _DEAD], env=nix.env, capture_output=True, text=True, check=True)
    paths, size = map(int, done.stdout.split())
    assert paths == 2
    assert 100_000 < size < 102_000


def test_pods_as_the_real_kubectl_prints_them(tmp_path):
    kubectl = str(require("kubectl") / "kubectl")
    text = TOPOLOGY.replace(
        'docker = { bip = "172.17.0.1/16", pools = [{ base = "172.20.0.0/16", size = 24 }] }', ""
    )
    text = text.partition("[gitlab.lab]")[0] + '[clusters.k3s]\nhost = "node1"\n'
    platform = platform_of(text)
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    app = pod("blog", "app-1", containerStatuses=[
        {"name": "app", "restartCount": 4, "lastState": killed, "state": {"running": {}}},
        {"name": "side", "restartCount": 0, "lastState": {}, "state": {"running": {}}},
    ])  # fmt: skip
    app["spec"]["containers"][0]["env"] = [{"name": "T", "value": "not-a-real-token"}]
    authority = Authority(tmp_path / "authority")
    configz = {"kubeletconfig": {"evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%"}}}
    with serving(Cluster([app], configz=configz), authority) as url:
        entrance = Entrance(platform, "node1", kubectl=kubectl_words(kubectl, url, authority, tmp_path))
        verdicts = examine(platform, entrance, Scope(since=1.0, dead=False))
    [verdict] = [v for v in verdicts if v.code == "KP-OOM-POD" and "app-1" in v.subject]
    assert verdict.summary == "container app of blog/app-1 was OOMKilled; it was restarted 4 times"
    [memory] = [v for v in verdicts if v.subject == "node1: memory for pods"]
    assert "memory.available<1Mi, where" in memory.summary, "the kubelet's own word, not the default"
    assert "not-a-real-token" not in str(verdicts)
