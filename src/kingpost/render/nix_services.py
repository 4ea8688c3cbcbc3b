"""The services of a host as NixOS modules: atticd, gitlab-runner, secrets, tunnels, k3s."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from kingpost.render import nix_text
from kingpost.render.attic_settings import attic_environment, attic_settings, database_in_secret
from kingpost.render.environment import render
from kingpost.render.layout import FILL_SECRETS, runner_config
from kingpost.render.nix_text import Expression
from kingpost.render.secret_files import RUNNER_TOKEN, secret_path, token_variable
from kingpost.topology.bounds import RUNNER, shell_memory
from kingpost.topology.caches import BucketStorage, Postgres, Sqlite
from kingpost.topology.names import UnknownNameError
from kingpost.topology.paths import ANY, LOOPBACK, own_addresses
from kingpost.topology.places import HostSocket

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from kingpost.render.nix_hosts import OnHost
    from kingpost.render.secret_files import SecretUse
    from kingpost.topology.caches import Attic
    from kingpost.topology.guards import Secret
    from kingpost.topology.hosts import Host, Tunnel

STATE_DIRECTORY: Final = "/var/lib/atticd"
DYNAMIC_USERS: Final = frozenset({"atticd", "gitlab-runner"})
"""Users of units with DynamicUser: nobody has such a name while its unit is down."""
FILL: Final = nix_text.path(f"../../{FILL_SECRETS}")
"""The script that fills secrets in, as a host's own modules see it."""


def secret_file(on: OnHost, name: str) -> Expression:
    """Give the Nix expression of a secret's path: its provider's option, which a host may move."""
    secret = on.platform.topology.secrets[name]
    if secret.provider == "agenix":
        return Expression(f"config.age.secrets.{nix_text.attribute(name)}.path", atomic=True)
    if secret.provider == "sops-nix":
        return Expression(f"config.sops.secrets.{nix_text.attribute(name)}.path", atomic=True)
    return Expression(nix_text.string(secret_path(name, secret)), atomic=True)


def token_source(on: OnHost, name: str, variable: str) -> tuple[str, Expression]:
    """Give (format, file) of a token's secret, as `fill-secrets.sh` takes them."""
    secret = on.platform.topology.secrets[name]
    if secret.format == "raw":
        return "raw", secret_file(on, name)
    return f"env:{token_variable(secret, variable)}", secret_file(on, name)


def atticd(on: OnHost) -> str | None:
    """Give `atticd.nix`; None where no Attic server runs."""
    for name, attic in on.attic.items():
        return render("nix/atticd.nix.j2", **_atticd(on, name, attic))
    return None


