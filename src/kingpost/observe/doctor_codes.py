"""What a route, tried from inside its context, can turn out to be."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

ROUTE_OK: Final = Code(
    "KP-ROUTE-OK", Status.OK, "the route works",
    "From inside the context, by the derived address, the service answered as itself.",
    told_apart="The answer is a `nix-cache-info` with StoreDir (or S3's, or GitLab's), not just an open port.",
)  # fmt: skip
ROUTE_CLOSED: Final = Code(
    "KP-ROUTE-CLOSED", Status.EXPECTED, "closed, as declared",
    "The matrix calls this route unreachable, and so it is.",
    cause="Nothing declared needs it, or the bind is pinned.",
    told_apart="KP-ROUTE-REFUSED is the same answer on a route that should work.",
    remedy="nothing; to open it, declare who needs it",
)  # fmt: skip
ROUTE_OPEN: Final = Code(
    "KP-ROUTE-OPEN", Status.FAILED, "open, though declared closed",
    "The service answers a context that the topology gives no way to it.",
    cause="The bind or the firewall on the host is wider than what is rendered, or the topology lacks a caller.",
    told_apart="It is the declared service itself that answers; anything else there is KP-ROUTE-CLOSED.",
    remedy="declare the caller, or deploy the rendered firewall and bind",
)  # fmt: skip
ROUTE_REFUSED: Final = Code(
    "KP-ROUTE-REFUSED", Status.FAILED, "connection refused",
    "The address is right by the topology, and nothing accepts connections on it.",
    cause="The service is down, or it is bound to another address than the rendered one.",
    told_apart="A shut NixOS firewall drops packets: that is KP-ROUTE-TIMEOUT, not a refusal.",
    remedy="`ss -ltnp` on the service's host: compare the address with the rendered one; see the unit's log",
)  # fmt: skip
ROUTE_NARROW: Final = Code(
    "KP-ROUTE-BIND-NARROW", Status.FAILED, "bound too narrowly",
    "The service's own host reaches it on loopback, and this context is refused at the derived address.",
    cause="It is bound to 127.0.0.1 (or another single address), which is a promise to its own namespace only.",
    told_apart="KP-ROUTE-REFUSED: the host itself does not reach it either.",
    remedy="generate again and deploy: the rendered `listen` covers this caller; then restart the service",
)  # fmt: skip
ROUTE_TIMEOUT: Final = Code(
    "KP-ROUTE-TIMEOUT", Status.FAILED, "no answer to the connection",
    "Packets to the derived address get no answer.",
    cause="A firewall drops them (NixOS's default), or the address belongs to a machine that is off.",
    told_apart="A refusal means that the host answered: KP-ROUTE-REFUSED.",
    remedy="deploy the rendered firewall.nix: it opens the port on the interface that this caller comes in by",
)  # fmt: skip
ROUTE_UNREACHABLE: Final = Code(
    "KP-ROUTE-UNREACHABLE", Status.FAILED, "no way to the address",
    "The network says that the address cannot be reached from here, or the connection broke.",
    cause="The tunnel or tailnet is down, or the context is on another network than declared.",
    told_apart="KP-ROUTE-TIMEOUT: no answer at all; here the network itself says no.",
    remedy="check `tailscale status`, or the tunnel's unit, on the context's host",
)  # fmt: skip
ROUTE_NAME: Final = Code(
    "KP-ROUTE-NAME", Status.FAILED, "the name does not resolve here",
    "The host name in the URL has no address in this context.",
    cause="A tailnet (MagicDNS) name in a container, host.docker.internal without `extra_hosts`, or no DNS.",
    told_apart="Asked inside the context: the same name may resolve on its host.",
    remedy="use the derived URL: it has an address wherever names do not resolve; deploy the rendered config.toml",
)  # fmt: skip
ROUTE_TLS: Final = Code(
    "KP-ROUTE-TLS", Status.FAILED, "TLS is refused",
    "The connection is there, and the server ends the TLS handshake.",
    cause="No protocol or cipher in common, a name (SNI) that the server does not serve, or a proxy without a backend.",
    told_apart="No certificate was judged: KP-TLS-UNTRUSTED, KP-TLS-EXPIRED and KP-TLS-NAME say what one lacks.",
    remedy="`openssl s_client -connect HOST:PORT -servername HOST` from the context; then the server's or proxy's log",
)  # fmt: skip
TLS_UNTRUSTED: Final = Code(
    "KP-TLS-UNTRUSTED", Status.FAILED, "a certificate that nobody here trusts",
    "The server's certificate is self-signed, or of an authority that this context does not know.",
    cause="An authority of one's own whose certificate is not installed here, or a proxy that intercepts.",
    told_apart="The same server is trusted elsewhere: contexts have CA bundles of their own, a container its image's.",
    remedy="install the authority in this context: `security.pki.certificateFiles` on a host, NIX_SSL_CERT_FILE and "
    "the image's bundle in a container",
)  # fmt: skip
TLS_EXPIRED: Final = Code(
    "KP-TLS-EXPIRED", Status.FAILED, "a certificate that is not valid now",
    "The server's certificate has expired, or is not valid yet.",
    cause="Its renewal failed, the server was not reloaded after it, or the clock here is wrong.",
    told_apart="`date -u` in the context: a wrong clock makes every certificate so.",
    remedy="renew it and reload the server (`systemctl list-timers 'acme-*'`), or set the clock",
)  # fmt: skip
TLS_NAME: Final = Code(
    "KP-TLS-NAME", Status.FAILED, "a certificate for another name",
    "The server's certificate is trusted, and is for other names than the URL's.",
    cause="The URL has an address or an alias where the certificate has the public name, or a proxy serves its "
    "default site.",
    told_apart="KP-ROUTE-OTHER-SERVICE: the handshake works, and what answers is another service.",
    remedy="use a name that is in the certificate as the service's URL, or issue one for this name",
)  # fmt: skip
ROUTE_SCHEME: Final = Code(
    "KP-ROUTE-SCHEME", Status.FAILED, "http where https is spoken, or the reverse",
    "The URL says https and the port answers plain HTTP, or says http and the port speaks TLS.",
    cause="A server without a proxy in front of it, a proxy's other port, or a URL with the wrong scheme.",
    told_apart="Both were tried: the other scheme gets an answer on the same port.",
    remedy="correct the scheme or the port of the URL in the topology, generate and deploy",
)  # fmt: skip
ROUTE_OTHER: Final = Code(
    "KP-ROUTE-OTHER-SERVICE", Status.FAILED, "another service answers",
    "Something answers at the address, and it is not the service that is declared there.",
    cause="127.0.0.1 or a port that belongs to something else in this namespace, a proxy's page, a login page.",
    told_apart="HTTP 200 alone proves nothing: Attic's own `/` is a static page too.",
    remedy="see what listens there (`ss -ltnp`), and that the port in the topology is the service's",
)  # fmt: skip
ROUTE_BAD_HOST: Final = Code(
    "KP-ROUTE-BAD-HOST", Status.FAILED, "the server refuses the Host header",
    "HTTP 400 `Bad Host` or `Missing Host header`.",
    cause="`allowed-hosts` compares the whole Host header, port included, and lacks this context's.",
    told_apart="Another 400 has no word of the Host header, and is KP-ROUTE-OTHER-SERVICE.",
    remedy="generate again and deploy: `allowed-hosts` is computed from all callers",
)  # fmt: skip
SERVER_ERROR: Final = Code(
    "KP-ROUTE-SERVER-ERROR", Status.FAILED, "the server fails",
    "HTTP 5xx.",
    cause="For Attic: the database or the storage; the cause is only in its log.",
    told_apart="A proxy's 502 or 504 is one too: its body is not the service's.",
    remedy="read atticd's log; then `kingpost cache audit` for what clients get, `kingpost bucket rca` for storage",
)  # fmt: skip
RATE_LIMITED: Final = Code(
    "KP-ROUTE-RATE-LIMITED", Status.EXPECTED, "asked to wait",
    "HTTP 429, with how long to wait.",
    cause="The server is healthy and protects itself.",
    told_apart="503 is KP-ROUTE-SERVER-ERROR: that server does not protect itself, it fails.",
    remedy="wait as long as `Retry-After` says",
)  # fmt: skip
AUTH_OK: Final = Code(
    "KP-AUTH-OK", Status.OK, "the context's token works", "The server accepts what the token is for."
)
AUTH_NONE: Final = Code(
    "KP-AUTH-NO-TOKEN", Status.EXPECTED, "401 without a token",
    "A private cache answers 401 to a context that holds no token.",
    cause="Authentication works. It does not prove that the cache exists.",
    told_apart="With a token the same answer is KP-AUTH-TOKEN-IGNORED.",
    remedy="nothing, unless this context should read or push: then give it a token (`kingpost token mint`)",
)  # fmt: skip
AUTH_IGNORED: Final = Code(
    "KP-AUTH-TOKEN-IGNORED", Status.FAILED, "the token is treated as none",
    "The context's token is sent, and the server answers as to nobody.",
    cause="Expired, signed with another secret, or not yet valid: Attic then takes the request as anonymous, "
    "so on a public cache reading still works and only pushing fails.",
    told_apart="403 to a token whose own claims lack the permission is KP-AUTH-READ-ONLY.",
    remedy="mint a new token (`kingpost token mint`) with the live secret; check clocks",
)  # fmt: skip
AUTH_READ_ONLY: Final = Code(
    "KP-AUTH-READ-ONLY", Status.EXPECTED, "403 on push with a read-only token",
    "The token may pull and not push, by its own claims, and the server says so.",
    cause="The token was minted for reading, and this context is not declared to push.",
    told_apart="A context that is declared to push gets KP-AUTH-TOKEN-IGNORED, with the missing permission named.",
    remedy="nothing; a job that pushes needs a token minted with --push",
)  # fmt: skip
CACHE_MISSING: Final = Code(
    "KP-CACHE-MISSING", Status.FAILED, "the cache does not exist",
    "The server has no cache of this name.",
    cause="Without a permission on the name Attic answers 401, the same as for a private cache.",
    told_apart="A token with a permission on the name gets 404 NoSuchCache; 401 alone does not tell.",
    remedy="create it: `attic cache create`, with the name from the topology",
)  # fmt: skip
CACHE_NOT_PUBLIC: Final = Code(
    "KP-CACHE-NOT-PUBLIC", Status.FAILED, "declared public, and it is not",
    "401 from a cache that the topology declares public.",
    cause="The cache is private, or there is none of that name: both answer 401.",
    told_apart="With a token that has a permission on the name, a missing cache answers 404: KP-CACHE-MISSING.",
    remedy="`attic cache configure --public`, or declare it private; if it is missing, create it",
)  # fmt: skip
ENDPOINT_LOST: Final = Code(
    "KP-API-ENDPOINT-UNREACHABLE", Status.FAILED, "the server sends pushers elsewhere",
    "The server's `api_endpoint` cannot be reached from this context.",
    cause="`attic push` moves to the api-endpoint that the server returns: login works, and push fails.",
    told_apart="The route itself works: `attic login` and `nix-cache-info` succeed, and only a push fails.",
    remedy="leave `api-endpoint` unset, then it is the Host that was asked; or use a name every pusher reaches",
)  # fmt: skip
REDIRECT_LOST: Final = Code(
    "KP-REDIRECT-UNREACHABLE", Status.FAILED, "the bucket cannot be reached",
    "A NAR is answered with a redirect to the bucket, and this context does not reach that.",
    cause="Attic redirects single-chunk NARs to its own S3 endpoint: small paths fail, large ones work.",
    told_apart="KP-ROUTE-OK for the cache itself: narinfos come, and only bodies do not.",
    remedy="configure an endpoint that every reader reaches: the rendered atticd.toml has one",
)  # fmt: skip
DROPPED: Final = Code(
    "KP-CONTEXT-DROPPED", Status.EXPECTED, "the ssh connection dropped during a switch",
    "The connection to the host broke in the middle, and a new one worked a moment later; the host was switching to "
    "another system.",
    cause="A switch restarts tailscaled, the network or sshd: what goes over them drops once and comes back.",
    told_apart="The host says so: switch-to-configuration's lock is held, its unit runs, or /run/current-system has "
    "just been replaced. Otherwise it is KP-CONTEXT-UNSTABLE; a host that stays away is KP-CONTEXT-NOT-ENTERED.",
    remedy="nothing; but never run a switch in a session that goes over what it restarts: in a unit of its own, as "
    "`nixos-rebuild --target-host` does",
)  # fmt: skip
UNSTABLE: Final = Code(
    "KP-CONTEXT-UNSTABLE", Status.FAILED, "the ssh connection drops",
    "The connection to the host broke in the middle, and a new one worked a moment later, without any switch there.",
    cause="A network that loses packets, a session or daemon that was killed (for memory, for example), a restart by "
    "hand, or a host that was booted anew.",
    told_apart="KP-CONTEXT-DROPPED: a switch ran on the host. The evidence names units that were started meanwhile.",
    remedy="`journalctl -u sshd -u tailscaled -e` on the host, and `kingpost pressure` for what was killed",
)  # fmt: skip
NOT_ENTERED: Final = Code(
    "KP-CONTEXT-NOT-ENTERED", Status.SKIPPED, "the context was not entered",
    "The route was not tried, because its context could not be entered.",
    remedy="name a way in with `--enter CONTEXT=ssh:HOST`, `docker:CONTAINER`, `netns:NAME` or `pod:NS/POD`",
)  # fmt: skip
