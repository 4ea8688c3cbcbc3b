"""Ask a live Attic server for something that needs a permission, without changing anything.

Attic treats a bad token as none, so success proves something only where an anonymous request fails. Each
request here is refused without the permission, and changes nothing with it (server/src/api/v1/ at b7c9056):

    pull                       GET cache-config, beside the same without a token: proves nothing if that works too
    push                       POST get-missing-paths with no hash
    configure-cache            PATCH cache-config with nothing: 400 "No modifiable fields were set."
    configure-cache-retention  PATCH with a period that no database can hold: 400 "Invalid retention period"
    create-cache               POST cache-config of a cache that exists: 400 CacheAlreadyExists
    delete, destroy-cache      none
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import CannotLookError
from kingpost.cache import token_codes as codes
from kingpost.cache.token import Permission
from kingpost.cache.token_inspect import decode
from kingpost.cache.token_patterns import chosen

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from kingpost.base.verdict import Verdict

#: u32 that does not fit the server's i32: refused after the permission was checked, before anything is written.
_IMPOSSIBLE_PERIOD: Final = 4_294_967_295
_CREATE_BODY: Final = {
    "keypair": "Generate",
    "is_public": False,
    "store_dir": "/nix/store",
    "priority": 41,
    "upstream_cache_key_names": [],
}
#: Permissions in an order where the first that is granted also shows that the server believes the token.
ORDER: Final = (
    Permission.PUSH,
    Permission.CONFIGURE_CACHE,
    Permission.CONFIGURE_CACHE_RETENTION,
    Permission.CREATE_CACHE,
    Permission.PULL,
    Permission.DELETE,
    Permission.DESTROY_CACHE,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: the status, and the error name of Attic's JSON when there was one."""

    status: int
    error: str
    message: str
    body: Any

    def evidence(self, request: str) -> dict[str, Any]:
        """Give it as a verdict's evidence."""
        return {
            "request": request,
            "http_status": self.status,
            "error": self.error,
            "message": self.message[:200],
        }


