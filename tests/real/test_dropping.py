"""Real ssh connections to a machine with a real systemd, cut in the middle: during a switch, and without one."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager

import pytest
from tests.real.conftest import require, require_root
from tests.real.machine import Machine
from tests.real.sshd import Sshd
from tests.real.test_doctor import NO_DOCKER, PRIVATE, platform_of
from tests.real.world import World, sh

from kingpost.observe import dropping
from kingpost.observe.doctor import Walk, examine
from kingpost.observe.drift import Scope as DriftScope
from kingpost.observe.drift import compare
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.ssh import Ssh

pytestmark = pytest.mark.xdist_group("network")

HOST = "host:node1"
PLAIN = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart={command}\n"
#: What nixos-rebuild starts on the target, and what switch-to-configuration does first.
SWITCH = "flock /run/nixos/switch-to-configuration.lock sleep 60"


class Bench:
    """A machine that is reached by ssh only, with an Attic server on it that takes its time."""

    def __init__(self, world, machine, server, entrance):
        self.world, self.machine, self.server, self.entrance = world, machine, server, entrance

    def walk(self, meanwhile):
        """Let doctor walk, do something while its probe waits inside; gives the verdicts by code."""
        found = []
        walk = Walk(frozenset({HOST}), frozenset({"attic:home"}))
        doctor = threading.Thread(
            target=lambda: found.extend(examine(self.world.platform, self.entrance, walk))
        )
        doctor.start()
        self.wait_for_probe()
        meanwhile()
        doctor.join(120)
        return {verdict.code: verdict for verdict in found}

    def wait_for_sshd(self):
        for _ in range(200):
            if f":{self.server.port} " in self.machine.run("ss", "-Hltn").stdout:
                return
            time.sleep(0.05)
        raise AssertionError(self.machine.run("systemctl", "status", "sshd", check=False).stdout)

    def wait_for_probe(self):
        """Wait until both dialers' probes are inside and wait for the server."""
        for _ in range(200):
            done = self.machine.run("ss", "-Htn", "state", "established", "( sport = :8083 )")
            if len(done.stdout.splitlines()) >= 2:
                return
            time.sleep(0.05)
        raise AssertionError("no probe came")

    def cut(self):
        """Kill what serves the sessions: their client sees its connection end, as when its tunnel restarts."""
        main = self.machine.run("systemctl", "show", "sshd", "--property=MainPID", "--value").stdout.strip()
        sessions = self.machine.run("pgrep", "-P", main).stdout.split()
        self.machine.run("kill", "-KILL", *sessions)


@contextmanager
def bench(tmp_path, monkeypatch, environment=None):
    require_root()
    require("netns")
    require("systemd")
    bin_directory = require("sshd")
    (tmp_path / "ssh").mkdir()
    server = Sshd(tmp_path / "ssh", bin_directory, environment or {"KINGPOST": "test"})
    files = {
        "/etc/systemd/system/sshd.service": PLAIN.format(
            command=f"{bin_directory}/sshd -D -e -f {server.folder}/sshd_config"
        ).replace("ExecStart=", "KillMode=process\nExecStartPre=/bin/mkdir -p -m 755 /run/sshd\nExecStart="),
        "/etc/systemd/system/tailscaled.service": PLAIN.format(command="/usr/bin/env sleep 1000"),
        "/etc/systemd/system/nixos-rebuild-switch-to-configuration.service": PLAIN.format(
            command=f"/usr/bin/env {SWITCH}"
        ),
        "/etc/systemd/system/deploy.service": PLAIN.format(command=f"/usr/bin/env {SWITCH}"),
    }
    platform = platform_of(text=NO_DOCKER)
    servers = {"attic:home": {**PRIVATE, "delay": 3.0}}
    with (
        World(platform, servers=servers) as world,
        Machine(tmp_path / "m", world.enter("h-node1"), files, {"sshd": "/run/sshd"}) as machine,
    ):
        machine.run("mkdir", "-p", "/run/nixos")
        machine.run("touch", "/run/nixos/switch-to-configuration.lock")
        machine.run("systemctl", "start", "sshd", "tailscaled")
        wrapper = tmp_path / "bin" / "ssh"
        wrapper.parent.mkdir()
        words = " ".join(
            f"'{word}'" for word in [*world.enter("h-node1"), shutil.which("ssh"), *server.options]
        )
        wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin:/usr/sbin:/sbin")
        monkeypatch.setattr(dropping, "WAITS", (0.5, 2.0, 4.0))
        found = Bench(world, machine, server, Entrance(platform, None, {HOST: Ssh("127.0.0.1")}))
        found.wait_for_sshd()
        yield found


