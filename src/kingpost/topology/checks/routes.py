"""Routes: whoever must reach something can, at an address that means the same for all who use it."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kingpost.topology.checks.binds import table
from kingpost.topology.checks.registry import Example, Finding, Path, Stage, check
from kingpost.topology.model import DOCKER
from kingpost.topology.places import ClusterSocket, Dialer, External

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.needs import Need
    from kingpost.topology.places import Namespace, Service
    from kingpost.topology.routes import Route

_URL: Final = re.compile(r"https?://[^\s\"'<>,;]+")


def _own_namespace(url: str) -> bool:
    """Tell whether a URL means the dialer's own namespace; 0.0.0.0 is an address to bind, and dials loopback."""
    name = urlsplit(url).hostname or ""
    try:
        address = IPv4Address(name)
    except AddressValueError:
        return name in {"localhost", "::1", "::"} or name.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _cluster_of(scene: Scene, url: str) -> str | None:
    """Give the cluster that a URL's name is a Service's of."""
    name = urlsplit(url).hostname or ""
    for cluster, declared in scene.topology.clusters.items():
        if name.endswith(f".svc.{declared.domain}"):
            return cluster
    return None


def _url_path(service: Service) -> Path:
    """Give where the URL of a service that somebody else runs stands."""
    if service.kind == "bucket":
        return ("buckets", service.name, "endpoint")
    kind = "substituters" if service.kind == "substituter" else service.kind
    return (kind, service.name, "url")


def _names(contexts: Iterable[str]) -> str:
    found = list(dict.fromkeys(contexts))
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")


@check(
    "KP-ROUTE-LOOPBACK",
    title="A loopback address is not used across namespaces",
    why="127.0.0.1 is whoever dials it: on another host, in a container or a pod it leads to nothing, and Nix skips a"
    " dead substituter without a word",
    fix="declare what listens there (an Attic server, a bucket's `listener`, a tunnel) instead of a URL: every dialer"
    " then gets its own address",
    example=Example(
        bad='[substituters.mine]\nurl = "http://127.0.0.1:8083/main"\n'
        'public_key = "mine:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n\n'
        '[runners.blog]\nsubstituters = ["substituter:mine"]',
        good='[runners.blog]\nsubstituters = ["attic:home/main"]',
        at=("substituters", "mine", "url"),
    ),
    stage=Stage.DERIVED,
)
def loopback(scene: Scene) -> Iterator[Finding]:
    """Find hand-written loopback addresses that are dialled from a container, a pod or several hosts."""
    platform = scene.platform
    dialed: dict[str, dict[Namespace, list[str]]] = {}
    by_loopback = {
        ref
        for ref, service in platform.services.items()
        if isinstance(service.location, External) and _own_namespace(service.location.url)
    }
    for need in platform.needs if by_loopback else ():
        if need.service in by_loopback:
            namespace = platform.contexts[need.context].namespace(need.dialer)
            dialed.setdefault(need.service, {}).setdefault(namespace, []).append(need.context)
    for ref, namespaces in dialed.items():
        if len(namespaces) > 1 or any(namespace.kind != "host" for namespace in namespaces):
            service = platform.services[ref]
            contexts = (context for found in namespaces.values() for context in found)
            place = "another namespace" if len(namespaces) == 1 else f"{len(namespaces)} namespaces"
            yield Finding(
                _url_path(service),
                f"{ref} has a loopback address and is dialled from {place}: {_names(contexts)}",
            )
    for name, attic in scene.topology.attic.items():
        if attic.public_url and _own_namespace(attic.public_url):
            yield Finding(
                ("attic", name, "public_url"),
                f"the public URL of {name} is a loopback address",
                fix="remove it",
            )
    yield from _in_commands(scene)


def _in_commands(scene: Scene) -> Iterator[Finding]:
    for name, pipeline in scene.topology.pipelines.items():
        client = scene.platform.runner_context(pipeline.runner).client
        for index, text in enumerate(pipeline.build):
            if client.kind != "host" and any(_own_namespace(url) for url in _URL.findall(text)):
                yield Finding(
                    ("pipelines", name, "build", index),
                    f"jobs of {name} run in a container, where the loopback address in this command is its own",
                )


