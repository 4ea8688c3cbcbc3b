"""The system side of a host as NixOS modules: Docker, firewall, the Nix daemon, memory limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kingpost.base.units import format_size
from kingpost.render import nix_text
from kingpost.render.environment import render
from kingpost.render.nix_services import FILL, token_source
from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.render.secret_files import ATTIC_TOKEN
from kingpost.topology.bounds import container_bounds, declared_bounds
from kingpost.topology.paths import ANY, PER_BUILD_INTERFACE

if TYPE_CHECKING:
    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.bounds import Bounds
    from kingpost.topology.platform import CacheUse

NIXOS_CACHE: Final = "https://cache.nixos.org"
_OPTIONS: Final = {
    "memory_high": "memoryHigh",
    "memory_max": "memoryMax",
    "swap_max": "swapMax",
    "cpu_weight": "cpuWeight",
    "oomd": "oomd",
    "oom_score": "oomScore",
}
_SIZES: Final = frozenset({"memory_high", "memory_max", "swap_max"})

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
        uses=[(str(use.ref), _url(use), use.reason, use.fix) for use in on.reads],
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
    units, containers = declared_bounds(on.limits), container_bounds(on.limits)
    if not units and not containers:
        return None
    return render(
        "nix/limits.nix.j2",
        module=nix_text.own_module("limits"),
        units={unit: _options(bounds) for unit, bounds in units.items()},
        containers={container: _options(bounds) for container, bounds in containers.items()},
    )


def _options(bounds: Bounds) -> list[_Bound]:
    """Give what `kingpost.limits` calls these bounds, sizes in bytes and beside them as one reads them."""
    return [
        (option, bounds[field], format_size(int(bounds[field])) if field in _SIZES else "")
        for field, option in _OPTIONS.items()
        if field in bounds
    ]
