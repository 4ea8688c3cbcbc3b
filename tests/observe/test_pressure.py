"""Whose a kill was and what the budget allows; tests/real/test_pressure.py makes real kills."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.base.errors import UsageError
from kingpost.observe import pressure_disk, pressure_kills, pressure_memory
from kingpost.observe.looking import Answer
from kingpost.observe.oom_log import Kill
from kingpost.observe.pressure import from_journal
from kingpost.observe.pressure_owner import Running, owner_of
from kingpost.render.nix_hosts import by_host
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

JOURNALS = Path(__file__).parent / "journals"
HOMELAB = (Path(__file__).parents[2] / "examples" / "homelab" / "topology.toml").read_text()
GIB, MIB = 1 << 30, 1 << 20
CONTAINER = "e2c88709d4667f0816ea901a5ab5863433ae47d9c27c2cef9e7367b229d840ba"
UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
NOTHING = Running({}, {})


def platform_of(text=HOMELAB):
    return Platform(Topology.model_validate(tomllib.loads(text)))


@pytest.fixture(scope="module")
def node1():
    return by_host(platform_of())["node1"]


OWNERS = {
    "/system.slice/atticd.service": ("unit", "atticd.service", "limits.atticd.memory_max", 1 * GIB, 1536 * MIB),
    "/kingpost-test-1-2/system.slice/nix-daemon.service": (
        "unit", "nix-daemon.service", "limits.nix-daemon.memory_max", 1536 * MIB, 2 * GIB),
    "/system.slice/k3s.service": ("unit", "k3s.service", "clusters.k3s.memory_max", 2 * GIB, 2560 * MIB),
    "/system.slice/etcd.service": ("unit", "etcd.service", "", None, None),
    "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service": ("unit", "x.service", "", None, None),
    "/user.slice/user-1000.slice/session-3.scope": ("unit", "session-3.scope", "", None, None),
    f"/system.slice/docker-{CONTAINER}.scope": ("container", f"container {CONTAINER[:12]}", "", None, None),
    "": ("unknown", "a process", "", None, None),
}  # fmt: skip


@pytest.mark.parametrize("cgroup", OWNERS)
def test_whose_a_control_group_is(node1, cgroup):
    owner = owner_of(node1, cgroup, NOTHING)
    assert (owner.kind, owner.name, owner.declared, owner.limit, owner.allowed) == OWNERS[cgroup]


def test_a_unit_in_a_limited_slice_is_bound_by_the_slice():
    text = HOMELAB + '\n[limits.builds]\nhost = "node1"\nunit = "builds.slice"\nmemory_max = "512MiB"\n'
    owner = owner_of(by_host(platform_of(text))["node1"], "/builds.slice/nightly.service", NOTHING)
    assert (owner.name, owner.declared) == ("nightly.service", "limits.builds.memory_max")


def test_a_jobs_container_is_known_by_its_label_or_by_its_limit(node1):
    document = {"id": CONTAINER, "name": "/runner-ab-build", "memory": 1536 * MIB, "job": "build"}
    known = owner_of(node1, f"/docker/{CONTAINER}", Running({CONTAINER: document}, {}))
    assert (known.kind, known.name, known.declared) == (
        "job",
        "runner-ab-build",
        "runners.blog.memory_per_job",
    )
    gone = owner_of(node1, f"/docker/{CONTAINER}", NOTHING, 1536 * MIB)
    assert (gone.kind, gone.declared) == ("job", "runners.blog.memory_per_job")
    assert gone.allowed == 1536 * MIB + GIB // 2  # one job at once: all that is left is its own


POD_SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
PODS = [f"{POD_SLICE}/cri-containerd-{CONTAINER}.scope", f"/kubepods/burstable/pod{UID}/{CONTAINER}"]


@pytest.mark.parametrize("path", PODS)
def test_a_pod_is_known_by_its_uid_in_both_cgroup_drivers(node1, path):
    assert owner_of(node1, path, Running({}, {UID: "blog/comments-7d9"})).name == "blog/comments-7d9"
    assert owner_of(node1, path, NOTHING).name == f"pod {UID}"


def test_a_limit_that_was_not_deployed_is_said_before_any_raise():
    [verdict] = from_journal(platform_of(), JOURNALS / "unit.json", None)
    assert (verdict.code, verdict.subject) == ("KP-OOM-LIMIT", "node1: atticd.service")
    assert verdict.remedy.startswith(
        "48MiB was in effect, and limits.atticd.memory_max is 1GiB: deploy first"
    )
    assert verdict.evidence["limit_bytes"] == 48 * MIB


def test_the_advice_is_bounded_by_the_budget():
    text = HOMELAB.replace('memory_high = "768MiB"\nmemory_max = "1GiB"', 'memory_max = "48MiB"')
    [verdict] = from_journal(platform_of(text), JOURNALS / "unit.json", None)
    assert "from 48MiB to at most 1536MiB" in verdict.remedy
    full = text.replace('memory = "8GiB"', 'memory = "6GiB"')
    [verdict] = from_journal(platform_of(full), JOURNALS / "unit.json", None)
    assert "nothing left" in verdict.remedy


def test_a_journal_of_an_unknown_host_is_asked_about():
    with pytest.raises(UsageError, match="does not name"):
        from_journal(platform_of(), JOURNALS / "container.dmesg", None)
    [verdict] = from_journal(platform_of(), JOURNALS / "container.dmesg", "node1")
    assert verdict.subject == "node1: container e2c88709d466"


def test_a_journal_without_kills(tmp_path):
    (tmp_path / "j").write_text("Nov 21 10:00:00 node1 kernel: hello\n")
    [verdict] = from_journal(platform_of(), tmp_path / "j", "node1")
    assert verdict.code == "KP-OOM-NONE"


def test_many_kills_of_one_owner_are_one_verdict(node1):
    def kill(at, **other):
        return Kill(
            "kernel", "/system.slice/atticd.service", "/system.slice/atticd.service", "atticd", at=at, **other
        )

    found = [
        kill("1"),
        kill("2"),
        kill("3"),
        Kill("kernel", "/system.slice/etcd.service", "", "etcd", at="4"),
    ]
    found.append(Kill("systemd-oomd", "/system.slice/atticd.service", why="due to memory pressure"))
    verdicts = list(pressure_kills.of_kills(node1, found, NOTHING))
    assert [(v.code, v.evidence["times"], v.evidence["at"]) for v in verdicts] == [
        ("KP-OOM-LIMIT", 3, "3"), ("KP-OOM-HOST", 1, "4"), ("KP-OOM-OOMD", 1, ""),
    ]  # fmt: skip
    assert verdicts[1].remedy == "declare a limit for etcd.service, which has none"


def answers(**texts):
    return {name.replace("__", " "): Answer(0, text) for name, text in texts.items()}


def test_what_the_engines_remember_when_the_log_is_gone(node1):
    document = {
        "id": CONTAINER, "name": "/runner-ab-build", "oom": True, "exit": 137, "at": "2026-11-21T19:23:13Z",
        "memory": 1536 * MIB, "job": "build",
    }  # fmt: skip
    cancelled = {**document, "id": "f" * 64, "name": "/runner-cd-build", "oom": False}
    pods = f"blog/comments-7d9\t{UID}\tapp,OOMKilled,,7\tside,,,0\nblog/fine-1\tu\tapp,,,0\n"
    found = answers(
        oom__log="", containers=f"{json.dumps(document)}\n{json.dumps(cancelled)}\n", pods=pods,
        **{"memory atticd.service": "LoadState=loaded\noom_kill=2\n"},
    )  # fmt: skip
    verdicts = {v.subject: v.code for v in pressure_kills.judge(node1, found)}
    assert verdicts == {
        "node1: runner-ab-build": "KP-OOM-JOB",
        "node1: blog/comments-7d9": "KP-OOM-POD",
        "node1: atticd.service": "KP-OOM-COUNTED",
    }


def test_no_log_is_no_proof_that_nothing_was_killed(node1):
    broken = {"oom log": Answer(1, "", "Permission denied"), "pods": Answer(0, "")}
    assert [v.code for v in pressure_kills.judge(node1, broken)] == ["KP-PRESSURE-NOT-ASKED"]


PRESSURE = """/proc/pressure/memory:some avg10=80.00 avg60=70.00 avg300=40.00 total=39690000
/proc/pressure/memory:full avg10=60.00 avg60=55.50 avg300=30.00 total=4420000
/proc/pressure/io:some avg10=1.00 avg60=2.00 avg300=0.10 total=1
/proc/pressure/io:full avg10=1.00 avg60=1.00 avg300=0.00 total=1
"""


def memory(on, **changed):
    texts = {
        "pressure": PRESSURE, "meminfo": f"MemTotal: {8 * 1024 * 1024 - 99} kB\nSwapTotal: {2 * 1024 * 1024} kB\n",
        "memory atticd.service": f"LoadState=loaded\nMemoryMax={GIB}\nMemoryCurrent={GIB // 2}\npeak={GIB - 4096}\n",
        "memory nix-daemon.service": f"LoadState=loaded\nMemoryMax={3 * GIB // 2}\nMemoryPeak={GIB}\n",
        "memory k3s.service": f"LoadState=loaded\nMemoryMax={2 * GIB}\nMemoryCurrent=18446744073709551615\n",
        "memory sshd.service": "LoadState=loaded\nMemoryMax=infinity\n", **changed,
    }  # fmt: skip
    return {v.subject.removeprefix("node1: "): v.code for v in pressure_memory.judge(on, answers(**texts))}


def test_pressure_use_and_budget(node1):
    assert memory(node1) == {
        "memory pressure": "KP-PSI-HIGH",
        "io pressure": "KP-PSI-OK",
        "atticd.service": "KP-MEMORY-NEAR",
        "nix-daemon.service": "KP-MEMORY-OK",
        "budget": "KP-BUDGET-OK",
    }


def test_a_smaller_host_and_limits_that_are_not_in_effect(node1):
    found = memory(node1, **{
        "meminfo": "MemTotal: 4000000 kB\nSwapTotal: 0 kB\n",
        "memory atticd.service": "LoadState=loaded\nMemoryMax=infinity\n",
    })  # fmt: skip
    assert found["memory"] == found["swap"] == "KP-BUDGET-HOST"
    assert found["atticd.service"] == "KP-BUDGET-UNLIMITED"
    assert found["budget"] == "KP-BUDGET-OVER"


def test_a_limit_that_was_raised_on_the_host_breaks_the_budget(node1):
    raised = {"memory nix-daemon.service": f"LoadState=loaded\nMemoryMax={4 * GIB}\nMemoryPeak={GIB}\n"}
    assert memory(node1, **raised)["budget"] == "KP-BUDGET-OVER"


# `df -PkT` and `df -Pi` of GNU coreutils 9.1.
SPACE = """Filesystem     Type     1024-blocks      Used Available Capacity Mounted on
/dev/vda       ext4       100000000  90000000   8000000      92% /
tmpfs          tmpfs        4000000         0   4000000       0% /tmp
/dev/vda       ext4       100000000  90000000   8000000      92% /nix/store
/dev/vdb1      vfat          500000    100000    400000      20% /boot with blank
overlay        overlay    100000000  90000000   8000000      92% /var/lib/docker/x
"""
INODES = """Filesystem      Inodes   IUsed   IFree IUse% Mounted on
/dev/vda       1000000  980000   20000   98% /
/dev/vdb1            0       0       0     - /boot with blank
"""


def disks(on, **texts):
    found = answers(space=SPACE, inodes=INODES, **texts)
    found["docker space"] = Answer(1, "", "no docker")
    return {v.subject.removeprefix("node1: "): v for v in pressure_disk.judge(on, found, dead=False)}


def test_disks_with_the_threshold_that_comes_next(node1):
    found = disks(node1)
    assert {name: v.code for name, v in found.items()} == {
        "/": "KP-DISK-OK", "/ inodes": "KP-DISK-INODES", "/boot with blank": "KP-DISK-OK",
        "Docker": "KP-PRESSURE-NOT-ASKED",
    }  # fmt: skip
    low = disks(node1, **{"min-free": str(9_000_000 * 1024)})["/"]
    assert low.code == "KP-DISK-LOW"
    assert "Nix's min-free" in low.summary


STOCK = HOMELAB.replace("[clusters.k3s]\n", '[clusters.k3s]\ndistribution = "kubernetes"\n')


def test_the_kubelets_threshold_is_that_of_its_distribution(node1):
    k3s = [one["who"] for one in disks(node1)["/"].evidence["thresholds"]]
    assert [who.partition(" ")[2].partition(",")[0] for who in k3s if "kubelet" in who] == [
        "kubelet's nodefs.available<5%", "kubelet's imagefs.available<5%",
    ]  # fmt: skip
    found = disks(by_host(platform_of(STOCK))["node1"])["/"]
    assert found.code == "KP-DISK-LOW"
    assert "imagefs.available<15%, by default" in found.summary  # the larger of the two that it is below


def test_the_kubelets_own_word_wins():
    """`evictionHard` as a kubelet gives it by configz; a table of its own takes every default away."""
    on = by_host(platform_of(STOCK))["node1"]
    configz = '{"kubeletconfig": {"evictionHard": {"nodefs.available": "12Gi", "memory.available": "5%"}}}'
    found = disks(on, kubelet=configz)["/"]
    assert found.code == "KP-DISK-LOW"
    assert "nodefs.available<12Gi, where" in found.summary
    assert "imagefs" not in str(found.evidence)
    assert disks(on, kubelet='{"kubeletconfig": {}}')["/"].code == "KP-DISK-OK"
    assert disks(on, kubelet="nonsense")["/"].code == "KP-DISK-LOW"


@pytest.mark.parametrize(
    ("text", "mib", "code", "words"),
    [
        (STOCK, 400, "KP-MEMORY-OK", "memory.available<100Mi, by default"),
        (STOCK, 90, "KP-MEMORY-EVICTION", "memory.available<100Mi"),
        (HOMELAB, 90, "KP-MEMORY-OK", "evicts nothing for memory"),
    ],
)
def test_how_far_it_is_to_an_eviction_for_memory(text, mib, code, words):
    on = by_host(platform_of(text))["node1"]
    meminfo = (
        f"MemTotal: {8 * 1024 * 1024} kB\nSwapTotal: {2 * 1024 * 1024} kB\nMemAvailable: {mib * 1024} kB\n"
    )
    found = {v.subject: v for v in pressure_memory.judge(on, answers(meminfo=meminfo))}
    assert found["node1: memory for pods"].code == code
    assert words in found["node1: memory for pods"].summary


def test_df_of_busybox_has_no_types():
    text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
    text += "/dev/sda1 1000 500 500 50% /\ntmpfs 9 0 9 0% /tmp\n"
    assert [mount.path for mount in pressure_disk.mounts(text, "")] == ["/"]


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_output_of_df_breaks_the_reader(space, inodes):
    pressure_disk.mounts(f"head\n{space}", f"head\n{inodes}")


def test_dead_weight(node1):
    found = answers(space=SPACE, inodes=INODES, **{"dead paths": f"12 {3 * GIB}\n"})
    [verdict] = [v for v in pressure_disk.judge(node1, found, dead=True) if v.subject == "node1: Nix store"]
    assert (verdict.evidence["dead_bytes"], "3.00 GiB in 12 paths" in verdict.summary) == (3 * GIB, True)
