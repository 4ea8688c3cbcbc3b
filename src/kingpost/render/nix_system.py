"""The system side of a host as NixOS modules: Docker, firewall, the Nix daemon, memory limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import format_size
from kingpost.render import nix_text
from kingpost.render.environment import render
from kingpost.render.nix_services import FILL, token_source
from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.render.nix_text import Call
from kingpost.render.secret_files import ATTIC_TOKEN
from kingpost.topology.paths import ANY, PER_BUILD_INTERFACE

if TYPE_CHECKING:

    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.guards import Limit
    from kingpost.topology.platform import CacheUse

NIXOS_CACHE: Final = "https://cache.nixos.org"
CONFIGURABLE: Final = frozenset({"service", "slice", "socket"})
"""Kinds of units whose resource directives NixOS has options for."""
EXECUTING: Final = frozenset({"service", "socket", "mount"})
"""Kinds of units that start processes, and so have an OOM score."""


def docker(on: OnHost) -> str | None:
    """Give `docker.nix`; None without a Docker engine."""
    engine = on.host.docker
    if engine is None:
        return None
    return render(
        "nix/docker.nix.j2",
        bridge=engine.bridge if engine.bridge != "docker0" else None,
        address=str(engine.bip.ip),
        prefix=engine.bip.network.prefixlen,
        bip=engine.bip,
        pools=[{"base": pool.base, "size": pool.size} for pool in engine.pools],
    )


def firewall(on: OnHost) -> str | None:
    """Give `firewall.nix`; None where nothing listens for others."""
    openings: dict[str, dict[int, set[str]]] = {}
    for opening in on.platform.openings_on(on.name):
        openings.setdefault(opening.interface, {}).setdefault(opening.port, set()).update(opening.callers)
    open_binds = [one.service for one in on.platform.listeners_on(on.name) if one.bind == ANY]
    if not openings and not open_binds:
        return None
    return render(
        "nix/firewall.nix.j2",
        openings=[
            (
                interface,
                interface == PER_BUILD_INTERFACE,
                sorted(ports),
                _some(sorted(set().union(*ports.values()))),
            )
            for interface, ports in sorted(openings.items())
        ],
        wildcard=PER_BUILD_INTERFACE in openings,
        open_binds=open_binds,
    )


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def nix_daemon(on: OnHost) -> str:
    """Give `nix.nix`."""
    reached = [use for use in on.reads if use.url]
    urls = [_url(use) for use in reached]
    others = _unique(url for use in on.jobs_read if (url := _url(use)) and url not in urls)
    keys = _unique(use.public_key for use in (*reached, *on.jobs_read) if use.public_key)
    netrc = [
        {
            "machine": line.machine,
            "placeholder": f"@TOKEN:{line.secret}@",
            "source": token_source(on, line.secret, ATTIC_TOKEN),
        }
        for line in on.netrc
    ]
    return render(
        "nix/nix.nix.j2",
        uses=[(str(use.ref), _url(use), use.route.reason, use.route.fix) for use in on.reads],
        nixos_missing=f"{NIXOS_CACHE}/" not in urls,
        urls=urls,
        forced_urls=nix_text.force(urls),
        keys=keys,
        others=others,
        trusted_users=list(on.host.trusted_users),
        settings={name: nix_text.default(value) for name, value in known_to(on.host.nix, RESILIENCE).items()},
        netrc=netrc,
        netrc_text="".join(f"machine {line['machine']} password {line['placeholder']}\n" for line in netrc),
        fill=FILL,
    )


def _url(use: CacheUse) -> str:
    """Give a substituter's URL, the NixOS cache's as NixOS itself writes it: Nix then sees that they are one."""
    url = use.url or ""
    return f"{url}/" if url == NIXOS_CACHE else url


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def limits(on: OnHost) -> str | None:
    """Give `limits.nix`; None where nothing is limited."""
    if not on.limits:
        return None
    units: dict[tuple[str, ...], list[tuple[str, Any, str]]] = {}
    drop_ins: dict[str, str] = {}
    containers: dict[str, list[str]] = {}
    for limit in on.limits.values():
        if limit.container:
            containers.setdefault(limit.container, []).extend(_docker_options(limit))
        if not limit.unit:
            continue
        base, _, kind = limit.unit.rpartition(".")
        directives = _directives(limit, kind)
        if kind in CONFIGURABLE:
            units.setdefault(("systemd", f"{kind}s", base, f"{kind}Config"), []).extend(
                (key, Call("lib.mkOverride 90", value), _size(key, value))
                for key, value in directives.items()
            )
        else:
            lines = [f"[{kind.capitalize()}]", *(f"{key}={value}" for key, value in directives.items())]
            drop_ins[f"etc/systemd/system/{limit.unit}.d/kingpost.conf"] = "\n".join((*lines, ""))
    return render(
        "nix/limits.nix.j2",
        units={option: _last_wins(found) for option, found in units.items() if found},
        drop_ins=drop_ins,
        containers=containers,
        oomd=any(limit.oomd == "kill" for limit in on.limits.values()),
    )


def _size(key: str, value: Any) -> str:
    return format_size(value) if key.startswith("Memory") else ""


def _last_wins(directives: list[tuple[str, Any, str]]) -> list[tuple[str, Any, str]]:
    """Keep one of each directive, for two limits of one unit would be a Nix syntax error."""
    return list({directive[0]: directive for directive in directives}.values())


def _directives(limit: Limit, kind: str) -> dict[str, Any]:
    """Give what systemd.resource-control(5) and systemd.exec(5) call a limit's bounds; sizes in bytes."""
    given = {
        "MemoryHigh": limit.memory_high,
        "MemoryMax": limit.memory_max,
        "MemorySwapMax": limit.swap_max,
        "CPUWeight": limit.cpu_weight,
        "ManagedOOMMemoryPressure": limit.oomd,
        "OOMScoreAdjust": limit.oom_score if kind in EXECUTING else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _docker_options(limit: Limit) -> list[str]:
    """Give `docker run`'s options; its CPU shares are 1024 where systemd's weight is 100."""
    options = []
    if limit.memory_max is not None:
        options.append(f"--memory={limit.memory_max}")
        if limit.swap_max is not None:
            options.append(f"--memory-swap={limit.memory_max + limit.swap_max}")
    if limit.memory_high is not None:
        options.append(f"--memory-reservation={limit.memory_high}")
    if limit.oom_score is not None:
        options.append(f"--oom-score-adj={limit.oom_score}")
    if limit.cpu_weight is not None:
        options.append(f"--cpu-shares={max(2, limit.cpu_weight * 1024 // 100)}")
    return options
