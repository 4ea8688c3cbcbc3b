"""Every check evaluates with real Nix, and what goes into a guest is what the modules say."""

from __future__ import annotations

import pytest

from tests.vm.evaluated import ROOT, SCRIPTS, evaluate

CHECKS = sorted(path.stem for path in (ROOT / "checks").glob("*.nix"))


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_evaluates_and_brings_everything_that_its_units_run(nix_new, name):
    check = evaluate(nix_new, ROOT / "checks" / f"{name}.nix")
    compile(check.script, name, "exec")
    assert check.nodes
    assert check.name == f"kingpost-{name}"
    for path, (_, content) in check.scripts.items():
        assert path.startswith(SCRIPTS.lstrip("/"))
        assert str(nix_new.store).encode() not in content
    for node in check.nodes.values():
        for unit in node["services"].values():
            commands = unit["serviceConfig"].get("ExecStart", "")
            assert str(nix_new.store) not in str(unit)
            for word in str(commands).split():
                if word.startswith(SCRIPTS):
                    assert word.lstrip("/") in check.scripts


def test_a_units_directives_are_written_as_systemd_reads_them(nix_new):
    files = evaluate(nix_new, ROOT / "checks" / "runner-token.nix").files("machine")
    mode, unit = files["etc/systemd/system/gitlab-runner.service"]
    lines = unit.decode().splitlines()
    assert mode == 0o644
    assert "Wants=network-online.target" in lines
    assert "Restart=always" in lines
    assert "DynamicUser=true" in lines
    (prepare,) = (line for line in lines if line.startswith("ExecStartPre="))
    script = prepare.removeprefix("ExecStartPre=!").lstrip("/")
    assert files[script][0] == 0o555
    assert b"/etc/runner-token" in files[script][1]
    assert sum(line.startswith("ExecReload=") for line in lines) == 2
    assert files["opt/kingpost/gitlab-runner/bin/gitlab-runner"][0] == 0o755


def test_units_that_debian_has_are_changed_and_not_replaced(nix_new):
    files = evaluate(nix_new, ROOT / "checks" / "memory-limits.nix").files("machine")
    assert "etc/systemd/system/nix-daemon.service" not in files
    overrides = files["etc/systemd/system/nix-daemon.service.d/overrides.conf"][1].decode()
    assert "MemoryMax=384M" in overrides
    assert "MemoryMax=96M" in files["etc/systemd/system/jobs.slice"][1].decode()
    assert b'"cgroup-parent": "jobs.slice"' in files["etc/docker/daemon.json"][1]


def test_the_firewall_opens_what_is_declared_and_nothing_else(nix_new):
    files = evaluate(nix_new, ROOT / "checks" / "endpoint-contexts.nix").files("box")
    rules = files["opt/kingpost/firewall"][1].decode()
    assert sorted(line.split()[5] for line in rules.splitlines() if "--dport 8080" in line) == [
        "docker0",
        "eth1",
    ]
    assert rules.count("--dport") == 2
