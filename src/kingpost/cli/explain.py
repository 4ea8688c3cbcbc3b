"""`kingpost explain`: the address of a service from one context, and why."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kingpost.base.errors import EXIT_FAILED, EXIT_OK
from kingpost.cli.topology_file import TopologyFile, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.places import Context, Service
    from kingpost.topology.platform import Platform
    from kingpost.topology.routes import Route

SCHEMA = "kingpost.explain/1"


def command(
    topology: TopologyFile,
    context: Annotated[
        str, typer.Argument(metavar="CONTEXT", help="host:node1, docker:node1/blog, …; a short form will do.")
    ],
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="attic:home, bucket:chunks, …; a short form will do.")
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Say at which address a context reaches a service, and why; or why it does not, and what to change.

    Exit code 1 when some dialer has no way.
    """
    platform = read(topology).platform
    place, target = platform.find_context(context), platform.find_service(service)
    hops = list(_hops(platform, place, target))
    if json:
        print(json_module.dumps(_document(place, target, hops), indent=2))
    else:
        _show(platform, place, target, hops)
    return EXIT_OK if all(route.reachable for _, route in hops) else EXIT_FAILED


def _hops(platform: Platform, context: Context, service: Service) -> Iterator[tuple[str, Route]]:
    """Give every route that a use of the service takes, each with what takes it."""
    from kingpost.topology.caches import BucketStorage
    from kingpost.topology.places import Dialer

    daemons = service.kind in {"attic", "cachix", "substituter", "bucket"} and context.kind != "service"
    dialers = list(Dialer) if daemons else [Dialer.CLIENT]
    what = {Dialer.CLIENT: "client (attic push, curl)", Dialer.DAEMON: "Nix daemon (substituters)"}
    for dialer in dialers:
        namespace = context.namespace(dialer)
        yield f"{what[dialer]} in {namespace}", platform.route(context.id, dialer, service.ref)
    if service.kind != "attic":
        return
    if hop := platform.api_endpoint_route(context.id, service.ref):
        yield "client, after the server named its api-endpoint", hop
    storage = platform.topology.attic[service.name].storage
    bucket = f"bucket:{storage.bucket}" if isinstance(storage, BucketStorage) else ""
    if bucket in platform.services and daemons:
        where = f"Nix daemon, redirected to {bucket}"
        yield where, platform.route(context.id, Dialer.DAEMON, bucket)


def _document(context: Context, service: Service, hops: list[tuple[str, Route]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "context": context.id,
        "service": service.ref,
        "hops": [
            {
                "who": who,
                "dialer": str(route.dialer),
                "service": route.service,
                "url": route.url,
                "via": route.via,
                "reason": route.reason,
                "fix": route.fix,
            }
            for who, route in hops
        ],
    }


def _show(platform: Platform, context: Context, service: Service, hops: list[tuple[str, Route]]) -> None:
    print(f"{service.ref} from {context.id}")
    for who, route in hops:
        print(f"\n  {who}")
        print(f"    {route.url or 'unreachable'}")
        print(f"    why: {route.reason}")
        if route.fix:
            print(f"    fix: {route.fix}")
    listener = platform.listeners.get(service.ref)
    if listener:
        pinned = ", pinned by the topology" if listener.pinned else ""
        print(f"\n  it listens on {listener.bind}:{listener.port} of {listener.host}{pinned}")
        doors = ", ".join(opening.interface for opening in listener.openings) or "no interface"
        print(f"  the firewall there is open on {doors}")