def _atticd(on: OnHost, name: str, attic: Attic) -> dict[str, Any]:
    settings = attic_settings(on.platform, name)
    del settings["listen"]
    in_secret = database_in_secret(attic)
    if in_secret:
        del settings["database"]
    local = attic.database.name if isinstance(attic.database, Postgres) and not in_secret else None
    environment = attic_environment(on.platform, name)
    postgres_unit = _postgres_unit(on.platform.topology.site.nixos)
    bind = on.platform.listeners[f"attic:{name}"].bind
    secret = secret_file(on, attic.secret) if attic.secret in on.secrets else None
    credentials = _bucket_credentials(on, attic)
    given = {
        "address": str(bind),
        "port": attic.port,
        "after": units_before_bind(on, bind) or None,
        "environmentFile": secret,
        "credentialsFile": credentials,
        "region": environment.get("AWS_REGION"),
        "metadata": True if environment and "AWS_EC2_METADATA_DISABLED" not in environment else None,
        "database": local,
        "postgresqlUnit": postgres_unit if local and postgres_unit != "postgresql.target" else None,
        "databaseInSecret": True if in_secret else None,
        "writablePaths": _outside_state(attic) or None,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if environment:
        options["checksums"] = environment.get("AWS_REQUEST_CHECKSUM_CALCULATION")
    return {
        "module": nix_text.own_module("atticd"),
        "uses_config": any(file and file.text.startswith("config.") for file in (secret, credentials)),
        "options": options,
        "settings": settings,
    }


def _bucket_credentials(on: OnHost, attic: Attic) -> Expression | None:
    """Give the second environment file, where the bucket's credentials are in a secret of their own."""
    if not isinstance(attic.storage, BucketStorage):
        return None
    name = on.platform.topology.buckets[attic.storage.bucket].credentials
    return secret_file(on, name) if name in on.secrets and name != attic.secret else None


def _outside_state(attic: Attic) -> list[str]:
    """Give the folder of an SQLite file that is not below the unit's state directory."""
    if not isinstance(attic.database, Sqlite):
        return []
    folder = str(PurePosixPath(attic.database.path).parent)
    inside = folder == STATE_DIRECTORY or folder.startswith(f"{STATE_DIRECTORY}/")
    return [] if inside else [folder]


def _postgres_unit(nixos: str) -> str:
    return "postgresql.service" if nixos in {"24.05", "24.11", "25.05"} else "postgresql.target"


def units_before_bind(on: OnHost, bind: IPv4Address) -> list[str]:
    """Give the units that make the address that something binds to."""
    if on.host.docker and bind == on.host.docker.gateway:
        return ["docker.service"]
    for network, address in on.host.addresses.items():
        if bind == address.ip and on.platform.topology.networks[network].kind == "tailnet":
            return ["tailscaled.service"]
    return []


def gitlab_runner(on: OnHost) -> str | None:
    """Give `gitlab-runner.nix`; None without a runner."""
    if not on.runners:
        return None
    runners = {
        name: {"token": _token(on, runner.token)}
        for name, runner in on.runners.items()
        if runner.token in on.secrets
    }
    user = on.shell_user
    return render(
        "nix/gitlab-runner.nix.j2",
        module=nix_text.own_module("gitlab-runner"),
        config=nix_text.path(f"./{PurePosixPath(runner_config(on.name)).name}"),
        runners=runners,
        uses_config=any(runner["token"]["file"].text.startswith("config.") for runner in runners.values()),
        user=user if user != "gitlab-runner" else None,
        memory_max=shell_memory(on.platform.topology, on.name),
        packages=_job_packages(on),
    )


def _token(on: OnHost, name: str) -> dict[str, Any]:
    """Give a runner's token as the module takes it."""
    secret = on.platform.topology.secrets[name]
    token: dict[str, Any] = {"file": secret_file(on, name), "format": secret.format}
    return {**token, "variable": token_variable(secret, RUNNER_TOKEN)} if secret.format == "env" else token


def _job_packages(on: OnHost) -> list[Expression]:
    """Give what shell jobs need on the host: they run in a login shell, whose PATH is the system's."""
    shell = {name for name, runner in on.runners.items() if runner.executor == "shell"}
    if not shell:
        return []
    pushed = {
        push.cache.partition(":")[0]
        for pipeline in on.platform.topology.pipelines.values()
        if pipeline.runner in shell
        for push in pipeline.push
        if push.policy != "off"
    }
    clients = {"attic": "pkgs.attic-client", "cachix": "pkgs.cachix"}
    names = ["pkgs.git", *(package for kind, package in clients.items() if kind in pushed)]
    return [Expression(name, atomic=True) for name in names]


def secrets(on: OnHost) -> str | None:
    """Give `secrets.nix`; None where no secret has a provider that NixOS knows."""
    age = {name: use for name, use in on.secrets.items() if use.secret.provider == "agenix"}
    sops = {name: use for name, use in on.secrets.items() if use.secret.provider == "sops-nix"}
    if not age and not sops:
        return None
    return render(
        "nix/secrets.nix.j2",
        age={name: _age(name, use.secret) for name, use in age.items()},
        sops={name: _sops(use) for name, use in sops.items()},
        triggers=_triggers(age),
        users=sorted(
            DYNAMIC_USERS
            & {name for use in (age | sops).values() for name in (use.secret.owner, use.secret.group)}
        ),
        needs_root=bool(age) or any(use.secret.source for use in sops.values()),
    )


def _from_root(source: str) -> Expression:
    return Expression(f"root + {nix_text.string(f'/{source}')}")


def _age(name: str, secret: Secret) -> dict[str, Any]:
    declared = {
        "file": _from_root(secret.source or f"secrets/{name}.age"),
        "owner": secret.owner,
        "group": secret.group,
        "mode": secret.mode,
    }
    return {**declared, "path": secret.path} if secret.path else declared


def _sops(use: SecretUse) -> dict[str, Any]:
    secret = use.secret
    declared: dict[str, Any] = {}
    if secret.source:
        declared["sopsFile"] = _from_root(secret.source)
        kind = {".env": "dotenv", ".json": "json", ".ini": "ini", ".bin": "binary"}.get(
            PurePosixPath(secret.source).suffix
        )
        if kind:
            declared["format"] = kind
    declared |= {"owner": secret.owner, "group": secret.group, "mode": secret.mode}
    if secret.path:
        declared["path"] = secret.path
    restart = [unit for unit in use.units if unit != RUNNER]
    if restart:
        declared["restartUnits"] = restart
    if RUNNER in use.units:
        declared["reloadUnits"] = [RUNNER]
    return declared


def _triggers(age: dict[str, SecretUse]) -> dict[str, dict[str, list[str]]]:
    """Give, by unit and kind of trigger, the secrets whose change a unit must notice."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, use in age.items():
        for unit in use.units:
            kind = "reloadTriggers" if unit == RUNNER else "restartTriggers"
            found.setdefault(unit.removesuffix(".service"), {}).setdefault(kind, []).append(name)
    return found


def tunnels(on: OnHost) -> str | None:
    """Give `tunnels.nix`; None where no tunnel starts, or none leads anywhere."""
    made = {name: made for name, tunnel in on.tunnels.items() if (made := _tunnel(on, tunnel))}
    return render("nix/tunnels.nix.j2", module=nix_text.own_module("tunnels"), tunnels=made) if made else None


def _tunnel(on: OnHost, tunnel: Tunnel) -> dict[str, Any] | None:
    try:
        service = on.platform.find_service(tunnel.service)
    except UnknownNameError:
        return None
    location = service.location
    topology = on.platform.topology
    if isinstance(location, HostSocket):
        bind = on.platform.listeners[service.ref].bind
        target, far, port = location.host, LOOPBACK if bind == ANY else bind, location.port
    elif (node_port := getattr(location, "node_port", None)) is not None:
        target = topology.clusters[location.cluster].host  # type: ignore[union-attr]  # only clusters have one
        own = own_addresses(topology, target)
        far, port = own[0][1] if own else LOOPBACK, node_port
    else:
        return None
    there = topology.hosts[target]
    network = tunnel.network or _shared_network(on, there)
    if network not in there.addresses:
        return None
    listen, listen_port = tunnel.listen
    units = units_before_bind(on, listen)
    if topology.networks[network].kind == "tailnet" and "tailscaled.service" not in units:
        units.append("tailscaled.service")
    given = {
        "description": f"ssh tunnel to {service.ref} on {target}",
        "listen": f"{listen}:{listen_port}",
        "to": f"{far}:{port}",
        "login": f"{tunnel.user or there.ssh_user or 'root'}@{there.addresses[network].ip}",
        "identity": tunnel.identity,
        "after": units,
    }
    return {key: value for key, value in given.items() if value}


def _shared_network(on: OnHost, there: Host) -> str:
    for network in on.platform.topology.preferred_networks:
        if network in there.addresses and network in on.host.addresses:
            return network
    return ""


def k3s(on: OnHost) -> str | None:
    """Give `k3s.nix`; None where no k3s node is declared."""
    for cluster in on.clusters.values():
        if cluster.distribution != "k3s":
            continue
        flags = [
            f"--cluster-cidr={cluster.pod_network}",
            f"--service-cidr={cluster.service_network}",
            f"--cluster-domain={cluster.domain}",
        ]
        if cluster.etcd:
            flags.append(f"--etcd-arg=quota-backend-bytes={cluster.etcd.quota}")
        if cluster.memory_max is not None:
            reserved = max(on.host.memory - cluster.memory_max, 0) // 1024
            flags.append(f"--kubelet-arg=system-reserved=memory={reserved}Ki")
        return render("nix/k3s.nix.j2", flags=flags, etcd=bool(cluster.etcd), memory_max=cluster.memory_max)
    return None
