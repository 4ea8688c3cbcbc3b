"""What eats memory is killed alone: a service, a container, a build, a unit that stalls; the others do not notice."""

# ruff: noqa: ANN001, ANN201, D103, F821, S101 - machines are names that the driver gives; asserts test

EAT = 'x = bytearray(b"1") * (200 << 20); print("ate it all")'
# It takes half a gigabyte, in the daemon's control group: the build's own processes are the daemon's.
BUILD = """
cat >/root/hungry.nix <<'EOF'
derivation {
  name = "hungry"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "x=1234567890; i=0; while [ $i -lt 26 ]; do x=$x$x; i=$((i + 1)); done; echo ate it all >$out" ];
}
EOF
NIX_REMOTE=daemon nix-build --no-out-link /root/hungry.nix 2>&1
"""
LIVING = ("atticd.service", "sshd.service", "docker.service", "nix-daemon.service")

start_all()
machine.wait_for_unit("docker.service")
machine.wait_for_unit("sshd.service")
machine.succeed(
    "umask 077; echo ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=$(head -c 32 /dev/urandom | base64 -w0) >/etc/atticd.env",
    "systemctl start nix-daemon.service atticd.service",
)
machine.wait_for_open_port(8080, "127.0.0.1")


def lives():
    return {unit: machine.get_unit_info(unit)["MainPID"] for unit in LIVING}


def ends(unit):
    machine.succeed(f"systemctl start --no-block {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed --quiet {unit}", timeout=180)
    machine.fail(f"journalctl --no-pager -b -u {unit} | grep -q 'ate it all'")
    return machine.get_unit_info(unit)["Result"]


before = lives()
assert "0" not in before.values(), before

with subtest("the limits are those that were declared"):
    daemon = machine.get_unit_info("nix-daemon.service")
    assert daemon["MemoryMax"] == str(384 << 20), daemon["MemoryMax"]
    assert daemon["OOMScoreAdjust"] == "250"
    assert machine.get_unit_info("atticd.service")["MemoryMax"] == str(256 << 20)
    assert machine.get_unit_info("sshd.service")["OOMScoreAdjust"] == "-900"
    assert machine.get_unit_info("jobs.slice")["MemoryMax"] == str(96 << 20)
    assert machine.get_unit_info("stalling.service")["ManagedOOMMemoryPressure"] == "kill"

with subtest("a service that eats more than its limit is killed by it"):
    assert ends("hungry.service") == "oom-kill"

with subtest("so is a container, by the limit of all jobs together"):
    machine.succeed("tar -c --files-from /dev/null | docker import - scratch-image")
    # The host's programs, wherever it has them: no image comes over a network here.
    mounts = machine.succeed(
        "for d in /nix/store /usr /bin /lib /lib64 /run/current-system/sw; do"
        " test ! -e $d || printf -- '-v %s:%s:ro ' \"$(readlink -f $d)\" $d; done"
    ).strip()

    def run(name, options, program):
        return (
            f"docker run --name {name} --network none {options} {mounts} scratch-image"
            f" $(command -v python3) -c '{program}' 2>&1"
        )

    status, output = machine.execute(run("job", "", EAT))
    assert "ate it all" not in output, output
    assert status == 137, (status, output)

with subtest("and one by a limit of its own"):
    status, output = machine.execute(run("small", "--memory 32m --memory-swap 32m", EAT))
    assert status == 137, (status, output)

with subtest("one that eats little is not"):
    machine.succeed(run("modest", "", "print(1)"))

with subtest("a build that eats more than the daemon may take ends, and the daemon does not"):
    said = machine.fail(BUILD)
    assert "hungry.drv" in said, said
    assert lives() == before, (before, lives())

with subtest("a unit that stalls for memory is ended by systemd-oomd"):
    machine.wait_for_unit("systemd-oomd.service")
    assert ends("stalling.service") == "oom-kill"
    machine.succeed("journalctl --no-pager -b -o cat -u systemd-oomd.service | grep -q stalling.service")

with subtest("everything else lives on, and was never away"):
    assert lives() == before, (before, lives())
    kills = machine.succeed("journalctl --no-pager -b -k -o cat | grep -c 'Killed process' || true")
    assert int(kills) == 4, kills
    machine.succeed("curl -fsS http://127.0.0.1:8080/main/nix-cache-info || true", "nix-store --verify")
