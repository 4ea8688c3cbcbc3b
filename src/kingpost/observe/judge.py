"""What the answers on a route mean: expected behaviour told from failure, and look-alikes told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.observe import doctor_codes as codes

if TYPE_CHECKING:
    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.topology.routes import Route

Seen = Mapping[str, Any]

CONNECT_CODES: Final = {"refused": codes.ROUTE_REFUSED, "timeout": codes.ROUTE_TIMEOUT}
TLS_CODES: Final = {
    "untrusted": codes.TLS_UNTRUSTED, "expired": codes.TLS_EXPIRED, "name": codes.TLS_NAME,
    "plain": codes.ROUTE_SCHEME, "secure": codes.ROUTE_SCHEME,
}  # fmt: skip
"""By why the handshake failed, as `inside/route.py` and `inside/route.sh` name it."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the topology says about one target.

    Attributes:
        route: The derived route.
        url: What was dialled: the route's URL, or the candidate of an unreachable one.
        kind: `attic`, `cachix`, `substituter`, `bucket` or `gitlab`.
        cache: The logical cache; empty for other kinds.
        public: Whether the cache is declared readable by everyone.
        pushes: Whether this context is declared to push there.

    """

    route: Route
    url: str
    kind: str
    cache: str = ""
    public: bool = True
    pushes: bool = False

    @property
    def subject(self) -> str:
        """Name the route: `docker:node1/blog client -> attic:home/blog-cache`."""
        service = f"{self.route.service}/{self.cache}" if self.cache else self.route.service
        return f"{self.route.context} {self.route.dialer} -> {service}"


def judge(expected: Expectation, seen: Seen) -> list[Verdict]:
    """Give the verdicts of one route: the first is on the route itself, others on what it led to."""
    if "skipped" in seen:
        return [codes.NOT_ENTERED.verdict(expected.subject, str(seen["skipped"]), {})]
    lost = _lost(seen)
    if not expected.route.reachable:
        return [_declared_closed(expected, seen, lost)]
    if lost:
        code, why = lost
        return [_verdict(code, expected, seen, f"{expected.url}: {why}")]
    if expected.kind in {"bucket", "gitlab"}:
        return [_other_kinds(expected, seen)]
    return _cache(expected, seen)


def _lost(seen: Seen) -> tuple[Code, str] | None:
    """Give why there is no connection; None when there is one."""
    if error := seen.get("resolve", {}).get("error"):
        return codes.ROUTE_NAME, f"the name does not resolve: {error}"
    connect = seen.get("connect", {})
    if kind := connect.get("error"):
        code = CONNECT_CODES.get(kind, codes.ROUTE_UNREACHABLE)
        return code, str(connect.get("text") or kind)
    if error := seen.get("tls", {}).get("error"):
        return TLS_CODES.get(seen["tls"].get("kind", ""), codes.ROUTE_TLS), f"TLS: {str(error)[:300]}"
    broken = seen.get("requests", {}).get("anonymous", {})
    if "error" in broken:
        code = codes.ROUTE_TIMEOUT if broken["error"] == "timeout" else codes.ROUTE_OTHER
        return code, f"connected, and no HTTP answer came: {broken.get('text', broken['error'])}"
    return None


def _declared_closed(expected: Expectation, seen: Seen, lost: tuple[Code, str] | None) -> Verdict:
    if lost:
        return _verdict(
            codes.ROUTE_CLOSED, expected, seen, f"{expected.url}: {lost[1]}; {expected.route.reason}"
        )
    if not _is_itself(expected, seen):
        what = "something else answers there"
        return _verdict(
            codes.ROUTE_CLOSED, expected, seen, f"{expected.url}: {what}; {expected.route.reason}"
        )
    return _verdict(codes.ROUTE_OPEN, expected, seen, f"{expected.url} answers; {expected.route.reason}")


def _is_itself(expected: Expectation, seen: Seen) -> bool:
    """Tell whether the answer is the declared service's own."""
    answer = seen.get("requests", {}).get("anonymous", {})
    status, body = answer.get("status"), answer.get("body")
    if body is None:  # the shell's probe sees no body
        return status in {200, 400, 401, 403}
    if expected.kind in {"attic", "cachix", "substituter"}:
        return (status == 200 and "StoreDir:" in body) or (
            status in {400, 401, 403, 404} and '"error"' in body
        )
    return status is not None


def _other_kinds(expected: Expectation, seen: Seen) -> Verdict:
    answer = seen.get("requests", {}).get("anonymous", {})
    status = answer.get("status", 0)
    if status == 429:
        return _verdict(codes.RATE_LIMITED, expected, seen, _wait(answer))
    if status >= 500:
        return _verdict(codes.SERVER_ERROR, expected, seen, f"{expected.url}: HTTP {status}")
    if expected.kind == "bucket" and "<" not in (answer.get("body") or "<") and "Server" not in answer:
        return _verdict(
            codes.ROUTE_OTHER, expected, seen, f"{expected.url}: HTTP {status}, and no answer of an S3 server"
        )
    return _verdict(codes.ROUTE_OK, expected, seen, f"{expected.url}: HTTP {status}")