def test_a_drop_is_expected_while_a_switch_runs_and_only_then(tmp_path, monkeypatch):
    with bench(tmp_path, monkeypatch) as on:
        # Nothing happens: the way itself works.
        assert set(on.walk(lambda: None)) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}

        # A session that was killed, for no reason that the host knows of.
        on.machine.run("sleep", "2")  # the units' start is past
        alone = on.walk(on.cut)
        assert set(alone) == {"KP-CONTEXT-UNSTABLE", "KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        assert str(alone["KP-CONTEXT-UNSTABLE"].status) == "failed"
        assert "nothing was restarted" in alone["KP-CONTEXT-UNSTABLE"].summary
        assert "closed by remote host" in alone["KP-CONTEXT-UNSTABLE"].evidence["ssh"]

        # What carries the connection was restarted by hand: named, and no switch.
        def restart():
            on.machine.run("systemctl", "restart", "tailscaled")
            on.cut()

        by_hand = on.walk(restart)["KP-CONTEXT-UNSTABLE"]
        assert "tailscaled.service was started" in by_hand.summary

        # The same in a switch, as nixos-rebuild runs one on its target.
        def switch():
            on.machine.run("systemctl", "start", "nixos-rebuild-switch-to-configuration")
            restart()

        seen = on.walk(switch)
        assert set(seen) == {"KP-CONTEXT-DROPPED", "KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        assert str(seen["KP-CONTEXT-DROPPED"].status) == "expected"
        assert seen["KP-CONTEXT-DROPPED"].evidence["switch"] == [
            "its lock is held", "nixos-rebuild-switch-to-configuration.service runs",
        ]  # fmt: skip
        on.machine.run("systemctl", "stop", "nixos-rebuild-switch-to-configuration")

        # deploy-rs, colmena and the rest have no such unit, but the lock is switch-to-configuration's own.
        def other_tool():
            on.machine.run("systemctl", "start", "deploy")
            time.sleep(0.3)
            on.cut()

        assert on.walk(other_tool)["KP-CONTEXT-DROPPED"].evidence["switch"] == ["its lock is held"]
        on.machine.run("systemctl", "stop", "deploy")

        # A switch that is over when the host is back: it has replaced the system.
        def ended():
            on.machine.run("ln", "-sfn", "/nix/store/x-nixos-system", "/run/current-system")
            on.cut()

        assert "the system was replaced" in on.walk(ended)["KP-CONTEXT-DROPPED"].summary


def test_packets_that_are_lost_for_a_while_and_a_host_that_stays_away(tmp_path, monkeypatch):
    """The client itself must notice: `ServerAliveInterval` ends a session whose packets are gone."""
    with bench(tmp_path, monkeypatch) as on:
        rules = [
            ["INPUT", "-p", "tcp", end, str(on.server.port), "-j", "DROP"] for end in ("--dport", "--sport")
        ]
        node = on.world.enter("h-node1")

        def change(how):
            for rule in rules:
                sh(*node, "iptables", "-w", how, *rule)

        def lose():
            change("-I")
            # The client gives up after 15 s, and dials again for 10 s: between both there is room for a slow machine.
            threading.Timer(21, change, ["-D"]).start()

        lost = on.walk(lose)
        assert "not responding" in lost["KP-CONTEXT-UNSTABLE"].evidence["ssh"]
        assert "KP-ROUTE-OK" in lost

        def leave():
            on.cut()
            on.machine.run("systemctl", "stop", "sshd")

        away = on.walk(leave)
        assert set(away) == {"KP-CONTEXT-NOT-ENTERED"}
        assert "since no other one came through" in away["KP-CONTEXT-NOT-ENTERED"].summary


def test_drift_asks_again_after_a_drop(tmp_path, monkeypatch):
    slow = "#!/bin/sh\n[ -e /run/asked ] && exit 1\ntouch /run/asked\nsleep 5\nexit 1\n"
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "nix").write_text(slow)
    (tmp_path / "slow" / "nix").chmod(0o755)
    path = f"{tmp_path}/slow:/usr/bin:/bin:/usr/sbin:/sbin"
    with bench(tmp_path, monkeypatch, {"PATH": path}) as on:
        on.machine.run("systemctl", "start", "nixos-rebuild-switch-to-configuration")
        found = []
        scope = DriftScope(frozenset({"node1"}))
        asking = threading.Thread(target=lambda: found.extend(compare(on.world.platform, on.entrance, scope)))
        asking.start()
        for _ in range(200):
            if (tmp_path / "m" / "run" / "asked").exists():
                break
            time.sleep(0.05)
        on.cut()
        asking.join(120)
        codes = {verdict.code for verdict in found}
        assert "KP-CONTEXT-DROPPED" in codes, found
        assert "KP-CONTEXT-NOT-ENTERED" not in codes
        assert "it was not asked" not in str(found)
