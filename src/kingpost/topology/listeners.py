"""Bind addresses and firewall openings, computed from who calls: as narrow as the callers allow.

A server such as atticd listens on one address. When all its callers use one of the host's addresses, it is
bound to just that one; when they use several, to all, with the firewall open only on the interfaces that the
callers come in by. Nothing is ever open on every interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.topology.paths import ANY, LOOPBACK, Path, pinned_address
from kingpost.topology.places import HostSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ipaddress import IPv4Address

    from kingpost.topology.model import Topology
    from kingpost.topology.needs import Need
    from kingpost.topology.places import Context, Namespace, Service


@dataclass(frozen=True, slots=True)
class Opening:
    """A port that the firewall leaves open on one interface (`br-+` is every bridge whose name begins so)."""

    interface: str
    port: int
    callers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a service on a host listens, and who may reach it.

    Attributes:
        service: Its reference.
        host: Its host.
        port: Its TCP port.
        bind: The address to bind to; 0.0.0.0 when callers use several of the host's addresses.
        narrowest: What `bind` would be without a pinned one.
        pinned: Whether the topology pins it.
        openings: What the firewall leaves open, by interface.
        callers: The needs that it answers.

    """

    service: str
    host: str
    port: int
    bind: IPv4Address
    narrowest: IPv4Address
    pinned: bool
    openings: tuple[Opening, ...]
    callers: tuple[Need, ...]

    def admits(self, path: Path) -> str:
        """Tell what keeps a path out: `bind`, `firewall`, or nothing."""
        if path.bound is not None and self.bind not in (path.bound, ANY):
            return "bind"
        if path.interface is None or not path.guarded:
            return ""
        return "firewall" if all(path.interface != one.interface for one in self.openings) else ""


def listeners(
    topology: Topology,
    contexts: Mapping[str, Context],
    services: Mapping[str, Service],
    callers: Mapping[str, Sequence[Need]],
    ways: Callable[[Namespace, str], Sequence[Path]],
) -> dict[str, Listener]:
    """Give the listener of every service that is on a declared host, by the service's reference.

    `callers` has the needs of each service; `ways` gives the ways from a namespace to a service, the best first.
    """
    return {
        ref: _listener(topology, contexts, service, callers.get(ref, ()), ways)
        for ref, service in services.items()
        if isinstance(service.location, HostSocket)
    }


def _listener(
    topology: Topology,
    contexts: Mapping[str, Context],
    service: Service,
    needs: Sequence[Need],
    ways: Callable[[Namespace, str], Sequence[Path]],
) -> Listener:
    socket = service.location
    if not isinstance(socket, HostSocket):  # pragma: no cover - the caller filters
        raise TypeError(service.ref)
    pinned = pinned_address(topology, service)
    wanted: set[IPv4Address] = set()
    used: dict[str, set[str]] = {}
    for need in needs:
        found = ways(contexts[need.context].namespace(need.dialer), service.ref)
        if not found:
            continue
        wanted.add(found[0].bound or LOOPBACK)
        open_to = [way for way in found if pinned is None or pinned in {ANY, way.bound}]
        if open_to and (interface := open_to[0].interface):
            used.setdefault(interface, set()).add(need.context)
    narrowest = wanted.pop() if len(wanted) == 1 else (ANY if wanted else LOOPBACK)
    return Listener(
        service=service.ref,
        host=socket.host,
        port=socket.port,
        bind=pinned or narrowest,
        narrowest=narrowest,
        pinned=pinned is not None,
        openings=tuple(
            Opening(interface, socket.port, tuple(sorted(contexts_)))
            for interface, contexts_ in sorted(used.items())
        ),
        callers=tuple(needs),
    )
