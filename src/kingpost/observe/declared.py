"""What the topology promises of the units on a host, in systemd's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.topology.bounds import unit_bounds

if TYPE_CHECKING:
    from kingpost.render.nix_hosts import OnHost

_PROPERTIES: Final = {
    "memory_high": "MemoryHigh",
    "memory_max": "MemoryMax",
    "swap_max": "MemorySwapMax",
    "cpu_weight": "CPUWeight",
    "oomd": "ManagedOOMMemoryPressure",
    "oom_score": "OOMScoreAdjust",
}
"""A limit's fields, and the properties of systemd.resource-control(5) and systemd.exec(5) that they decide."""


def unit_limits(on: OnHost) -> dict[str, dict[str, str]]:
    """Give the bounds of each unit on a host, as `systemctl show` prints them (sizes in bytes)."""
    return {
        unit: {_PROPERTIES[field]: str(value) for field, value in bounds.items()}
        for unit, bounds in unit_bounds(on.platform.topology, on.name).items()
    }
