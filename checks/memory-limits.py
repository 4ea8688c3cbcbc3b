"""A service and a container that eat memory are killed; what runs beside them does not notice."""

# ruff: noqa: ANN201, D103, F821, S101 - machines are names that the driver gives; asserts test

EAT = 'x = bytearray(b"1") * (200 << 20); print("ate it all")'

start_all()
machine.wait_for_unit("bystander.service")
machine.wait_for_unit("docker.service")
machine.succeed("systemctl start nix-daemon.service")


def lives():
    return [
        machine.get_unit_info(unit)["MainPID"]
        for unit in ("bystander.service", "docker.service", "nix-daemon.service")
    ]


before = lives()
assert "0" not in before, before

with subtest("a service that eats more than its limit is killed by it"):
    machine.succeed("systemctl start hungry.service")
    machine.wait_until_succeeds("systemctl is-failed --quiet hungry.service", timeout=120)
    result = machine.get_unit_info("hungry.service")["Result"]
    assert result == "oom-kill", result
    machine.fail("journalctl --no-pager -b -u hungry.service | grep -q 'ate it all'")

with subtest("so is a container, by the limit of all jobs together"):
    machine.succeed("tar -c --files-from /dev/null | docker import - scratch-image")
    # The host's programs, wherever it has them: no image comes over a network here.
    mounts = machine.succeed(
        "for d in /nix/store /usr /bin /lib /lib64 /run/current-system/sw; do"
        " test ! -e $d || printf -- '-v %s:%s:ro ' \"$(readlink -f $d)\" $d; done"
    ).strip()
    run = f"docker run --name hungry --network none {mounts} scratch-image $(command -v python3)"
    status, output = machine.execute(f"{run} -c '{EAT}' 2>&1")
    assert "ate it all" not in output, output
    assert status == 137, (status, output)
    machine.succeed("docker rm hungry")

with subtest("one that eats little is not"):
    machine.succeed(f"{run} -c 'print(1)'")

with subtest("everything else lives on, and was never away"):
    after = lives()
    assert after == before, (before, after)
    kills = machine.succeed("journalctl --no-pager -b -k -o cat | grep -c 'Killed process' || true")
    assert int(kills) == 2, kills

with subtest("the limits are those that were declared"):
    assert machine.get_unit_info("nix-daemon.service")["MemoryMax"] == str(512 << 20)
    assert machine.get_unit_info("nix-daemon.service")["OOMScoreAdjust"] == "250"
    assert machine.get_unit_info("jobs.slice")["MemoryMax"] == str(96 << 20)
