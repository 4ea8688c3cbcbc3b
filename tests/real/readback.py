"""Compare a host's evaluated configuration with its topology, apart from the code that rendered it."""

from __future__ import annotations

from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.topology.places import Dialer
from kingpost.topology.platform import Platform


def substituters(configuration) -> list[str]:
    """Give the list as Nix uses it: each once."""
    return list(dict.fromkeys(configuration["nix"]["settings"]["substituters"]))


def with_slash(url: str) -> str:
    return f"{url}/" if url == "https://cache.nixos.org" else url


def sections(host) -> dict:
    systemd = host["systemd"]
    return {
        "service": {name: unit["serviceConfig"] for name, unit in systemd["services"].items()},
        "slice": {name: unit["sliceConfig"] for name, unit in systemd["slices"].items()},
        "socket": {name: unit["socketConfig"] for name, unit in systemd["sockets"].items()},
    }


def check_host(platform: Platform, name: str, found) -> None:
    """Compare one host's evaluated configuration with the topology, apart from the code that rendered it."""
    topology = platform.topology
    host = topology.hosts[name]
    check_caches(platform, name, found)
    openings = platform.firewall(name)
    assert {
        interface: tuple(opened["allowedTCPPorts"])
        for interface, opened in found["networking"]["firewall"]["interfaces"].items()
    } == openings
    docker = found["virtualisation"]["docker"]
    assert docker["enable"] is (host.docker is not None)
    if host.docker:
        pools = [{"base": str(pool.base), "size": pool.size} for pool in host.docker.pools]
        assert docker["daemon"]["settings"]["default-address-pools"] == pools
        if host.docker.bridge == "docker0":
            assert docker["daemon"]["settings"]["bip"] == str(host.docker.bip)
        else:
            assert docker["daemon"]["settings"]["bridge"] == host.docker.bridge
            assert host.docker.bridge in found["networking"]["bridges"]
    servers = {key: attic for key, attic in topology.attic.items() if attic.host == name}
    assert found["services"]["atticd"]["enable"] is bool(servers)
    for key, attic in servers.items():
        check_attic(platform, key, attic, found)
    check_secrets(topology, found)
    check_timed(platform, name, found)
    for limit in topology.limits.values():
        if limit.host == name and limit.unit:
            check_limit(limit, found)
    for tunnel in topology.tunnels.values():
        if tunnel.host == name:
            port = tunnel.listen[1]
            scripts = [unit["script"] for unit in found["systemd"]["services"].values()]
            assert any(f"{tunnel.listen[0]}:{port}:" in script for script in scripts)
    runners = [runner for runner in topology.runners.values() if runner.host == name]
    assert found["services"]["gitlab-runner"]["enable"] is bool(runners)
    shell = {runner.user for runner in runners if runner.executor == "shell"} - {"gitlab-runner"}
    for user in shell:
        unit = found["systemd"]["services"]["gitlab-runner"]
        assert unit["serviceConfig"]["User"] == user
        assert unit["serviceConfig"]["DynamicUser"] is False
        assert unit["environment"]["HOME"] == f"/home/{user}"


def check_timed(platform: Platform, name: str, found) -> None:
    """Demand a timer for each audit and each bucket's check, and the store's repair where it is asked for."""
    topology, systemd = platform.topology, found["systemd"]
    host = topology.hosts[name]
    scans = "kingpost-store-scan" in systemd["services"]
    assert scans is (host.store_fix is not None)
    if host.store_fix:
        command = systemd["services"]["kingpost-store-scan"]["serviceConfig"]["ExecStart"]
        assert f"--repair {host.store_fix.repair}" in command
        assert ("--textfile /var/lib/node-exporter/" in command) is (host.metrics == "/var/lib/node-exporter")
    timers = {
        f"kingpost-cache-audit-{key}": audit for key, audit in topology.audits.items() if audit.host == name
    }
    timers |= {
        f"kingpost-bucket-check-{key}": bucket.check
        for key, bucket in topology.buckets.items()
        if bucket.check and bucket.check.host == name
    }
    assert set(systemd["timers"]) == set(timers)
    for unit, declared in timers.items():
        assert systemd["timers"][unit]["timerConfig"]["OnCalendar"] == declared.schedule
        assert systemd["services"][unit]["serviceConfig"]["MemoryMax"] == 256 << 20
        kind, _, key = unit.removeprefix("kingpost-").partition("-")[2].partition("-")
        dialled = (
            f"attic:{declared.cache.partition(':')[2].partition('/')[0]}"
            if kind == "audit"
            else f"bucket:{key}"
        )
        url = platform.route(f"host:{name}", Dialer.CLIENT, dialled).url
        assert url
        assert url in systemd["services"][unit]["script"]
        assert (f" {host.metrics} " in systemd["services"][unit]["script"]) is (host.metrics is not None)


