"""Both hosts of the homelab example boot with what was rendered for them, and are what the topology says."""

# ruff: noqa: ANN001, ANN201, D103, F821, PT018, S101, T201 - machines and values are names that the driver gives; asserts test

import re

NODE, PAD = TOPOLOGY["hosts"]["node1"], TOPOLOGY["hosts"]["thinkpad"]
PORT = TOPOLOGY["attic"]["home"]["port"]
DIRECTIVES = {
    "memory_max": "MemoryMax",
    "memory_high": "MemoryHigh",
    "oom_score": "OOMScoreAdjust",
    "cpu_weight": "CPUWeight",
}
FETCH = (
    "import sys, urllib.request; "
    'print(urllib.request.urlopen(sys.argv[1] + "/nix-cache-info", timeout=5).read().decode())'
)


def size(text):
    number, unit = re.fullmatch(r"([\d.]+)(KiB|MiB|GiB)", text).groups()
    return int(float(number) * {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit])


def fetch(url):
    return f"$(command -v python3) -c '{FETCH}' {url} 2>&1"


def running(machine, program, unit):
    """Tell whether a unit runs; where its program is not on this machine, say that it was not looked at."""
    if machine.get_unit_info(unit)["ConditionResult"] == "no":
        print(f"skipped: {unit}: this machine has no {program}")
        return False
    machine.wait_for_unit(unit)
    return True


start_all()
# Both are on the tailnet, which is the network between test machines here.
for machine, host in ((node1, NODE), (thinkpad, PAD)):
    machine.wait_for_unit("multi-user.target")
    machine.succeed(f"ip address add {host['addresses']['tailnet']}/10 dev eth1")

with subtest("what was rendered runs"):
    for unit in ("atticd", "docker", "gitlab-runner", "kingpost-netrc", "kingpost-store-fix"):
        node1.wait_for_unit(f"{unit}.service")
    node1.wait_until_succeeds(
        "test -e /var/lib/kingpost/store-scan.json && ! systemctl is-active --quiet kingpost-store-scan.service"
    )
    for unit in ("gitlab-runner", "kingpost-netrc"):
        thinkpad.wait_for_unit(f"{unit}.service")
    failed = node1.succeed("systemctl list-units --failed --plain --no-legend")
    assert "kingpost" not in failed and "atticd" not in failed and "gitlab" not in failed, failed
    running(node1, "k3s", "k3s.service")

with subtest("every limit of the topology is in effect"):
    limits = [limit for limit in TOPOLOGY["limits"].values() if limit.get("host") == "node1"]
    limits.append({"unit": "k3s.service", "memory_max": TOPOLOGY["clusters"]["k3s"]["memory_max"]})
    for limit in limits:
        found = node1.get_unit_info(limit["unit"])
        for key, directive in DIRECTIVES.items():
            if key in limit:
                wanted = str(size(limit[key]) if key.startswith("memory") else limit[key])
                assert found[directive] == wanted, (limit, directive, found[directive])
    jobs = TOPOLOGY["runners"]["host-ci"]
    wanted = str(jobs["concurrency"] * size(jobs["memory_per_job"]))
    assert thinkpad.get_unit_info("gitlab-runner.service")["MemoryMax"] == wanted

with subtest("docker's networks are the pinned ones"):
    bridge = json.loads(node1.succeed("docker network inspect bridge"))[0]["IPAM"]["Config"][0]
    address, _, prefix = NODE["docker"]["bip"].partition("/")
    assert bridge["Gateway"] == address and bridge["Subnet"].endswith(f"/{prefix}"), bridge
    node1.succeed("docker network create other")
    other = json.loads(node1.succeed("docker network inspect other"))[0]["IPAM"]["Config"][0]["Subnet"]
    pool = NODE["docker"]["pools"][0]
    first, second = pool["base"].split(".")[:2]
    inside = other.split(".")[0] == first and int(second) <= int(other.split(".")[1]) < int(second) + 4
    assert inside and other.endswith(f"/{pool['size']}"), other

node1.succeed("tar -c --files-from /dev/null | docker import - scratch-image")
mounts = node1.succeed(
    "for d in /nix/store /usr /bin /lib /lib64 /run/current-system/sw; do"
    " test ! -e $d || printf -- '-v %s:%s:ro ' \"$(readlink -f $d)\" $d; done"
).strip()
variables = dict(line.split("=", 1) for line in JOB.splitlines() if "=" in line and not line.startswith("#"))

with subtest("a job reaches the cache at the address that was rendered for it, and at no other"):
    url = variables["KINGPOST_URL_ATTIC_HOME"]
    node1.wait_for_open_port(PORT, "127.0.0.1")
    job = f"docker run --rm --network bridge {mounts} scratch-image "
    node1.succeed(job + fetch(url))
    node1.fail(job + fetch(f"http://127.0.0.1:{PORT}"))
    node1.succeed(fetch(f"http://127.0.0.1:{PORT}"))

