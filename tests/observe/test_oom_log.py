"""Logs of kills: recorded ones, forms that only upstream's sources give, and what is cut off or forged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.observe.oom_log import kills

JOURNALS = Path(__file__).parent / "journals"


@pytest.mark.parametrize("name", ["unit.json", "unit.iso", "unit.short"])
def test_a_recorded_kill_of_a_unit_in_each_form_of_journalctl(name):
    [kill] = kills((JOURNALS / name).read_text().splitlines())
    assert kill.by == "kernel"
    assert kill.cgroup.endswith("/system.slice/atticd.service")
    assert kill.limited == kill.cgroup
    assert (kill.process, kill.host) == ("python3", "node1")
    assert (kill.usage_bytes, kill.limit_bytes) == (48 << 20, 48 << 20)
    assert 40 << 20 < kill.rss_bytes < 64 << 20
    assert "19:31:39" in kill.at


def test_a_recorded_kill_of_a_container_in_dmesg():
    [kill] = kills((JOURNALS / "container.dmesg").read_text().splitlines())
    assert kill.cgroup.startswith("/docker/e2c88709")
    assert (kill.limit_bytes, kill.rss_bytes, kill.at) == (
        32 << 20,
        (32392 + 1520) << 10,
        "6423.127538 s after boot",
    )


LINES = {
    # mm/oom_kill.c dump_oom_summary and __oom_kill_process, without a memory cgroup's limit
    "host": (
        "kswapd0 invoked oom-killer: gfp_mask=0x1100cca, order=0, oom_score_adj=0",
        "oom-kill:constraint=CONSTRAINT_NONE,global_oom,task_memcg=/system.slice/etcd.service,task=etcd,pid=7,uid=0",
        "Out of memory: Killed process 7 (etcd) total-vm:9kB, anon-rss:4kB, file-rss:0kB, shmem-rss:2kB, UID:0",
    ),
    # before 4.19
    "old": (
        "Task in /system.slice/etcd.service killed as a result of limit of /system.slice",
        "memory: usage 8kB, limit 8kB, failcnt 1",
        "Memory cgroup out of memory: Kill process 7 (etcd) score 9 or sacrifice child",
    ),
}


def test_a_host_without_memory_has_no_limited_group():
    [kill] = kills(f"Nov 21 10:00:00 node1 kernel: {line}" for line in LINES["host"])
    assert (kill.limited, kill.cgroup, kill.rss_bytes) == ("", "/system.slice/etcd.service", 6 << 10)


def test_old_kernels_name_the_groups_otherwise():
    [kill] = kills(f"[  9.5] {line}" for line in LINES["old"])
    assert (kill.limited, kill.limit_bytes, kill.process) == ("/system.slice", 8192, "etcd")


OOMD = {
    "Killed /user.slice/a.scope due to memory pressure for /user.slice being 81.09% > 50.00% for > 20s with"
    " reclaim activity": "/user.slice/a.scope",
    "Marked /system.slice/b.service for killing due to memory used (1) / total (2) and swap used (3) / total (4)"
    " being more than 90.00%": "/system.slice/b.service",
}


@pytest.mark.parametrize("message", OOMD)
def test_oomd_names_a_control_group(message):
    [kill] = kills([f"2026-11-21T10:00:00+00:00 node1 systemd-oomd[612]: {message}"])
    entry = {"MESSAGE": message, "_TRANSPORT": "journal", "_SYSTEMD_UNIT": "systemd-oomd.service"}
    assert [one.cgroup for one in kills([json.dumps(entry)])] == [kill.cgroup]
    assert (kill.by, kill.cgroup, kill.process) == ("systemd-oomd", OOMD[message], "")
    assert kill.why.startswith("due to memory ")


def test_every_process_of_a_group_that_is_killed_as_a_whole_has_its_group():
    second = "Memory cgroup out of memory: Killed process 8 (child) total-vm:9kB, anon-rss:4kB"
    found = kills(f"[ 1.0] {line}" for line in (*LINES["old"], second))
    assert [(kill.process, kill.cgroup) for kill in found] == [
        ("etcd", "/system.slice/etcd.service"),
        ("child", "/system.slice/etcd.service"),
    ]


def test_two_hosts_in_one_log_are_kept_apart():
    first, choice, killed = LINES["host"]
    other = "oom-kill:constraint=CONSTRAINT_NONE,global_oom,task_memcg=/x.slice,task=x,pid=1,uid=0"
    lines = [("a", first), ("b", first), ("a", choice), ("b", other), ("a", killed)]
    [kill] = kills(f"Nov 21 10:00:00 {host} kernel: {line}" for host, line in lines)
    assert (kill.host, kill.cgroup) == ("a", "/system.slice/etcd.service")


def test_a_program_cannot_forge_a_kill():
    forged = {"MESSAGE": LINES["host"][2], "_TRANSPORT": "stdout", "SYSLOG_IDENTIFIER": "kernel"}
    oomd = {"MESSAGE": next(iter(OOMD)), "_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "systemd-oomd"}
    assert (
        kills([json.dumps(forged), json.dumps(oomd), f"Nov 21 10:00:00 node1 bash[1]: {LINES['host'][2]}"])
        == []
    )


def test_a_message_that_is_no_text_is_read_as_bytes():
    entry = {"MESSAGE": list(LINES["host"][2].encode() + b"\xff"), "_TRANSPORT": "kernel"}
    assert [kill.process for kill in kills([json.dumps(entry)])] == ["etcd"]


@given(st.lists(st.text(max_size=80), max_size=8), st.integers(0, 3000))
def test_nothing_breaks_the_reader(lines, cut):
    recorded = (JOURNALS / "unit.json").read_text()[:cut].splitlines()
    assert kills([*lines, *recorded, "{", '{"MESSAGE": 3}', "[]", '{"MESSAGE": [999]}']) == []