@check(
    "KP-ROUTE-BY-HAND",
    title="What is declared is dialled by its name, not by a URL",
    why="a URL does not count as a caller: the server may be bound to another address, and the firewall stays shut",
    fix="name the declared server instead of a URL: every dialer then gets the address that works for it",
    example=Example(
        bad='[substituters.mine]\nurl = "http://100.64.0.1:8083/main"\n'
        'public_key = "mine:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n\n'
        '[hosts.laptop]\nsubstituters = ["substituter:mine"]',
        good='[hosts.laptop]\nsubstituters = ["attic:home/main"]',
        at=("substituters", "mine", "url"),
    ),
    stage=Stage.DERIVED,
)
def by_hand(scene: Scene) -> Iterator[Finding]:
    """Find URLs of other people's services that are a declared listener's; a tunnel's end works as it is."""
    platform = scene.platform
    listeners = {(listener.host, listener.port): ref for ref, listener in platform.listeners.items()}
    for ref in dict.fromkeys(need.service for need in platform.needs):
        service = platform.services[ref]
        if not isinstance(service.location, External):
            continue
        url = service.location.url
        host = _host_of(scene, url)
        if host is None and _own_namespace(url) and len(namespaces := _dialers(scene, ref)) == 1:
            (namespace,) = namespaces
            host = namespace.owner if namespace.kind == "host" else None
        parts = urlsplit(url)
        listener = listeners.get((host or "", parts.port or (443 if parts.scheme == "https" else 80)))
        if listener:
            yield Finding(
                _url_path(service),
                f"the URL of {ref} is {listener} on {host}, written by hand",
                fix=_instead(scene, listener, url),
            )


def _dialers(scene: Scene, service: str) -> set[Namespace]:
    """Give the namespaces that a service is dialled from."""
    contexts = scene.platform.contexts
    return {
        contexts[need.context].namespace(need.dialer)
        for need in scene.platform.needs
        if need.service == service
    }


def _instead(scene: Scene, listener: str, url: str) -> str:
    kind, _, name = listener.partition(":")
    if kind == "bucket":
        return f"give this bucket the `listener` of {listener}"
    cache = urlsplit(url).path.strip("/")
    known = scene.topology.attic[name].caches
    return (
        f'write "{listener}/{cache if cache in known else next(iter(known), "CACHE")}" wherever this is named'
    )


def _host_of(scene: Scene, url: str) -> str | None:
    """Give the declared host that a URL's address is of."""
    name = urlsplit(url).hostname or ""
    for host, network in scene.topology.owners.get(name, ()):
        if network != DOCKER and str(scene.topology.hosts[host].addresses[network].ip) == name:
            return host
    return None


@check(
    "KP-ROUTE-NODE-PORT",
    title="What is dialled from outside its cluster has a node port",
    why="a Service's name and address mean something to pods of the cluster alone",
    fix="give it a `node_port` from 30000 to 32767, or a `public_url`",
    example=Example(
        bad='[clusters.k3s]\nhost = "node1"\nmemory_max = "2GiB"\n\n'
        '[attic.pods]\ncluster = "k3s"\nport = 8080\nsecret = "attic"\n\n'
        '[attic.pods.caches.apps]\npublic = true\npublic_key = "apps:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n\n'
        '[site]\nsubstituters = ["attic:pods/apps"]',
        good='[clusters.k3s]\nhost = "node1"\nmemory_max = "2GiB"\n\n'
        '[attic.pods]\ncluster = "k3s"\nport = 8080\nnode_port = 30080\nsecret = "attic"\n\n'
        '[attic.pods.caches.apps]\npublic = true\npublic_key = "apps:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n\n'
        '[site]\nsubstituters = ["attic:pods/apps"]',
        at=("attic", "pods"),
    ),
    stage=Stage.DERIVED,
)
def no_node_port(scene: Scene) -> Iterator[Finding]:
    """Find servers in a cluster that somebody outside must reach and cannot."""
    outside: dict[str, list[str]] = {}
    for need, found in _unreachable(scene):
        if _lacks_node_port(scene, found) and not _is_redirect(scene, need):
            outside.setdefault(need.service, []).append(need.context)
    for ref, contexts in outside.items():
        yield Finding(
            table(ref), f"{ref} has no address outside its cluster, and is dialled by {_names(contexts)}"
        )


@check(
    "KP-ROUTE-REDIRECT",
    title="Whoever pulls from an Attic server reaches its bucket",
    why="Attic redirects readers of small NARs to the bucket's own endpoint: narinfos and large paths work, and small"
    " ones fail",
    fix="give the bucket an endpoint that every reader reaches",
    example=Example(
        bad='[networks.lan]\nkind = "lan"\n\n[hosts.store]\nmemory = "4GiB"\naddresses = { lan = "192.168.1.5" }\n\n'
        '[hosts.node1.addresses]\nlan = "192.168.1.6"\n\n'
        '[buckets.own]\nprovider = "garage"\ncredentials = "attic"\nlistener = { host = "store", port = 3900 }\n\n'
        '[attic.home]\nstorage = { kind = "bucket", bucket = "own" }',
        good='[hosts.store]\nmemory = "4GiB"\naddresses = { tailnet = "100.64.0.9" }\n\n'
        '[buckets.own]\nprovider = "garage"\ncredentials = "attic"\nlistener = { host = "store", port = 3900 }\n\n'
        '[attic.home]\nstorage = { kind = "bucket", bucket = "own" }',
        at=("attic", "home", "storage", "bucket"),
    ),
    stage=Stage.DERIVED,
)
def redirect_hop(scene: Scene) -> Iterator[Finding]:
    """Find Attic servers with readers that do not reach the bucket."""
    lost: dict[str, list[tuple[Need, Route]]] = {}
    for need, found in _unreachable(scene):
        if _is_redirect(scene, need) and not _explained(scene, found):
            lost.setdefault(need.service, []).append((need, found))
    for name, attic in scene.topology.attic.items():
        missing = lost.get(f"bucket:{getattr(attic.storage, 'bucket', '')}")
        if missing:
            contexts = _names(need.context for need, _ in missing)
            route = missing[0][1]
            yield Finding(
                ("attic", name, "storage", "bucket"),
                f"{contexts} may pull from {name} but not reach its bucket: {route.reason}",
                fix=route.fix,
            )