def _cache(expected: Expectation, seen: Seen) -> list[Verdict]:
    asks = seen.get("requests", {})
    answer = asks.get("anonymous", {})
    status, body = answer.get("status", 0), answer.get("body")
    route = [_cache_route(expected, seen, status, body, answer)]
    if route[0].code != codes.ROUTE_OK.name:
        return route
    return [*route, *_access(expected, seen, status), *_hops(expected, seen)]


def _cache_route(expected: Expectation, seen: Seen, status: int, body: str | None, answer: Seen) -> Verdict:
    what = f"{expected.url}: HTTP {status}"
    if status == 429:
        return _verdict(codes.RATE_LIMITED, expected, seen, _wait(answer))
    if status >= 500:
        return _verdict(codes.SERVER_ERROR, expected, seen, what)
    if status == 400 and (body is None or "Host" in body):
        return _verdict(codes.ROUTE_BAD_HOST, expected, seen, f"{what}, the Host header is not allowed")
    if not _is_itself(expected, seen):
        return _verdict(codes.ROUTE_OTHER, expected, seen, f"{what}, and no answer of a binary cache")
    return _verdict(codes.ROUTE_OK, expected, seen, what)


def _access(expected: Expectation, seen: Seen, anonymous: int) -> list[Verdict]:
    """Judge what the context may do there; nothing to say of a public cache that is only read."""
    asks = seen.get("requests", {})
    with_token = asks.get("authenticated", {}).get("status")
    if "NoSuchCache" in _bodies(asks) or (anonymous == 404 and expected.kind == "attic"):
        return [_verdict(codes.CACHE_MISSING, expected, seen, f"the server has no cache {expected.cache!r}")]
    if with_token is None:
        if anonymous in {401, 403} and expected.public:
            summary = f"HTTP {anonymous} without a token, from a cache that is declared public"
            return [_verdict(codes.CACHE_NOT_PUBLIC, expected, seen, summary)]
        if anonymous in {401, 403}:
            return [
                _verdict(codes.AUTH_NONE, expected, seen, f"HTTP {anonymous}: private, and no token here")
            ]
        return []
    if with_token == 401:
        return [
            _verdict(codes.AUTH_IGNORED, expected, seen, "HTTP 401 although the context's token was sent")
        ]
    return _push_access(expected, seen, asks.get("push", {}).get("status"))


def _push_access(expected: Expectation, seen: Seen, push: int | None) -> list[Verdict]:
    claims = seen.get("claims") or {}
    if push in {401, 403}:
        if claims.get("push") or claims.get("expired") or not claims:
            summary = f"HTTP {push} on push, although the token claims it: it counts as no token"
            return [_verdict(codes.AUTH_IGNORED, expected, seen, summary)]
        if not expected.pushes:
            return [
                _verdict(codes.AUTH_READ_ONLY, expected, seen, f"HTTP {push} on push with a read-only token")
            ]
        summary = "the context is declared to push, and its token may only pull"
        remedy = "mint a token with --push for this cache"
        return [codes.AUTH_IGNORED.verdict(expected.subject, summary, _evidence(seen), remedy=remedy)]
    return [_verdict(codes.AUTH_OK, expected, seen, "the context's token is accepted")]


def _hops(expected: Expectation, seen: Seen) -> list[Verdict]:
    found = []
    endpoint = seen.get("api_endpoint", {})
    if expected.pushes and (lost := _lost(endpoint)):
        summary = f"the server hands out {endpoint['url']}, which is not reached from here: {lost[1]}"
        found.append(_verdict(codes.ENDPOINT_LOST, expected, seen, summary))
    redirect = seen.get("redirect", {})
    if lost := _lost(redirect):
        summary = f"a NAR is redirected to {redirect.get('host')}, which is not reached from here: {lost[1]}"
        found.append(_verdict(codes.REDIRECT_LOST, expected, seen, summary))
    return found


def _bodies(asks: Seen) -> str:
    return "".join(
        str(asks.get(name, {}).get("body", "")) for name in ("authenticated", "config", "anonymous")
    )


def _wait(answer: Seen) -> str:
    after = answer.get("retry-after")
    return f"HTTP 429, to be tried again after {after} s" if after else "HTTP 429 without Retry-After"


def _verdict(code: Code, expected: Expectation, seen: Seen, summary: str) -> Verdict:
    remedy = None
    if code is codes.ROUTE_OPEN and expected.route.fix:
        remedy = expected.route.fix
    elif code is codes.ROUTE_NAME and expected.route.via == "public":
        remedy = "the name is public: look at the resolver of this context, and whether it has internet"
    return code.verdict(expected.subject, summary, _evidence(seen), remedy=remedy)


def _evidence(seen: Seen) -> dict[str, Any]:
    """Give the facts without bodies: statuses, addresses, seconds."""
    connect = seen.get("connect", {})
    found: dict[str, Any] = {
        name: answer["status"] for name, answer in seen.get("requests", {}).items() if "status" in answer
    }
    found = {f"http_{name}": status for name, status in found.items()}
    if "address" in connect:
        found |= {"address": connect["address"], "connect_seconds": connect["seconds"]}
    if "addresses" in seen.get("resolve", {}):
        found["resolved"] = seen["resolve"]["addresses"]
    for name in ("api_endpoint", "redirect"):
        if name in seen:
            found[name] = seen[name].get("url") or seen[name].get("host")
    return found