with subtest("the firewall is shut for everybody else"):
    rules = node1.succeed("iptables -S nixos-fw")
    opened = re.findall(rf"-i (\S+) .*--dport {PORT} ", rules)
    assert opened == ["docker0"], rules
    # Another port of the same machine answers, so that it is the firewall that keeps this one shut.
    thinkpad.wait_for_open_port(22, NODE["addresses"]["tailnet"])
    thinkpad.fail(fetch(f"http://{NODE['addresses']['tailnet']}:{PORT}"))

with subtest("the laptop reaches it through the tunnel, which comes back by itself"):
    thinkpad.succeed("mkdir -p /root/.ssh", "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    public = thinkpad.succeed("cat /root/.ssh/id_ed25519.pub").strip()
    user = NODE["ssh_user"]
    node1.succeed(
        f"install -d -m 0700 -o {user} /home/{user}/.ssh",
        f"echo '{public}' >/home/{user}/.ssh/authorized_keys",
        f"chown -R {user} /home/{user}",
    )
    through = f"http://{TOPOLOGY['tunnels']['attic']['listen']}"
    thinkpad.wait_until_succeeds(fetch(through), timeout=120)
    first = thinkpad.get_unit_info("kingpost-tunnel-attic.service")["MainPID"]
    thinkpad.succeed(f"kill {first}")
    thinkpad.wait_until_succeeds(fetch(through), timeout=120)
    assert thinkpad.get_unit_info("kingpost-tunnel-attic.service")["MainPID"] != first

with subtest("Nix reads the caches of the topology, in its order, with their keys and passwords"):
    for machine, host in ((node1, "node1"), (thinkpad, "thinkpad")):
        settings = json.loads(
            machine.succeed("nix config show --json --extra-experimental-features nix-command")
        )
        names = TOPOLOGY["hosts"][host].get("substituters", TOPOLOGY["site"]["substituters"])
        wanted = [
            f"http://127.0.0.1:{PORT}/{name.partition('/')[2]}"
            if name.startswith("attic:")
            else {
                "cachix:homelab": "https://homelab.cachix.org",
                "substituter:nixos": "https://cache.nixos.org/",
            }[name]
            for name in names
        ]
        # NixOS adds its own cache at the end; Nix asks each once.
        assert list(dict.fromkeys(settings["substituters"]["value"])) == wanted, settings["substituters"][
            "value"
        ]
        keys = [
            TOPOLOGY["attic"]["home"]["caches"][name.partition("/")[2]]["public_key"]
            for name in names
            if name.startswith("attic:")
        ]
        assert set(keys) <= set(settings["trusted-public-keys"]["value"])
        assert settings["fallback"]["value"] is True and settings["connect-timeout"]["value"] == 5
        netrc = settings["netrc-file"]["value"]
        assert machine.succeed(f"cat {netrc}") == "machine 127.0.0.1 password eyJyZWFkZXJz.of.atest\n"
        assert machine.succeed(f"stat -c %a:%U {netrc}").strip() == "400:root"

with subtest("the runner's config.toml is the rendered one, with its token and for nobody else"):
    config = "/var/lib/gitlab-runner/.gitlab-runner/config.toml"
    assert node1.succeed(f"cat {config}") == RUNNER.replace("@TOKEN:blog@", "glrt-blog_runner")
    assert node1.succeed(f"stat -c %a {config}").strip() == "600"
    assert "glrt-host_ci_runner" in thinkpad.succeed(f"cat {config}")
    for secret in ("glrt-blog_runner", "of.atest"):
        node1.fail(f"grep -rqs {secret} /etc/systemd/system /run/systemd/system /opt/kingpost")

with subtest("the server has its environment, and nobody's metadata service"):
    environment = node1.get_unit_info("atticd.service")["Environment"]
    for word in ("AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=auto", "WHEN_REQUIRED"):
        assert word.lower() in environment.lower(), environment

with subtest("the look at the store says what it found"):
    assert (
        node1.succeed(f"grep -c '^kingpost_exit_code.* 0$' {NODE['metrics']}/kingpost-store.prom").strip()
        == "1"
    )
    node1.succeed("/var/lib/kingpost/store-fix --help >/dev/null")

with subtest("audits and checks have their timers, and fail visibly where nothing answers"):
    audit, check = TOPOLOGY["audits"]["system"], TOPOLOGY["buckets"]["attic-cache"]["check"]
    for unit, declared in (("cache-audit-system", audit), ("bucket-check-attic-cache", check)):
        assert declared["schedule"] in node1.get_unit_info(f"kingpost-{unit}.timer")["TimersCalendar"]
        node1.require_unit_state(f"kingpost-{unit}.timer")
        node1.fail(f"systemctl start kingpost-{unit}.service")
        node1.succeed(f"systemctl is-failed --quiet kingpost-{unit}.service")
        metrics = node1.succeed(f"cat {NODE['metrics']}/kingpost-{unit}.prom")
        assert re.search(r"(?m)^kingpost_exit_code\{.*\} [1-9]$", metrics), metrics
