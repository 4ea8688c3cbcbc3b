"""What Attic's server answers, question by question: the table that the real server and each imitation are held to.

Seen on atticd of zhaofengli/attic b7c9056. A row names who it is asked of: `api` (tests/cache/attic_api.py), `cache`
(tests/real/attic_cache.py), `doctor` (tests/real/attic_like.py); the real server is asked every row.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

ABSENT = "0" * 32
UNAUTHORIZED = (401, "Unauthorized", "Unauthorized.")
DENIED = (403, "AccessError", "Access error: User does not have permission to complete this action.")
NO_CACHE = (404, "NoSuchCache", "The requested cache does not exist.")
NO_OBJECT = (404, "NoSuchObject", "The requested object does not exist.")
NOT_FOUND = (404, "NotFound", "The URL you requested was not found.")
BAD_HOST = (400, "RequestError", "General request error: Bad Host")
OK = (200, "", "")

#: Who may ask what: the name of a token that each side mints, or one of these that are as good as none.
NOBODY = ("", "garbage", "expired", "foreign")


@dataclass(frozen=True, slots=True)
class Row:
    """One question and its answer: method, path (`HASH` is an object's), token, status with Attic's error."""

    method: str
    path: str
    token: str
    answer: tuple[int, str, str]
    sides: str
    body: object = None
    host: str = ""

    def __str__(self) -> str:
        return (
            f"{self.method} {self.path} as {self.token or 'nobody'}{' to ' + self.host if self.host else ''}"
        )


def rows():
    """Give every row. `pull`, `push`, `both` are on private alone; `wide` pulls `*`."""
    info, narinfo, nar = "/nix-cache-info", "/HASH.narinfo", "/nar/HASH.nar"
    config, missing = "/_api/v1/cache-config/", "/_api/v1/get-missing-paths"
    for token in NOBODY:
        yield Row("GET", "/private" + info, token, UNAUTHORIZED, "api cache doctor")
        yield Row("GET", "/private" + narinfo, token, UNAUTHORIZED, "api cache")
        yield Row("GET", "/private" + nar, token, UNAUTHORIZED, "api cache")
        yield Row("GET", f"/private/{ABSENT}.narinfo", token, NO_OBJECT, "api cache")
        yield Row("GET", "/absent" + info, token, UNAUTHORIZED, "api cache doctor")
        yield Row("GET", "/absent" + narinfo, token, NO_OBJECT, "api cache")
        yield Row("GET", config + "private", token, UNAUTHORIZED, "api doctor")
        yield Row("GET", config + "absent", token, UNAUTHORIZED, "api doctor")
        yield Row(
            "POST", missing, token, UNAUTHORIZED, "api doctor", {"cache": "private", "store_path_hashes": []}
        )
        yield Row("POST", missing, token, UNAUTHORIZED, "api", {"cache": "absent", "store_path_hashes": []})
        yield Row("GET", "/public" + info, token, OK, "doctor")
        yield Row("GET", "/public" + narinfo, token, OK, "api")
        yield Row("GET", config + "public", token, OK, "api doctor")
        yield Row("POST", missing, token, DENIED, "api doctor", {"cache": "public", "store_path_hashes": []})
        yield Row("PATCH", config + "public", token, DENIED, "api", {})
        yield Row("POST", config + "new", token, UNAUTHORIZED, "api", NEW_CACHE)
    for token, pulls, pushes in (("pull", True, False), ("push", False, True), ("both", True, True)):
        may_pull, may_push = OK if pulls else DENIED, OK if pushes else DENIED
        yield Row("GET", "/private" + info, token, may_pull, "api cache doctor")
        yield Row("GET", "/private" + narinfo, token, may_pull, "api cache")
        yield Row("GET", f"/private/{ABSENT}.narinfo", token, NO_OBJECT, "api cache")
        yield Row("GET", config + "private", token, may_pull, "api doctor")
        yield Row(
            "POST", missing, token, may_push, "api doctor", {"cache": "private", "store_path_hashes": []}
        )
        yield Row("GET", "/absent" + info, token, UNAUTHORIZED, "doctor")
        yield Row("GET", "/public" + info, token, OK, "doctor")
        yield Row("PATCH", config + "private", token, DENIED, "api", {})
        yield Row("POST", config + "private", token, DENIED, "api", NEW_CACHE)
    for name, answer in (("private", OK), ("public", OK), ("absent", NO_CACHE)):
        yield Row("GET", f"/{name}{info}", "wide", answer, "doctor")
        yield Row("GET", config + name, "wide", answer, "api doctor")
    yield Row("POST", missing, "wide", NO_CACHE, "api doctor", {"cache": "absent", "store_path_hashes": []})
    yield Row("POST", missing, "wide", DENIED, "api doctor", {"cache": "private", "store_path_hashes": []})
    yield Row(
        "POST",
        config + "private",
        "all",
        (400, "CacheAlreadyExists", "The cache already exists."),
        "api",
        NEW_CACHE,
    )
    nothing = (400, "RequestError", "General request error: No modifiable fields were set.")
    yield Row("PATCH", config + "private", "all", nothing, "api", {})
    period = (400, "RequestError", "General request error: Invalid retention period")
    yield Row(
        "PATCH", config + "private", "all", period, "api", {"retention_period": {"Period": 4_294_967_295}}
    )
    yield Row("PATCH", config + "absent", "all", NO_CACHE, "api", {})
    yield Row("GET", "/", "", OK, "api doctor")
    yield Row("GET", "/", "", BAD_HOST, "api doctor", host="elsewhere:1")
    yield Row("GET", "/public" + info, "", BAD_HOST, "api doctor", host="elsewhere:1")
    yield Row("GET", config + "private", "all", BAD_HOST, "api doctor", host="elsewhere:1")
    yield Row("GET", "/private/log/x.drv", "all", NOT_FOUND, "api")
    yield Row("GET", "/private/HASH.ls", "all", NOT_FOUND, "api")
    yield Row("GET", "/private/realisations/x.doi", "all", NOT_FOUND, "api")
    yield Row("GET", "/_api/v1/nothing", "all", NOT_FOUND, "api")
    yield Row("GET", "/private/short.narinfo", "all", BAD_HASH, "")


#: A hash that is none: an error of Attic's common code, which its server gives no status of its own.
BAD_HASH = (500, "InvalidStorePathHash", "Error from the common components.")
NEW_CACHE = {
    "keypair": "Generate", "is_public": False, "store_dir": "/nix/store", "priority": 41,
    "upstream_cache_key_names": [],
}  # fmt: skip


@dataclass
class Side:
    """A server to ask: the real one, or an imitation.

    Attributes:
        name: `real`, or as rows name it.
        url: Its base address.
        tokens: What it accepts, by the names that rows use.
        present: The hash of a path that both caches have.

    """

    name: str
    url: str
    tokens: Mapping[str, str]
    present: str = ABSENT

    def ask(self, row: Row):
        """Ask, and give (status, headers, body); no redirect is followed."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        headers = {"Host": row.host} if row.host else {}
        if token := self.tokens.get(row.token, ""):
            headers["Authorization"] = f"Bearer {token}"
        body = None
        if row.body is not None:
            body, headers["Content-Type"] = json.dumps(row.body), "application/json"
        try:
            connection.request(row.method, row.path.replace("HASH", self.present), body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def answer(self, row: Row) -> tuple[int, str, str]:
        """Give what a row compares: status, Attic's name of the error, its message."""
        status, headers, body = self.ask(row)
        if status < 400:
            return status, "", ""
        assert headers["Content-Type"] == "application/json", (headers.items(), body)
        said = json.loads(body)
        assert set(said) == {"code", "error", "message"}, said
        assert said["code"] == status
        return status, said["error"], said["message"]