@check(
    "KP-ROUTE-API-ENDPOINT",
    title="Every pusher reaches the server's `api_endpoint`",
    why="`attic push` asks the address it logged in to, and then moves to the api_endpoint that the server returns:"
    " login and `cache info` work, and the push fails",
    fix="leave `api_endpoint` out: each pusher then stays at the address it came by",
    example=Example(
        bad='[attic.home]\napi_endpoint = "http://127.0.0.1:8083/"',
        good='[attic.home]\napi_endpoint = "http://100.64.0.1:8083/"',
        at=("attic", "home", "api_endpoint"),
    ),
    stage=Stage.DERIVED,
)
def api_endpoint(scene: Scene) -> Iterator[Finding]:
    """Find api_endpoints that a declared pusher cannot reach."""
    platform, topology = scene.platform, scene.topology
    lost: dict[str, list[tuple[str, str]]] = {}
    for need in platform.needs:
        kind, _, name = need.service.partition(":")
        if kind != "attic" or need.dialer is not Dialer.CLIENT or need.path[0] != "pipelines":
            continue
        endpoint = topology.attic[name].api_endpoint
        found = platform.api_endpoint_route(need.context, need.service)
        if endpoint is None or found is None:
            continue
        context = platform.contexts[need.context]
        if (
            _own_namespace(endpoint)
            and scene.host_of(topology.attic[name].host, None) != context.client.owner
        ):
            lost.setdefault(name, []).append((need.context, "it is a loopback address"))
        elif (cluster := _cluster_of(scene, endpoint)) and (context.client.kind, context.client.owner) != (
            "pod",
            cluster,
        ):
            lost.setdefault(name, []).append((need.context, f"it is a name inside the cluster {cluster}"))
        elif not found.reachable:
            lost.setdefault(name, []).append((need.context, found.reason))
    for name, missing in lost.items():
        yield Finding(
            ("attic", name, "api_endpoint"),
            f"{_names(context for context, _ in missing)} cannot reach the api_endpoint of {name}: {missing[0][1]}",
        )


@check(
    "KP-ROUTE-UNREACHABLE",
    title="Whatever is used can be reached",
    why="a substituter that is not reached is skipped without a word; a push or a clone fails",
    fix="give both ends an address on one network, or declare a tunnel",
    example=Example(
        bad='[hosts.offline]\nmemory = "4GiB"\n\n[hosts.offline.addresses]',
        good='[hosts.offline]\nmemory = "4GiB"\n\n[hosts.offline.addresses]\ntailnet = "100.64.0.9"',
        at=("site", "substituters", 0),
    ),
    stage=Stage.DERIVED,
)
def unreachable(scene: Scene) -> Iterator[Finding]:
    """Find needs without a route that no other check explains better."""
    lost: dict[tuple[Path, str, str], list[tuple[Need, Route]]] = {}
    for need, found in _unreachable(scene):
        if _explained(scene, found) or _lacks_node_port(scene, found) or _is_redirect(scene, need):
            continue
        lost.setdefault((need.path, need.service, found.reason), []).append((need, found))
    for (path, ref, reason), missing in lost.items():
        contexts = _names(need.context for need, _ in missing)
        yield Finding(path, f"{contexts} cannot reach {ref}: {reason}", fix=missing[0][1].fix)


def _unreachable(scene: Scene) -> Iterator[tuple[Need, Route]]:
    for need in scene.platform.needs:
        found = scene.platform.route(need.context, need.dialer, need.service)
        if not found.reachable:
            yield need, found


def _lacks_node_port(scene: Scene, route: Route) -> bool:
    location = scene.platform.services[route.service].location
    return isinstance(location, ClusterSocket) and location.node_port is None


def _explained(scene: Scene, route: Route) -> bool:
    """Tell whether KP-ROUTE-LOOPBACK or KP-BIND-NARROW says more about it."""
    location = scene.platform.services[route.service].location
    listener = scene.platform.listeners.get(route.service)
    by_loopback = isinstance(location, External) and _own_namespace(location.url)
    return by_loopback or bool(listener and listener.pinned and route.candidate)


def _is_redirect(scene: Scene, need: Need) -> bool:
    return need.service.startswith("bucket:") and scene.platform.contexts[need.context].kind != "service"