class Check:
    """One token against one cache of one server.

    Args:
        client: HTTP client of `base.http`, which follows no redirect.
        server: The server's base URL.
        cache: Cache name.
        token: The token; never part of a verdict.

    """

    def __init__(self, client: httpx.Client, server: str, cache: str, token: str) -> None:
        self._client = client
        self._server = server.rstrip("/")
        self.cache = cache
        self._token = token
        decoded = decode(token)
        self._claimed = decoded.permissions(cache) if decoded else frozenset()
        self._entries = (decoded.entries if decoded else None) or {}
        self._believed = False

    @property
    def claimed(self) -> frozenset[Permission]:
        """Give the permissions that the token itself says it has on the cache."""
        return self._claimed

    def run(self, wanted: Iterable[Permission]) -> list[Verdict]:
        """Check permissions; gives one verdict each, in `ORDER`.

        Raises:
            CannotLookError: The server cannot be reached at all.

        """
        asked = set(wanted)
        return [self._check(permission) for permission in ORDER if permission in asked]

    def _check(self, permission: Permission) -> Verdict:
        config = f"/_api/v1/cache-config/{self.cache}"
        match permission:
            case Permission.PULL:
                return self._pull(config)
            case Permission.PUSH:
                body = {"cache": self.cache, "store_path_hashes": []}
                answer = self._ask("POST", "/_api/v1/get-missing-paths", body)
                granted = (
                    answer.status == 200 and isinstance(answer.body, dict) and "missing_paths" in answer.body
                )
                return self._judge(permission, answer, "POST get-missing-paths", granted=granted)
            case Permission.CONFIGURE_CACHE:
                return self._refused_as(permission, "PATCH", config, {}, "No modifiable fields")
            case Permission.CONFIGURE_CACHE_RETENTION:
                period = {"retention_period": {"Period": _IMPOSSIBLE_PERIOD}}
                return self._refused_as(permission, "PATCH", config, period, "Invalid retention period")
            case Permission.CREATE_CACHE:
                return self._create(config)
            case Permission.DELETE | Permission.DESTROY_CACHE:
                return self._unprovable(permission, "no request of Attic's API needs it and changes nothing")

    def _refused_as(
        self, permission: Permission, method: str, path: str, body: dict[str, Any], message: str
    ) -> Verdict:
        answer = self._ask(method, path, body)
        granted = answer.status == 400 and answer.error == "RequestError" and message in answer.message
        return self._judge(permission, answer, f"{method} cache-config", granted=granted)

    def _pull(self, config: str) -> Verdict:
        anonymous = self._ask("GET", config, token=False)
        answer = self._ask("GET", config)
        granted = answer.status == 200 and isinstance(answer.body, dict) and "public_key" in answer.body
        if not (granted and anonymous.status == 200):
            return self._judge(Permission.PULL, answer, "GET cache-config", granted=granted)
        if self._believed or self._believed_elsewhere():
            return self._judge(Permission.PULL, answer, "GET cache-config", granted=True)
        return self._unprovable(Permission.PULL, "the cache is public: everybody may pull, a bad token too")

    def _believed_elsewhere(self) -> bool:
        """Ask for a name that no cache has but the token's pattern matches: 404 to a good token, 401 to a bad."""
        picked = chosen(self._entries, self.cache)
        if picked is None or "*" not in picked[0] or not picked[1]:
            return False
        absent = picked[0].replace("*", "kingpost-absent", 1).replace("*", "")
        if len(absent) > 50 or chosen(self._entries, absent) != picked:
            return False
        return self._ask("GET", f"/_api/v1/cache-config/{absent}").error == "NoSuchCache"

    def _create(self, config: str) -> Verdict:
        exists = self._ask("GET", config)
        if exists.status not in (200, 403):
            reason = "it can be shown only on a cache that exists, where creating it changes nothing"
            return self._unprovable(Permission.CREATE_CACHE, reason)
        answer = self._ask("POST", config, _CREATE_BODY)
        granted = answer.error == "CacheAlreadyExists"
        return self._judge(Permission.CREATE_CACHE, answer, "POST cache-config", granted=granted)

    def _judge(self, permission: Permission, answer: Answer, request: str, *, granted: bool) -> Verdict:
        subject = f"{permission} on {self.cache} at {self._server}"
        evidence = answer.evidence(request)
        if granted:
            self._believed = True
            return codes.GRANTED.verdict(subject, f"{request} was accepted with the token", evidence)
        if answer.error == "NoSuchCache":
            return codes.NO_CACHE.verdict(subject, f"the server has no cache named {self.cache}", evidence)
        if answer.status not in (401, 403) or not answer.error:
            return codes.STRANGE.verdict(
                subject, f"{request} was answered with HTTP {answer.status}, not as Attic answers", evidence
            )
        if permission not in self._claimed:
            names = ", ".join(sorted(self._claimed)) or "nothing"
            return codes.DENIED.verdict(subject, f"the token grants {names} on {self.cache}", evidence)
        return codes.ANONYMOUS.verdict(
            subject, f"the token claims {permission}, yet the server refuses as without a token", evidence
        )

    def _unprovable(self, permission: Permission, reason: str) -> Verdict:
        return codes.UNPROVABLE.verdict(f"{permission} on {self.cache} at {self._server}", reason)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: bool = True
    ) -> Answer:
        import httpx  # noqa: PLC0415 - slow to import

        try:
            response = self._client.request(
                method,
                self._server + path,
                json=body,
                headers={"Authorization": f"Bearer {self._token}"} if token else {},
            )
        except httpx.HTTPError as error:
            raise CannotLookError(
                f"the server does not answer: {error or type(error).__name__}",
                where=f"{method} {self._server}{path}",
                why="whether the token is good cannot be seen from here",
                fix="check the address for this context with `kingpost explain`, and that atticd runs",
            ) from error
        try:
            document = response.json()
        except ValueError:
            document = None
        named = document if isinstance(document, dict) else {}
        return Answer(
            response.status_code, str(named.get("error", "")), str(named.get("message", "")), document
        )


def clock_difference(client: httpx.Client, server: str, now: float) -> float | None:
    """Give how many seconds the server's clock is ahead of ours, by its `Date` header; None without one.

    The header has whole seconds, so the result is exact to about one second plus the way there.
    """
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - needed only here

    import httpx  # noqa: PLC0415 - slow to import

    try:
        date = client.get(server).headers.get("Date")
        return parsedate_to_datetime(date).timestamp() - now if date else None
    except httpx.HTTPError as error:
        raise CannotLookError(
            f"the server does not answer: {error or type(error).__name__}", where=server
        ) from error
    except ValueError:
        return None
