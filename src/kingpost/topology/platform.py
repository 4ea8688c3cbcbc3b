"""The platform that a topology implies: the one value that renderers, checks and probes ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from kingpost.topology import contexts as derive
from kingpost.topology.endpoints import bucket_endpoints
from kingpost.topology.listeners import Listener, Opening, listeners
from kingpost.topology.names import CacheRef, match_name, resolve_cache
from kingpost.topology.needs import Need, needs, substituter_refs, substituters_path
from kingpost.topology.paths import Path, entry_interface, machine, pinned_address, ways_to
from kingpost.topology.places import Context, Dialer, External, HostSocket, Namespace, Service
from kingpost.topology.routes import Route, fixed, route
from kingpost.topology.standing import Standing, alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kingpost.topology.ci import Push
    from kingpost.topology.model import Topology


class CacheUse(NamedTuple):
    """A cache that a context substitutes from.

    Attributes:
        ref: Which one.
        url: What stands in its `substituters`, as its daemon dials it; None when it cannot be reached.
        public_key: The key to trust; None when none is declared.
        priority: As declared; lower is asked first.
        public: Whether it can be read without a token.
        reason: Why this address, or why there is none.
        fix: What to change when it cannot be reached.

    """

    ref: CacheRef
    url: str | None
    public_key: str | None
    priority: int
    public: bool
    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class PushRoute:
    """One push of a pipeline: where to, and at which base URL its client reaches the server."""

    push: Push
    ref: CacheRef
    route: Route


class Platform:
    """Everything that follows from a topology, computed once and on demand.

    Attributes:
        topology: What it is derived from.

    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._routes: dict[tuple[str, Dialer, str], Route] = {}
        self._reached: dict[tuple[Namespace | Standing, str], Route] = {}
        self._uses: dict[str, tuple[CacheUse, ...]] = {}
        self._shared_uses: dict[tuple[object, ...], tuple[CacheUse, ...]] = {}

    @cached_property
    def contexts(self) -> dict[str, Context]:
        """Give every context by its id."""
        return derive.contexts(self.topology)

    @cached_property
    def services(self) -> dict[str, Service]:
        """Give every service by its reference."""
        return derive.services(self.topology)

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """Give every connection that must work."""
        return tuple(n for n in needs(self.topology, self.contexts) if n.service in self.services)

    @cached_property
    def _callers(self) -> dict[str, list[Need]]:
        found: dict[str, list[Need]] = {}
        for need in self.needs:
            found.setdefault(need.service, []).append(need)
        return found

    @cached_property
    def bucket_endpoints(self) -> dict[str, str]:
        """Give the one URL of each self-hosted bucket that atticd and all its readers use, by reference."""
        return bucket_endpoints(self.topology, self.contexts, self.services, self._callers)

    def bucket_endpoint(self, bucket: str) -> str:
        """Give the S3 endpoint to configure for a bucket, by its key."""
        location = self.services[f"bucket:{bucket}"].location
        return location.url if isinstance(location, External) else self.bucket_endpoints[f"bucket:{bucket}"]

    @cached_property
    def _alike(self) -> Callable[[Namespace, str], Namespace | Standing]:
        """Give what decides how a namespace reaches a service: those with the same reach it in the same way."""
        return alike(self.topology, self.services)

    @cached_property
    def _ways(self) -> Callable[[Namespace, str], list[Path]]:
        """Give the ways from a namespace to a service, computed once for all that are alike."""
        known: dict[tuple[Namespace | Standing, str], list[Path]] = {}

        def ways(namespace: Namespace, ref: str) -> list[Path]:
            key = (self._alike(namespace, ref), ref)
            if key not in known:
                service = self.services[ref]
                on_host = isinstance(service.location, HostSocket)
                pinned = pinned_address(self.topology, service) if on_host else None
                endpoint = self.bucket_endpoints.get(ref)
                known[key] = ways_to(self.topology, namespace, service, pinned, endpoint)
            return known[key]

        return ways

    @cached_property
    def listeners(self) -> dict[str, Listener]:
        """Give the listener of each service on a declared host."""
        return listeners(self.topology, self.contexts, self.services, self._callers, self._ways)

    @cached_property
    def _listeners_by_host(self) -> dict[str, list[Listener]]:
        found: dict[str, list[Listener]] = {}
        for listener in self.listeners.values():
            found.setdefault(listener.host, []).append(listener)
        return found

    @cached_property
    def _contexts_by_host(self) -> dict[str | None, list[Context]]:
        found: dict[str | None, list[Context]] = {}
        for context in self.contexts.values():
            found.setdefault(context.host, []).append(context)
        return found

    def find_context(self, text: str) -> Context:
        """Give the context that an id, or its ending after `:` or `/`, means.

        Raises:
            UnknownNameError: There is none, or more than one; it says which come close.

        """
        return self.contexts[match_name(text, self.contexts, "context")]

    def find_service(self, text: str) -> Service:
        """Give the service that a reference, its kind (`attic`) or its name means; a cache means its server.

        Raises:
            UnknownNameError: There is none, or more than one.

        """
        server = text.partition("/")[0] if "/" in text else text
        return self.services[match_name(server, self.services, "service")]

    def route(self, context: str, dialer: Dialer, service: str) -> Route:
        """Give the route of a dialer in a context to a service, all by their exact ids."""
        key = (context, dialer, service)
        found = self._routes.get(key)
        if found is None:
            found = self._routes[key] = self._new_route(self.contexts[context], dialer, service)
        return found

    def url(self, context: str, dialer: Dialer, service: str) -> str | None:
        """Give the base URL of a route alone, which a fleet's renderers ask for most; None when there is no way."""
        namespace = self.contexts[context].namespace(dialer)
        same = self._reached.get((self._alike(namespace, service), service))
        return same.url if same else self.route(context, dialer, service).url

    def _new_route(self, context: Context, dialer: Dialer, service: str) -> Route:
        """Give a route; all that are alike and reach a service do so in the same way."""
        namespace = context.namespace(dialer)
        key = (self._alike(namespace, service), service)
        same = self._reached.get(key)
        if same is not None:
            return Route(context.id, dialer, service, *same[3:])
        found = route(
            self.topology,
            context,
            dialer,
            self.services[service],
            self.listeners.get(service),
            ways=self._ways(namespace, service),
            endpoint=self.bucket_endpoints.get(service),
        )
        if found.url is not None:
            self._reached[key] = found
        return found

    def api_endpoint_route(self, context: str, service: str) -> Route | None:
        """Give the hop that `attic push` makes to the server's declared `api-endpoint`; None without one.

        `attic push` dials the login endpoint once and then moves to the `api_endpoint` that the server returns
        (attic client/src/command/push.rs). Without a declared one the server returns the Host it was asked by.
        """
        attic = self.topology.attic[service.removeprefix("attic:")]
        if attic.api_endpoint is None:
            return None
        return fixed(self.topology, self.contexts[context], Dialer.CLIENT, service, attic.api_endpoint)

    def cache_uses(self, context: str) -> tuple[CacheUse, ...]:
        """Give the caches that a context substitutes from, in order, as its daemon dials them."""
        uses = self._uses.get(context)
        if uses is None:
            uses = self._uses[context] = self._new_uses(self.contexts[context])
        return uses

    def _new_uses(self, context: Context) -> tuple[CacheUse, ...]:
        """Give the caches of a context; those that read one list and are alike share what they all reach."""
        path = substituters_path(self.topology, context)
        refs = self._read_from(path)
        key = (path, *(self._alike(context.daemon, ref.service) for ref in refs))
        uses = self._shared_uses.get(key)
        if uses is None:
            uses = tuple(self.cache_use(context.id, Dialer.DAEMON, ref) for ref in refs)
            if all(use.url for use in uses):  # why something cannot be reached is told of each context
                self._shared_uses[key] = uses
        return uses

    @cached_property
    def _read_from(self) -> Callable[[tuple[str, ...]], tuple[CacheRef, ...]]:
        """Give the caches of the list at a path that there are."""

        @cache
        def refs(path: tuple[str, ...]) -> tuple[CacheRef, ...]:
            return tuple(
                ref for ref, _ in substituter_refs(self.topology, path) if ref.service in self.services
            )

        return refs

    def upstreams(self, context: str, ref: CacheRef) -> tuple[str, ...]:
        """Give the caches whose paths are not pushed to an Attic cache, as a context's client dials them."""
        names = self.topology.attic[ref.server].caches[ref.cache].upstream_keys if ref.kind == "attic" else ()
        others = (
            self.cache_use(context, Dialer.CLIENT, other)
            for other in self.topology.all_caches.values()
            if names and other != ref
        )
        return tuple(
            use.url
            for use in others
            if use.url and use.public_key and use.public_key.partition(":")[0] in names
        )

    def cache_use(self, context: str, dialer: Dialer, ref: CacheRef) -> CacheUse:
        """Give one cache as one dialer in one context reaches it."""
        found = self.route(context, dialer, ref.service)
        url = f"{found.url}/{ref.cache}" if found.url and ref.cache else found.url
        key, priority, public = self._served(ref)
        return CacheUse(ref, url, key, priority, public, found.reason, found.fix)

    def _served(self, ref: CacheRef) -> tuple[str | None, int, bool]:
        """Give a cache's public key, its priority, and whether it can be read without a token."""
        if ref.kind == "attic":
            cache = self.topology.attic[ref.server].caches[ref.cache]
            return cache.public_key, cache.priority, cache.public
        if ref.kind == "cachix":
            cachix = self.topology.cachix[ref.server]
            return cachix.public_key, cachix.priority, cachix.public
        other = self.topology.all_substituters[ref.server]
        return other.public_key, other.priority, True

    def pushes(self, pipeline: str) -> tuple[PushRoute, ...]:
        """Give a pipeline's pushes, `off` among them, with the base URL that its client dials."""
        declared = self.topology.pipelines[pipeline]
        context = self.runner_context(declared.runner)
        found = []
        for push in declared.push:
            ref = resolve_cache(self.topology, push.cache)
            found.append(PushRoute(push, ref, self.route(context.id, Dialer.CLIENT, ref.service)))
        return tuple(found)

    def runner_context(self, runner: str) -> Context:
        """Give the context that a runner's jobs run in."""
        context_id = derive.runner_context_id(runner, self.topology.runners[runner])
        return self.contexts[str(context_id)]

    def contexts_on(self, host: str) -> tuple[Context, ...]:
        """Give the contexts of one host."""
        return tuple(self._contexts_by_host.get(host, ()))

    def listeners_on(self, host: str) -> tuple[Listener, ...]:
        """Give the listeners of one host."""
        return tuple(self._listeners_by_host.get(host, ()))

    def openings_on(self, host: str) -> tuple[Opening, ...]:
        """Give what a host's firewall leaves open: for its services, and for tunnels that listen on it."""
        listeners = (opening for listener in self.listeners_on(host) for opening in listener.openings)
        return (*listeners, *self._tunnel_openings.get(host, ()))

    @cached_property
    def _tunnel_openings(self) -> dict[str, list[Opening]]:
        """Give the openings for containers and pods that dial a tunnel's listener on their own host.

        The tunnel's other end needs none: ssh dials the service there from its own host.
        """
        found: dict[str, list[Opening]] = {}
        for need in self.needs if self.topology.tunnels else ():
            namespace = self.contexts[need.context].namespace(need.dialer)
            dialled = self.route(need.context, need.dialer, need.service)
            interface = entry_interface(self.topology, namespace)
            if dialled.via == "tunnel" and dialled.url and interface:
                port = urlsplit(dialled.url).port or 80
                opening = Opening(interface, port, (need.context,))
                found.setdefault(str(machine(self.topology, namespace)), []).append(opening)
        return found

    def firewall(self, host: str) -> dict[str, tuple[int, ...]]:
        """Give the TCP ports that a host's firewall leaves open, by interface."""
        ports: dict[str, set[int]] = {}
        for opening in self.openings_on(host):
            ports.setdefault(opening.interface, set()).add(opening.port)
        return {interface: tuple(sorted(found)) for interface, found in sorted(ports.items())}

    def allowed_hosts(self, attic: str) -> tuple[str, ...]:
        """Give the Host headers that an Attic server must accept: `host:port` as its callers send it.

        Attic compares the whole header, port included (attic server/src/middleware.rs).
        """
        declared = self.topology.attic[attic]
        hosts = {urlsplit(url).netloc for url in self._called_urls(f"attic:{attic}")}
        for url in (declared.public_url, declared.api_endpoint):
            if url:
                hosts.add(urlsplit(url).netloc)
        return (*sorted(hosts), *(host for host in declared.allowed_hosts if host not in hosts))

    def _called_urls(self, service: str) -> Iterator[str]:
        """Give every URL at which any context reaches a service: all its callers, and who else may."""
        for need in self._callers.get(service, ()):
            if url := self.url(need.context, need.dialer, service):
                yield url
        listener = self.listeners.get(service)
        if listener:
            for context in self.contexts_on(listener.host):
                for dialer in Dialer:
                    if url := self.url(context.id, dialer, service):
                        yield url
