"""What `kingpost pressure` says of the kills that a machine of checks/memory-limits recorded: journals/README.md."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from kingpost.observe.looking import Answer
from kingpost.observe.oom_log import kills
from kingpost.observe.pressure import from_journal
from kingpost.observe.pressure_kills import judge
from kingpost.render.nix_hosts import by_host
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

RECORDED = Path(__file__).parent / "journals" / "vm"
MIB = 1 << 20
FORMS = ("journal.json", "journal.short", "journal.short-iso")

# The limits of checks/memory-limits.nix, and a docker runner whose jobs have the small container's.
TOPOLOGY = """
[site]
name = "check"

[hosts.machine]
memory = "1536MiB"
reserve = "256MiB"
docker = {}

[runners.ci]
executor = "docker"
host = "machine"
image = "scratch"
memory_per_job = "32MiB"
token = "runner"

[secrets.runner]
provider = "path"
path = "/run/runner"
format = "raw"

[limits.hungry]
host = "machine"
unit = "hungry.service"
memory_max = "64MiB"

[limits.jobs]
host = "machine"
unit = "jobs.slice"
memory_max = "96MiB"

[limits.daemon]
host = "machine"
unit = "nix-daemon.service"
memory_max = "384MiB"

[limits.stalling]
host = "machine"
unit = "stalling.service"
memory_high = "48MiB"
oomd = "kill"
"""


@pytest.fixture(scope="module")
def platform():
    return Platform(Topology.model_validate(tomllib.loads(TOPOLOGY)))


@pytest.mark.parametrize("form", FORMS)
def test_every_kill_is_found_with_its_limit(form):
    found = kills((RECORDED / form).read_text().splitlines())
    assert [(kill.by, kill.process, kill.limited, kill.limit_bytes) for kill in found] == [
        ("kernel", "python3", "/system.slice/hungry.service", 64 * MIB),
        ("kernel", "python3", "/jobs.slice", 96 * MIB),
        ("kernel", "python3", found[2].cgroup, 32 * MIB),
        ("kernel", "sh", "/system.slice/nix-daemon.service", 384 * MIB),
        ("systemd-oomd", "", "/system.slice/stalling.service", 0),
    ]
    assert all(kill.host == "machine" and kill.at for kill in found)
    assert found[2].cgroup.startswith("/jobs.slice/docker-")
    assert found[1].cgroup != found[2].cgroup


def test_dmesg_knows_of_the_kernels_kills_alone():
    found = kills((RECORDED / "dmesg").read_text().splitlines())
    assert [kill.process for kill in found] == ["python3", "python3", "python3", "sh"]


@pytest.mark.parametrize("form", FORMS)
def test_the_verdicts_name_who_was_killed_and_the_declared_limit_that_was_reached(platform, form):
    verdicts = from_journal(platform, RECORDED / form, None)
    found = [(one.code, one.subject.removeprefix("machine: "), one.evidence["declared"]) for one in verdicts]
    assert found == [
        ("KP-OOM-LIMIT", "hungry.service", "limits.hungry.memory_max"),
        ("KP-OOM-LIMIT", found[1][1], "limits.jobs.memory_max"),
        ("KP-OOM-JOB", found[2][1], "runners.ci.memory_per_job"),
        ("KP-OOM-LIMIT", "nix-daemon.service", "limits.daemon.memory_max"),
        ("KP-OOM-OOMD", "stalling.service", ""),
    ]
    assert found[1][1].startswith("container ")
    assert found[2][1].startswith("container ")
    # 1536 MiB less the reserve and all that is promised, beside what it has already
    assert "from 384MiB to at most 1088MiB" in verdicts[3].remedy
    assert "79.93% > 60.00% for > 5s" in verdicts[4].summary


def test_what_the_control_groups_count_when_the_log_is_gone(platform):
    on = by_host(platform)["machine"]
    counters = {}
    for line in (RECORDED / "memory.events").read_text().splitlines():
        group, file, *words = line.split()
        unit = group.rpartition("/")[2]
        text = "=".join(words) if file == "memory.events" else f"{file.removeprefix('memory.')}={words[0]}"
        counters[unit] = f"{counters.get(unit, 'LoadState=loaded')}\n{text}"
    answers = {f"memory {unit}": Answer(0, text) for unit, text in counters.items()}
    answers["oom log"] = Answer(0, "")
    found = {one.subject.removeprefix("machine: "): one for one in judge(on, answers)}
    assert {name: one.code for name, one in found.items()} == {
        "jobs.slice": "KP-OOM-COUNTED",
        "nix-daemon.service": "KP-OOM-COUNTED",
    }
    assert found["jobs.slice"].evidence["oom_kill"] == 2
    assert found["nix-daemon.service"].evidence["oom_kill"] == 1
