"""The system side of a host as NixOS modules: Docker, firewall, the Nix daemon, memory limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kingpost.base.units import format_size
from kingpost.render import nix_text
from kingpost.render.environment import render
from kingpost.render.nix_services import FILL, token_source
from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.render.secret_files import ATTIC_TOKEN
from kingpost.topology.paths import ANY, PER_BUILD_INTERFACE

if TYPE_CHECKING:
    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.guards import Limit
    from kingpost.topology.platform import CacheUse

NIXOS_CACHE: Final = "https://cache.nixos.org"
EXECUTING: Final = frozenset({"service", "socket", "mount", "swap", "container"})
"""Kinds of what starts processes, and so has an OOM score."""
SIZES: Final = frozenset({"memoryHigh", "memoryMax", "swapMax"})

_Bound: TypeAlias = tuple[str, int | str, str]
"""Option, value, and the value as one reads it."""


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
    checked = {f"attic:{name}" for name in on.attic}  # by modules/atticd.nix
    open_binds = [
        one.service
        for one in on.platform.listeners_on(on.name)
        if one.bind == ANY and one.service not in checked
    ]
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
    units: dict[str, list[_Bound]] = {}
    containers: dict[str, list[_Bound]] = {}
    for limit in on.limits.values():
        if limit.container:
            containers.setdefault(limit.container, []).extend(_bounds(limit, "container"))
        if limit.unit:
            kind = limit.unit.rpartition(".")[2]
            units.setdefault(limit.unit, []).extend(_bounds(limit, kind))
    if not units and not containers:
        return None
    return render(
        "nix/limits.nix.j2",
        module=nix_text.own_module("limits"),
        units={unit: _last_wins(found) for unit, found in units.items()},
        containers={container: _last_wins(found) for container, found in containers.items()},
    )


def _last_wins(bounds: list[_Bound]) -> list[_Bound]:
    """Keep one of each bound, for two limits of one unit would be a Nix syntax error."""
    return list({bound[0]: bound for bound in bounds}.values())


def _bounds(limit: Limit, kind: str) -> list[_Bound]:
    """Give what `kingpost.limits` calls a limit's bounds, sizes in bytes and beside them as one reads them."""
    given: dict[str, int | str | None] = {
        "memoryHigh": limit.memory_high,
        "memoryMax": limit.memory_max,
        "swapMax": limit.swap_max,
        "cpuWeight": limit.cpu_weight,
        "oomd": limit.oomd if kind != "container" else None,
        "oomScore": limit.oom_score if kind in EXECUTING else None,
    }
    return [
        (key, value, format_size(value) if key in SIZES and isinstance(value, int) else "")
        for key, value in given.items()
        if value is not None
    ]