def check_caches(platform: Platform, name: str, found) -> None:
    uses = platform.cache_uses(f"host:{name}")
    expected = [with_slash(use.url) for use in uses if use.url]
    conf = found["nix"]["settings"]
    if "https://cache.nixos.org/" in expected:
        assert substituters(found) == expected
    else:
        assert conf["substituters"] == expected
    keys = {use.public_key for use in uses if use.url and use.public_key}
    assert keys <= set(conf["trusted-public-keys"])
    asked = {
        with_slash(use.url)
        for context in platform.contexts_on(name)
        if context.runner and not context.own_store
        for use in platform.cache_uses(context.id)
        if use.url
    }
    assert asked <= {*conf["substituters"], *conf["trusted-substituters"]}
    assert set(conf["trusted-users"]) == {"root", *platform.topology.hosts[name].trusted_users}
    private = [use for use in uses if use.url and use.ref.kind == "attic" and not use.public]
    if private:
        assert conf["netrc-file"] == "/run/kingpost/netrc"
        assert "kingpost-netrc" in found["systemd"]["services"]
    for setting, value in known_to(platform.topology.hosts[name].nix, RESILIENCE).items():
        assert conf[setting] == value


def check_attic(platform: Platform, name: str, attic, found) -> None:
    settings_ = found["services"]["atticd"]["settings"]
    listener = platform.listeners[f"attic:{name}"]
    assert settings_["listen"] == f"{listener.bind}:{attic.port}"
    assert settings_["allowed-hosts"] == list(platform.allowed_hosts(name))
    assert settings_["chunking"]["max-size"] == attic.chunking.max_size
    assert settings_["storage"].keys() <= {"type", "path", "region", "bucket", "endpoint"}
    secret = platform.topology.secrets[attic.secret]
    if secret.path:
        assert found["services"]["atticd"]["environmentFile"] == secret.path
    unit = found["systemd"]["services"]["atticd"]
    if attic.storage.kind == "local":
        assert settings_["storage"] == {"type": "local", "path": attic.storage.path}
        assert unit["environment"] == {}
    else:
        bucket = platform.topology.buckets[attic.storage.bucket]
        assert settings_["storage"]["region"] == bucket.signing_region
        ec2 = platform.topology.hosts[attic.host].ec2
        assert ("AWS_EC2_METADATA_DISABLED" in unit["environment"]) is not ec2
        checksums = "AWS_REQUEST_CHECKSUM_CALCULATION" in unit["environment"]
        assert checksums is (bucket.provider != "aws")
    if attic.database.kind == "sqlite":
        assert settings_["database"]["url"].startswith("sqlite:///")
    elif attic.database.url_in_secret:
        assert settings_["database"] == {}
    else:
        name = attic.database.name
        assert settings_["database"]["url"] == f"postgresql:///{name}?host=/run/postgresql&user={name}"
        assert found["services"]["postgresql"]["ensureDatabases"] == [attic.database.name]
        assert found["services"]["atticd"]["user"] == attic.database.name
        assert "postgresql.target" in unit["after"]
        assert "postgresql.target" in unit["requires"]


def check_secrets(topology, found) -> None:
    for provider, declared in (("agenix", found["age"]["secrets"]), ("sops-nix", found["sops"]["secrets"])):
        for name, secret in declared.items():
            expected = topology.secrets[name]
            assert expected.provider == provider
            assert (secret["owner"], secret["group"]) == (expected.owner, expected.group)
            assert secret["mode"] == expected.mode
            folder = "agenix" if provider == "agenix" else "secrets"
            assert secret["path"] == (expected.path or f"/run/{folder}/{name}")
            if expected.owner in {"atticd", "gitlab-runner"}:
                # Nobody has that name while the unit is down, and chown would fail.
                assert found["users"]["users"][expected.owner]["isSystemUser"] is True
                assert found["users"]["users"][expected.owner]["group"] in found["users"]["groups"]


def check_limit(limit, found) -> None:
    base, _, kind = limit.unit.rpartition(".")
    if kind not in {"service", "slice", "socket"}:
        assert found["systemd"]["packages"]
        return
    unit = sections(found)[kind][base]
    expected = {
        "MemoryMax": limit.memory_max,
        "MemoryHigh": limit.memory_high,
        "MemorySwapMax": limit.swap_max,
        "CPUWeight": limit.cpu_weight,
        "OOMScoreAdjust": limit.oom_score,
        "ManagedOOMMemoryPressure": limit.oomd,
    }
    for key, value in expected.items():
        if value is not None:
            assert unit[key] == value, (limit.unit, key)
